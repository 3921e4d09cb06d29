"""Measures of replies on cases whose answer is known."""

import pytest

from helpers.replies import asks_back, bleu, chrf, compare, contains_answer, in_chinese, measures


def test_language_question_and_answer():
    assert (
        in_chinese("体温38.5，先吃退烧药，多喝水OK")
        and not in_chinese("I am a doctor。医生")
        and not in_chinese("38.5")
    )
    assert asks_back("烧几天了？") and not asks_back("多喝水。")
    assert contains_answer("It is Paris.", ["paris"]) and not contains_answer("comparison", ["paris"])
    assert contains_answer("是长江啊", ["长江"])


def test_measures():
    result = measures([("多喝水。", True), ("好" * 40, False)])
    assert result["stops"] == [1, 0] and result["repetition"][0] == 0 and result["repetition"][1] > 0.9


def test_compare_is_paired_and_refuses_unequal_rows():
    result = compare([0.0, 1.0, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0])
    assert result["change"] == pytest.approx((1, 1, 1))  # the same in every row, so no uncertainty
    assert result["before"][1] < 1.5 < result["before"][2]
    with pytest.raises(ValueError, match="same rows"):
        compare([1], [])


def test_reference_itself_scores_full():
    pairs = [("头疼先休息，多喝水，明天再看。", "头疼先休息，多喝水，明天再看。")] * 2
    assert bleu(pairs) == pytest.approx([100] * len(pairs)) and chrf(pairs) == pytest.approx([100] * len(pairs))
    assert chrf([("完全不同", "牛头马面")])[0] < 20
