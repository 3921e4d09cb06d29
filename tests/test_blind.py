"""The blind sheet: shuffled, resumable, every vote on disk at once; the sign test and kappa on known counts."""

import pytest

from helpers.blind import read_votes, record, sheet, summary, waiting

PAIRS = [{"question": f"问题{i}", "before": f"旧{i}", "after": f"新{i}"} for i in range(20)]


def test_sides_are_shuffled_and_the_same_when_the_sheet_is_opened_again():
    first = waiting(PAIRS, [], "甲")
    assert {p["A"] for p in first} == {"before", "after"}
    assert waiting(PAIRS, [], "甲") == first != waiting(PAIRS, [], "乙")


def test_goes_on_where_it_stopped(tmp_path):
    path = tmp_path / "votes.csv"
    for pair in waiting(PAIRS, [], "甲")[:7]:
        record(path, "甲", pair["question"], "after")
    assert len(waiting(PAIRS, read_votes(path), "甲")) == 13
    assert len(waiting(PAIRS, read_votes(path), "乙")) == 20
    with pytest.raises(ValueError, match="unknown vote"):
        record(path, "甲", "问题0", "better")


def test_a_click_is_recorded_for_the_right_side(tmp_path):
    pytest.importorskip("ipywidgets")
    path = tmp_path / "votes.csv"
    first = waiting(PAIRS, [], "甲")[0]
    box = sheet(PAIRS, path, "甲")
    box.children[2].children[1].click()  # "B 更好"
    assert read_votes(path) == [{"rater": "甲", "question": first["question"], "vote": first["B"]}]


def test_sign_test_and_kappa():
    votes = [{"rater": "甲", "question": str(i), "vote": "after" if i < 9 else "before"} for i in range(10)]
    result = summary(votes)
    assert (result["after"], result["before"]) == (9, 1)
    assert result["p_value"] == pytest.approx(2 * 11 / 1024)  # P(≥ 9 of 10) two-sided
    assert result["kappa"] is None
    assert summary(votes + [{**v, "rater": "乙"} for v in votes])["kappa"] == pytest.approx(1)
    assert summary([])["p_value"] is None
