"""The chat page of 7.6: a check before the model, a streamed reply, sources beside it, one conversation per tab."""

from contextlib import closing

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
    answer_first("")  # what the check fits once is fitted now, not at the first emergency

    # `turns` is one list per tab, changed in place: who stops or clears closes the last turn, and the generator that
    # fills it sees that at the next token, whatever the network does. Every function shows the list as it now is.
    def view(turns):
        used = next((turn["used"] for turn in reversed(turns) if "used" in turn), (0, 0))
        return chat_messages(turns), budget_bar(*used, max_length)

    def close(turns):
        if turns and turns[-1].get("open"):
            turns[-1].update(open=False, note="（停下了，没有说完）")

    def ask(message, turns):
        """The check, at once and for every tab: an emergency waits for no reply, neither its own tab's nor another's."""
        asked = {"role": "user", "content": message.strip()}
        if not asked["content"]:
            return [gradio.skip()] * 5
        banner, found, said = gradio.skip(), [], answer_first(message)
        if said:
            urgent = said not in (NO_DOSE, NOT_CHINESE)
            banner = BANNER if urgent else banner
            reply = {"by": FIXED, "urgent": urgent}
        else:
            try:
                _, *used = remember(tokenizer, [*turns, asked], max_length, new_tokens)
            except ValueError:
                gradio.Warning(f"这段话太长：问和答一共只有 {max_length} 个词元，请说得短一些")
                return [gradio.skip()] * 5
            reply = {"by": "模型还没有开口", "open": True, "used": used}
            if not any(turn.get("urgent") for turn in turns):  # after an emergency nothing draws away from 120
                found = nearest(message)
        close(turns)
        turns += [asked, {"role": "assistant", "content": said or "……", **reply}]
        return *view(turns), banner, source_cards(found), ""

    def answer(turns, which):
        """The model's reply as it grows, if the check left one open; one at a time for all tabs."""
        turn = turns[-1] if turns else {}
        if turn.get("open"):
            messages, used, forgotten = remember(tokenizer, turns[:-1], max_length, new_tokens)
            by = f"模型生成（{which}），没有人核对过"
            with closing(consult(model, tokenizer, messages, new_tokens, tuned and which == "微调前")) as replies:
                for text in replies:
                    if not turn["open"]:
                        break
                    turn.update(content=text or "……", by=FIXED if text == NO_DOSE else by)
                    turn["used"] = used + len(tokenizer(text).input_ids), forgotten
                    yield view(turns)
            turn["open"] = False
        yield view(turns)

    def stop(turns):
        close(turns)
        return view(turns)

    def empty(turns):
        close(turns)
        turns.clear()
        return *view(turns), "", source_cards([]), ""

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
        everything = [chat, budget, banner, sources, box]
        quiet = dict(api_visibility="private", show_progress="hidden")
        asking = gradio.on([box.submit, send.click], ask, [box, turns], everything, concurrency_limit=None, **quiet)
        asking.then(answer, [turns, which], everything[:2], trigger_mode="multiple", concurrency_limit=1, **quiet)
        halt.click(stop, turns, everything[:2], queue=False, **quiet)
        emptied = [clear.click, chat.clear]  # the button, and the bin in the corner of the chat
        gradio.on(emptied, empty, turns, everything, queue=False, **quiet)
    return blocks
