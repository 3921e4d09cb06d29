"""What is said before the model speaks: emergencies, look-alikes, doses. Figures are printed (`pytest -s`)."""

import pytest

from helpers import consultation
from helpers.datasets import DATA, read_rows
from helpers.red_flags import SELF_HARM, red_flag

EMERGENCIES = read_rows(DATA / "evaluation" / "emergencies.jsonl")
DOSES = read_rows(DATA / "evaluation" / "doses.jsonl")


def flagged(name):
    return [row["text"] for row in read_rows(DATA / "evaluation" / f"{name}.jsonl") if red_flag(row["text"])]


def test_every_known_emergency_is_answered_first():
    missed = [row["text"] for row in EMERGENCIES if not red_flag(row["text"])]
    assert not missed
    assert all("120" in consultation.answer_first(row["text"]) for row in EMERGENCIES)


def test_false_alarms_on_lookalikes():
    alarms = flagged("lookalikes")
    print(f"\n{len(alarms)} of 60 look-alikes raise an alarm: {alarms}")
    assert len(alarms) <= 3
    assert len(flagged("complete")) <= 2 and len(flagged("vague")) <= 3


def test_messages_written_without_sight_of_the_rules():
    """These rows never served to write a rule; whoever tunes a rule on them must write new ones."""
    rows = read_rows(DATA / "evaluation" / "unseen.jsonl")
    found = [bool(red_flag(row["text"])) for row in rows if row["emergency"]]
    alarms = [bool(red_flag(row["text"])) for row in rows if not row["emergency"]]
    print(f"\nunseen: {sum(found)} of {len(found)} emergencies found, {sum(alarms)} of {len(alarms)} false alarms")
    assert sum(found) >= 0.8 * len(found) and sum(alarms) <= 0.15 * len(alarms)


def test_wordings_that_the_classifier_has_not_seen():
    """Cross-validated on the training rows: rules and classifier together, first message only."""
    import numpy as np
    from sklearn.base import clone
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    from helpers import red_flags

    rows = read_rows(DATA / "consultations.jsonl")
    texts = [row["messages"][0]["content"] for row in rows]
    urgency = np.array([row["urgency"] for row in rows])
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    model = clone(red_flags.classifier())
    scores = cross_val_predict(model, texts, urgency == 5, cv=folds, method="predict_proba")[:, 1]
    alarm = np.array(
        [
            not red_flags.NOT_NOW.search(t)
            and bool(red_flags.rule(t) or (not red_flags.MILD.search(t) and s > red_flags.THRESHOLD))
            for t, s in zip(texts, scores, strict=True)
        ]
    )
    recall, false = alarm[urgency == 5].mean(), alarm[urgency <= 2].mean()
    print(f"\nunseen emergencies found {recall:.1%}, false alarms on urgency 1-2 {false:.1%}")
    assert recall >= 0.8 and false <= 0.06


def test_self_harm_and_children_get_their_own_answer():
    for row in EMERGENCIES:
        if row["self_harm"]:
            assert red_flag(row["text"]) == SELF_HARM and "12356" in consultation.answer_first(row["text"]), row["text"]
        elif row["for_child"] and consultation.CHILD.search(row["text"]):
            assert "孩子" in consultation.answer_first(row["text"]), row["text"]


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
