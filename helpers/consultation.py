"""The bot: what is said before the model speaks, what the model remembers, and its reply as it grows."""

import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from threading import Event

from helpers.dose_requests import DOSE_REQUEST
from helpers.evaluation import reply_penalty
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
NOT_CHINESE = (
    "请用中文说：这里的安全检查只认识中文。"
    "Please write in Chinese: the safety check reads nothing else. In an emergency in China call 120 now."
)

_NUMBER = r"[0-9０-９]+(?:\.[0-9]+)?|[一二三四五六七八九十两半几]+"
DOSE = re.compile(
    rf"(?:{_NUMBER})\s*(?:mg|g|ml|毫克|微克|克(?!服)|毫升|IU|单位|片(?!红|状)|粒|颗(?!牙)|丸|袋|支(?!持)|滴|喷|包)",
    re.I,
)
FOREIGN = re.compile(r"\A(?!.*[\u4e00-\u9fff]).*[^\W\d_]{2,}\W+[^\W\d_]{2,}", re.S)  # two words, nothing Chinese


def answer_first(text: str) -> str | None:
    """Return what must be said before the model speaks, or None.

    An emergency, a request for a dose or a prescription, or words that the check cannot read.
    """
    kind = red_flag(text)
    if kind == SELF_HARM:
        return LIFELINE
    if kind:
        return CHILD_EMERGENCY if CHILD.search(text) else EMERGENCY
    if DOSE_REQUEST.search(text):
        return NO_DOSE
    return NOT_CHINESE if FOREIGN.search(text) else None


def without_dose(reply: str) -> str:
    """Return ``reply``, or NO_DOSE in its place if it contains a dose: the second net behind answer_first."""
    return NO_DOSE if DOSE.search(reply) else reply


def remember(tokenizer, turns: list[dict], max_length: int, new_tokens: int) -> tuple[list[dict], int, int]:
    """Return (messages for the model, their tokens, how many of the oldest question-answer pairs are forgotten).

    ``turns`` end with a patient's. Pairs are forgotten until ``new_tokens`` more fit into ``max_length`` tokens.
    Raises ValueError when the last turn alone does not fit.
    """
    messages = [{"role": turn["role"], "content": turn["content"]} for turn in turns]
    kept = fit_turns(tokenizer, with_system(messages, SYSTEM), max_length, room=new_tokens)
    return kept, len(encode_chat(tokenizer, kept, reply=True)["input_ids"]), (len(turns) + 1 - len(kept)) // 2


def stream_reply(model, tokenizer, messages: list[dict], max_new_tokens: int):
    """Yield the reply to ``messages`` (ending with a user turn) as it grows; greedy. Closing the generator stops the model.

    Raises what the model raises.
    """
    import torch
    from transformers import StoppingCriteriaList, TextIteratorStreamer

    stop = Event()
    streamer = TextIteratorStreamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
    ids = torch.tensor([encode_chat(tokenizer, messages, reply=True)["input_ids"]], device=model.device)
    settings = dict(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        logits_processor=reply_penalty(1.1, ids.shape[1]),  # as measured in 7.6; a 135M model loops easily
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        streamer=streamer,
        stopping_criteria=StoppingCriteriaList([lambda ids, scores: torch.full((len(ids),), stop.is_set())]),
    )
    text = ""
    with ThreadPoolExecutor(1) as pool:  # leaving it waits: no two replies are generated at a time
        running = pool.submit(model.generate, **settings)
        running.add_done_callback(lambda _: streamer.end())  # after an error, too, or the loop below waits for ever
        try:
            for piece in streamer:
                text += piece
                yield text.rstrip("\ufffd")  # half a character at the end
        finally:
            stop.set()
        running.result()


def consult(model, tokenizer, messages: list[dict], new_tokens: int, base: bool = False):
    """Yield the reply to ``messages`` (see :func:`remember`) as it grows; a reply with a dose is replaced by NO_DOSE.

    ``base``: answer without the adapter ("before"). answer_first must have been asked already.
    """
    adapter = model.disable_adapter() if base else nullcontext()
    with adapter, closing(stream_reply(model, tokenizer, messages, new_tokens)) as replies:
        for reply in replies:
            yield without_dose(reply)
            if DOSE.search(reply):
                return  # a dose is never shown, not even while the reply grows
