"""The chat page of 7.6: a check before the model, a streamed reply, sources beside it, one conversation per tab."""

from helpers.chat_view import BANNER, budget_bar, chat_messages, source_cards
from helpers.consultation import NO_DOSE, NOT_CHINESE, answer_first, consult, remember
from helpers.datasets import bundled
from helpers.retrieval import retriever

FIXED = "固定的回答，不是模型说的"


def page(model, tokenizer, name: str, max_length: int = 1024, new_tokens: int = 160):
    """Return the chat page as Gradio blocks; without an adapter in ``model`` there is no before/after switch.

    ``max_length``: tokens of the conversation, the reply's ``new_tokens`` included; older turns are forgotten.
    """
    import gradio

    nearest, tuned = retriever(bundled("consultations")), hasattr(model, "disable_adapter")
    model.eval()

    def ask(message, turns):
        """The check, at once and for every tab: nobody with an emergency waits for another one's reply."""
        unchanged = [gradio.skip()] * 6
        if not message.strip():
            return unchanged
        if turns and turns[-1].get("open"):
            gradio.Info("上一句还没有答完：等一等，或者先点“停止”")
            return unchanged
        turns = [*turns, {"role": "user", "content": message.strip()}]
        said = answer_first(message)
        if said:
            urgent = said not in (NO_DOSE, NOT_CHINESE)
            turns.append({"role": "assistant", "content": said, "by": FIXED, "urgent": urgent})
            banner = BANNER if urgent else gradio.skip()
            return turns, chat_messages(turns), banner, source_cards([]), gradio.skip(), ""
        try:
            _, used, forgotten = remember(tokenizer, turns, max_length, new_tokens)
        except ValueError:
            gradio.Warning(f"这段话太长：问和答一共只有 {max_length} 个词元，请说得短一些")
            return unchanged
        # after an emergency there is nothing to read beside 120 until the conversation is cleared
        found = [] if any(turn.get("urgent") for turn in turns) else nearest(message)
        turns.append({"role": "assistant", "content": "……", "by": "模型还没有开口", "open": True})
        bar = budget_bar(used, forgotten, max_length)
        return turns, chat_messages(turns), gradio.skip(), source_cards(found), bar, ""

    def answer(turns, which):
        """The model's reply as it grows, if the check left one open; one at a time for all tabs."""
        if not turns or not turns[-1].get("open"):
            yield [gradio.skip()] * 3  # a generator that yields nothing would empty its outputs
            return
        asked, by = turns[:-1], f"模型生成（{which}），没有人核对过"
        messages, used, forgotten = remember(tokenizer, asked, max_length, new_tokens)
        for text in consult(model, tokenizer, messages, new_tokens, base=tuned and which == "微调前"):
            turn = {"role": "assistant", "content": text or "……", "by": FIXED if text == NO_DOSE else by, "open": True}
            turns = [*asked, turn]
            yield turns, chat_messages(turns), budget_bar(used + len(tokenizer(text).input_ids), forgotten, max_length)
        turns = closed(turns)
        yield turns, chat_messages(turns), gradio.skip()

    def closed(turns, note=""):
        last = turns[-1]
        return [*turns[:-1], last | {"open": False, "by": last["by"] + note}]

    def stop(turns):
        turns = closed(turns, "（停下了，没有说完）") if turns and turns[-1].get("open") else turns
        return turns, chat_messages(turns)

    def empty():
        return [], [], "", source_cards([]), budget_bar(0, 0, max_length), ""

    with gradio.Blocks(title="医疗问诊机器人（教学）", analytics_enabled=False) as blocks:
        gradio.Markdown(f"# 医疗问诊机器人（教学）\n模型：{name}")
        turns = gradio.State([])
        with gradio.Row():
            with gradio.Column(scale=3, min_width=320):
                chat = gradio.Chatbot(label="问诊", height=420, buttons=[], feedback_options=None)
                banner = gradio.HTML(padding=False)
                box = gradio.Textbox(label="患者的话", placeholder="哪里不舒服？多久了？", lines=1, max_lines=5)
                with gradio.Row():
                    send = gradio.Button("发送", variant="primary", min_width=80)
                    halt = gradio.Button("停止", min_width=80)
                    clear = gradio.Button("清空", min_width=80)
                budget = gradio.HTML(budget_bar(0, 0, max_length), padding=False)
                choices = ["微调后", "微调前"] if tuned else ["原模型"]
                which = gradio.Radio(choices, value=choices[0], label="下一句由谁回答", visible=tuned)
            with gradio.Column(scale=2, min_width=320):
                sources = gradio.HTML(source_cards([]), padding=False)
        everything = [turns, chat, banner, sources, budget, box]
        quiet = dict(api_visibility="private", show_progress="hidden")
        asking = gradio.on([box.submit, send.click], ask, [box, turns], everything, queue=False, **quiet)
        answering = asking.then(answer, [turns, which], [turns, chat, budget], concurrency_limit=1, **quiet)
        halt.click(stop, turns, [turns, chat], cancels=answering, queue=False, **quiet)
        emptied = [clear.click, chat.clear]  # the button, and the bin in the corner of the chat
        gradio.on(emptied, empty, None, everything, cancels=answering, queue=False, **quiet)
    return blocks
