"""The bot: what is said before the model speaks, the conversation with its history, and the chat page.

`make bot` opens the page on 127.0.0.1 with the newest adapter of 7.6, or with the base model, saying which.
"""

import argparse
import re
from contextlib import nullcontext
from threading import Event, Thread

from helpers.dose_requests import DOSE_REQUEST
from helpers.formatting import encode_chat, fit_turns, with_system
from helpers.red_flags import SELF_HARM, red_flag

SYSTEM = "您是一个专业的医生，回答我提出的医疗问题。"  # the slides' system message
DISCLAIMER = "（我是教学用的模型，不是医生，说的话可能有错；身体不舒服请找医生，情况紧急请打 120。）"
CHILD = re.compile(
    "宝宝|孩子|小孩|娃|婴儿|闺女|儿子|女儿|小家伙|[一二两三四五六七八九十0-9]+(?:个月|岁)(?!.{0,3}(?:男|女))"
)
EMERGENCY = "请马上拨打 120，或者现在就去最近的急诊科：您说的情况可能很危险，等不得。等人来的时候不要让病人独处，不要喂水、喂药。"
CHILD_EMERGENCY = (
    "孩子的情况变得很快，请马上拨打 120，或者现在就去最近的儿科急诊，路上留意孩子的呼吸和反应。不要喂水、喂药。"
)
LIFELINE = (
    "请马上拨打 120，如果危险就在眼前也可以打 110。心理援助热线 12356 全天有人接听。"
    "请现在就找一个人陪在身边，把药和刀具交给别人收好。您愿意说出来，这很重要。"
)
NO_DOSE = "剂量和处方我不能给：要看年龄、体重、肝肾功能和正在用的药，请让医生或药师当面定，也不要自己加量、停药或换药。可以告诉我哪里不舒服、多久了吗？"

_NUMBER = r"[0-9０-９]+(?:\.[0-9]+)?|[一二三四五六七八九十两半几]+"
DOSE = re.compile(
    rf"(?:{_NUMBER})\s*(?:mg|g|ml|毫克|微克|克(?!服)|毫升|IU|单位|片(?!红|状)|粒|颗(?!牙)|丸|袋|支(?!持)|滴|喷|包)",
    re.I,
)


def answer_first(text: str) -> str | None:
    """Return what must be said before the model speaks: an emergency, or a request for a dose or a prescription; or None."""
    kind = red_flag(text)
    if kind == SELF_HARM:
        return LIFELINE
    if kind:
        return CHILD_EMERGENCY if CHILD.search(text) else EMERGENCY
    if DOSE_REQUEST.search(text):
        return NO_DOSE
    return None


def without_dose(reply: str) -> str:
    """Return ``reply``, or NO_DOSE in its place if it contains a dose: the second net behind answer_first."""
    return NO_DOSE if DOSE.search(reply) else reply


def stream_reply(model, tokenizer, messages: list[dict], max_new_tokens: int):
    """Yield the reply to ``messages`` (ending with a user turn) as it grows; greedy. Closing the generator stops the model."""
    import torch
    from transformers import StoppingCriteriaList, TextIteratorStreamer

    stop = Event()
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True, timeout=300)
    ids = torch.tensor([encode_chat(tokenizer, messages, reply=True)["input_ids"]], device=model.device)
    settings = dict(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        repetition_penalty=1.1,  # a 135M model loops on questions far from its training data
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        streamer=streamer,
        stopping_criteria=StoppingCriteriaList([lambda ids, scores: torch.full((len(ids),), stop.is_set())]),
    )
    Thread(target=model.generate, kwargs=settings, daemon=True).start()
    text = ""
    try:
        for piece in streamer:
            text += piece
            yield text
    finally:
        stop.set()


def plain(history: list[dict]) -> list[dict]:
    """Return Gradio's history as role/content strings, without the disclaimer."""
    messages = []
    for turn in history:
        content = turn["content"]
        text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
        messages.append({"role": turn["role"], "content": text.replace(DISCLAIMER, "").strip()})
    return messages


def consult(model, tokenizer, message: str, history: list[dict], max_length: int, new_tokens: int, base: bool = False):
    """Yield (reply so far, tokens used of ``max_length``, emergency or not) for the next patient turn.

    The check speaks before the model, a reply with a dose is replaced, old turns that do not fit are dropped,
    and the disclaimer stands under the first reply. ``base``: answer without the adapter ("before").
    """
    note = "" if history else f"\n\n{DISCLAIMER}"
    said = answer_first(message)
    if said:
        yield said + note, 0, said != NO_DOSE
        return
    messages = with_system([*plain(history), {"role": "user", "content": message}], SYSTEM)
    messages = fit_turns(tokenizer, messages, max_length, room=new_tokens)
    used = len(encode_chat(tokenizer, messages, reply=True)["input_ids"])
    reply = ""
    with model.disable_adapter() if base and hasattr(model, "disable_adapter") else nullcontext():
        for reply in stream_reply(model, tokenizer, messages, new_tokens):
            if without_dose(reply) != reply:
                break  # a dose is never shown, not even while the reply grows
            yield reply, used, False
    yield without_dose(reply) + note, used, False


def page(model, tokenizer, name: str, max_length: int = 1024, new_tokens: int = 160):
    """Return the Gradio chat page: streaming, stop, clear, token budget, emergency banner, before/after switch."""
    import gradio

    def answer(message, history, which):
        for reply, used, emergency in consult(
            model, tokenizer, message, history, max_length, new_tokens, which == "微调前"
        ):
            banner = "## 🚨 请先拨打 120 或去急诊" if emergency else ""
            yield reply, f"上文 {used} / {max_length - new_tokens} 个词元，回答至多 {new_tokens} 个", banner

    with gradio.Blocks(title="医疗问诊机器人（教学）") as blocks:
        banner = gradio.Markdown()
        budget = gradio.Markdown()
        which = gradio.Radio(["微调后", "微调前"], value="微调后", label="模型")
        gradio.ChatInterface(
            answer,
            additional_inputs=[which],
            additional_outputs=[budget, banner],
            title="医疗问诊机器人（教学）",
            description=f"{name}。{DISCLAIMER}",
        )
    return blocks


def load_bot():
    """Return (model, tokenizer, what it is): the newest whole adapter of 7.6, else the base model, in fp32 or half."""
    from peft import PeftConfig, PeftModel

    from helpers.checkpoints import newest_checkpoint, run_folder
    from helpers.formatting import set_chat_template
    from helpers.models import first_available, load_model, load_tokenizer
    from helpers.sizes import compute_dtype, run_size

    run = run_size("7.6")
    precision = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}[str(compute_dtype()).removeprefix("torch.")]
    adapter = newest_checkpoint(run_folder("7.6") / run.size / "checkpoints")
    base = (
        PeftConfig.from_pretrained(adapter).base_model_name_or_path
        if adapter
        else first_available(run.model, vars(run).get("fallback"))
    )
    tokenizer = set_chat_template(load_tokenizer(base))
    model = load_model(base, precision)
    if adapter is None:
        return model, tokenizer, f"还没有微调：{base} 原模型（先跑 7.6 或 make course）"
    return PeftModel.from_pretrained(model, adapter), tokenizer, f"7.6 的适配器 {adapter.name}"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="the chat page of 7.6")
    parser.add_argument(
        "--host", default="127.0.0.1", help="0.0.0.0 shows the page to everybody who reaches this machine"
    )
    parser.add_argument("--port", type=int, default=7860)
    arguments = parser.parse_args()
    model, tokenizer, name = load_bot()
    print(name)
    page(model, tokenizer, name).launch(server_name=arguments.host, server_port=arguments.port, share=False)
