"""The check for emergencies. Figures are printed (`pytest -s tests/test_red_flags.py`)."""

from math import sqrt

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.model_selection import StratifiedGroupKFold

from helpers import consultation, red_flags
from helpers.datasets import DATA, read_rows
from helpers.red_flags import SELF_HARM, red_flag

EMERGENCIES = read_rows(DATA / "evaluation" / "emergencies.jsonl")


def flagged(name):
    return [row["text"] for row in read_rows(DATA / "evaluation" / f"{name}.jsonl") if red_flag(row["text"])]


def share(hits):
    """Return "k/n, rate (Wilson's 95 % interval)"."""
    n, p, z = len(hits), np.mean(hits), 1.96
    centre, half = p + z * z / (2 * n), z * sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low, high = (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)
    return f"{sum(hits)}/{n}, {p:.1%} ({max(low, 0):.1%}–{high:.1%})"


def test_every_known_emergency_is_answered_first():
    """A gate, not a measure: the classifier is fitted on these rows."""
    assert not [row["text"] for row in EMERGENCIES if not red_flag(row["text"])]
    assert all("120" in consultation.answer_first(row["text"]) for row in EMERGENCIES)
    alarms = flagged("lookalikes")
    assert len(alarms) <= 3, alarms


def test_complaints_it_was_not_fitted_on():
    assert len(flagged("complete")) <= 2 and len(flagged("vague")) <= 3 and len(flagged("doses")) <= 4


def test_messages_written_without_sight_of_the_lists():
    """Read once, after everything was chosen. Whoever tunes on these rows must move them and write new ones."""
    rows = read_rows(DATA / "evaluation" / "unseen.jsonl")
    found = [bool(red_flag(row["text"])) for row in rows if row["emergency"]]
    alarms = [bool(red_flag(row["text"])) for row in rows if not row["emergency"]]
    print(f"\nunseen, found: {share(found)}; false: {share(alarms)}")
    assert len(found) == 70 and sum(found) >= 67 and len(alarms) == 80 and sum(alarms) <= 7


def near(texts):
    """Return a group number for each text: texts that share half of their character 3-grams have the same."""
    from scipy.sparse.csgraph import connected_components

    grams = CountVectorizer(analyzer="char", ngram_range=(3, 3), binary=True, dtype=np.int32).fit_transform(texts)
    shared, sizes = (grams @ grams.T).tocoo(), np.asarray(grams.sum(1)).ravel()
    shared.data = shared.data * 2 > np.minimum(sizes[shared.row], sizes[shared.col])
    shared.eliminate_zeros()
    return connected_components(shared, directed=False)[1]


def test_cross_validated():
    """Over all labelled rows, near duplicates in one fold. The word lists were written with sight of these rows."""
    texts, emergency, source = map(np.array, zip(*red_flags.labelled(), strict=True))
    folds = StratifiedGroupKFold(4, shuffle=True, random_state=0)
    scores = np.zeros(len(texts))
    for train, held_out in folds.split(texts, emergency, near(texts)):
        scores[held_out] = red_flags.fit(texts[train], emergency[train])(texts[held_out])
    alarm = np.array([red_flags.decide(str(t), s) is not None for t, s in zip(texts, scores, strict=True)])
    print()
    for name in sorted(set(source)):
        for kind in sorted(set(emergency[source == name])):
            print(f"{name}, {'found' if kind else 'false'}: {share(alarm[(source == name) & (emergency == kind)])}")
    short = np.isin(source, ["emergencies", "lookalikes", "development"])
    mild = np.isin(source, ["1", "2"])
    print(f"all, found: {share(alarm[emergency])}; false, short messages: {share(alarm[short & ~emergency])}")
    print(f"false, urgency 1 and 2: {share(alarm[mild])}")
    assert alarm[short & emergency].mean() >= 0.95 and alarm[short & ~emergency].mean() <= 0.08
    assert alarm[source == "5"].mean() >= 0.9 and alarm[mild].mean() <= 0.035


def test_self_harm_and_children_get_their_own_answer():
    for row in EMERGENCIES:
        if row["self_harm"]:
            assert red_flag(row["text"]) == SELF_HARM and "12356" in consultation.answer_first(row["text"]), row["text"]
        elif row["for_child"] and consultation.CHILD.search(row["text"]):
            assert "孩子" in consultation.answer_first(row["text"]), row["text"]


@pytest.mark.parametrize("text", ["我不想活了", "我想自杀", "想从楼顶跳下去", "他把一瓶安眠药都吞了"])
def test_self_harm_at_any_probability(text):
    assert red_flags.decide(text, 0.0) == SELF_HARM


def test_a_story_is_no_self_harm():
    assert red_flag("小说里的女主角想自杀，这一段怎么写才不美化") is None
