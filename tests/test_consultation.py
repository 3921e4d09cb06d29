"""What is said before the model speaks, apart from emergencies (test_red_flags.py). Figures are printed (`pytest -s`)."""

import pytest

from helpers import consultation
from helpers.datasets import DATA, read_rows

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


def test_history_without_disclaimer():
    shown = [{"role": "assistant", "content": [{"type": "text", "text": f"多休息。\n\n{consultation.DISCLAIMER}"}]}]
    assert consultation.plain(shown) == [{"role": "assistant", "content": "多休息。"}]


def test_a_dose_is_not_shown_while_the_reply_grows(monkeypatch):
    grows = ["先", "先吃 5", "先吃 50", "先吃 500mg", "先吃 500mg，再睡"]
    monkeypatch.setattr(consultation, "stream_reply", lambda *_: iter(grows))
    monkeypatch.setattr(consultation, "fit_turns", lambda tokenizer, messages, *_, **__: messages)
    monkeypatch.setattr(consultation, "encode_chat", lambda *_, **__: {"input_ids": [1]})
    shown = [reply for reply, _, _ in consultation.consult(None, None, "嗓子有点干，三天了", [], 512, 64)]
    assert not any(consultation.DOSE.search(reply) for reply in shown)
    assert shown[-1].startswith(consultation.NO_DOSE) and shown[-1].endswith(consultation.DISCLAIMER)
