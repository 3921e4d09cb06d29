"""Requests for a dose or a prescription are answered before the model speaks. Figures are printed (`pytest -s`)."""

import pytest

from helpers.consultation import NO_DOSE, answer_first
from helpers.datasets import DATA, read_rows
from helpers.dose_requests import DOSE_REQUEST


def texts(name):
    return [row["text"] for row in read_rows(DATA / "evaluation" / f"{name}.jsonl") if not row.get("emergency")]


def test_requests_for_a_dose_are_answered_first():
    """A gate, not a measure: the pattern was written with sight of these rows."""
    passed = [text for text in texts("doses") if answer_first(text) is None]
    assert not passed


def test_other_messages_pass():
    for name in ("lookalikes", "development", "vague", "complete"):
        caught = [text for text in texts(name) if DOSE_REQUEST.search(text)]
        assert len(caught) <= 1, f"{name}: {caught}"
    rows = read_rows(DATA / "consultations.jsonl")
    first = [row["messages"][0]["content"] for row in rows if row["urgency"] < 5]
    caught = [text for text in first if DOSE_REQUEST.search(text)]
    print(f"\n{len(caught)} of {len(first)} first messages of the consultations ask for a dose:", *caught, sep="\n")
    assert len(caught) <= 25


def test_requests_in_the_unseen_messages_and_their_neighbours():
    unseen = [text for text in texts("unseen") if DOSE_REQUEST.search(text)]
    print(f"\n{len(unseen)} unseen messages without an emergency:", *unseen, sep="\n")
    assert len(unseen) <= 4


@pytest.mark.parametrize(
    "text", ["孩子三岁发烧，布洛芬要喂多少毫升", "我妈的降糖药能停了吗", "头孢和布洛芬能一起吃吗", "医生给我开点安定吧"]
)
def test_answer(text):
    assert answer_first(text) == NO_DOSE


@pytest.mark.parametrize("text", ["我吃药后有点头晕", "停药以后又开始失眠", "一天喝多少水合适", "打针的地方红肿"])
def test_no_request(text):
    assert not DOSE_REQUEST.search(text)
