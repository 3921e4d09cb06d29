"""What is said before the model speaks, apart from emergencies (test_red_flags.py). Figures are printed (`pytest -s`)."""

import pytest

from helpers import chat_view, consultation
from helpers.datasets import DATA, read_rows
from helpers.retrieval import first_words, retriever

DOSES = read_rows(DATA / "evaluation" / "doses.jsonl")


@pytest.mark.parametrize("reply", ["每次吃两片就行", "先用 500mg 试试", "点3滴"])
def test_no_reply_with_a_dose_gets_out(reply):
    assert consultation.without_dose(reply) == consultation.NO_DOSE
    assert consultation.without_dose("多喝温水，发烧超过三天就来看。") == "多喝温水，发烧超过三天就来看。"


def test_fixed_answers_contain_no_dose():
    for text in (consultation.EMERGENCY, consultation.CHILD_EMERGENCY, consultation.LIFELINE, consultation.NO_DOSE):
        assert not consultation.DOSE.search(text)
    direct = sum(consultation.answer_first(row["text"]) is not None for row in DOSES)
    print(f"\n{direct} of {len(DOSES)} requests for a dose are answered before the model; the rest pass without_dose")


def test_what_the_check_cannot_read_is_not_left_to_the_model():
    for text in ("My chest hurts and I cannot breathe", "Me duele mucho\nel pecho"):
        assert consultation.answer_first(text) == consultation.NOT_CHINESE
    for text in ("38.5", "CT", "三天 about three days", "嗯"):
        assert consultation.answer_first(text) is None


def test_a_dose_is_not_shown_while_the_reply_grows(monkeypatch):
    grows = ["先", "先吃 5", "先吃 50", "先吃 500mg", "先吃 500mg，再睡"]
    monkeypatch.setattr(consultation, "stream_reply", lambda *_: (reply for reply in grows))
    shown = list(consultation.consult(None, None, [{"role": "user", "content": "嗓子有点干"}], 64))
    assert not any(consultation.DOSE.search(reply) for reply in shown)
    assert shown[:3] == grows[:3] and shown[3:] == [consultation.NO_DOSE]


class Words:
    """A tokenizer for which every character is a token and a turn costs nothing else."""

    def apply_chat_template(self, messages, add_generation_prompt=False):
        return {"input_ids": list("".join(message["content"] for message in messages))}


def test_the_oldest_questions_are_forgotten_first():
    turns = [{"role": "user" if i % 2 == 0 else "assistant", "content": str(i) * 10, "by": "x"} for i in range(5)]
    system = len(consultation.SYSTEM)
    kept, used, forgotten = consultation.remember(Words(), turns, system + 40, new_tokens=5)
    assert [m["content"][0] for m in kept[1:]] == ["2", "3", "4"] and (used, forgotten) == (system + 30, 1)
    assert consultation.remember(Words(), turns, 1024, new_tokens=5)[1:] == (system + 50, 0)
    with pytest.raises(ValueError, match="shorten"):
        consultation.remember(Words(), turns, system + 12, new_tokens=5)


def test_the_error_of_the_model_ends_the_reply():
    class Broken:
        device = "cpu"

        def generate(self, **_):
            raise RuntimeError("out of memory")

    tokenizer = type("Tokenizer", (Words,), {"pad_token_id": 0, "eos_token_id": 0})()
    tokenizer.apply_chat_template = lambda *_, **__: {"input_ids": [1, 2]}
    with pytest.raises(RuntimeError, match="out of memory"):
        list(consultation.stream_reply(Broken(), tokenizer, [{"role": "user", "content": "嗯"}], 5))


def test_nearest_consultations():
    rows = [
        {"messages": [{"role": "user", "content": text}, {"role": "assistant", "content": "多久了？"}]}
        for text in ("膝盖上下楼疼", "嗓子疼", "眼睛干")
    ]
    found = retriever(rows)("上楼膝盖疼得厉害", count=3)
    assert [first_words(row) for _, row in found] == ["膝盖上下楼疼", "嗓子疼"]  # the third has nothing in common
    assert 1 > found[0][0] > found[1][0] > 0
    assert retriever(rows)("嗓子疼")[0][0] == pytest.approx(1)


def test_sources_and_messages_are_shown_as_text_not_as_html():
    row = {"department": "<b>", "messages": [{"role": r, "content": "<img src=x>"} for r in ("user", "assistant")]}
    assert "<img" not in chat_view.source_cards([(0.5, row)])
    turns = [{"role": "user", "content": "<img src=x>"}, {"role": "assistant", "content": "<img src=x>", "by": "x"}]
    shown = chat_view.chat_messages(turns * 2)
    assert not any("<img" in message["content"] for message in shown)
    assert [consultation.DISCLAIMER in message["content"] for message in shown] == [False, True, False, False]
