"""Rows that must not be trained on are removed for the right reason, and medical text is left alone."""

import pytest

from helpers.cleaning import clean, similarity
from helpers.datasets import bundled

GOOD = [
    {"role": "user", "content": "昨天开始发烧，体温38.5，血压150/95，吃了两次退烧药，没有咳嗽"},
    {
        "role": "assistant",
        "content": "先多喝水多休息，按说明书用退烧药；若呼吸困难或持续三天不退，请马上拨打120或去急诊。",
    },
]


def row(user=None, assistant=None):
    return {
        "messages": [
            {**GOOD[0], "content": user or GOOD[0]["content"]},
            {**GOOD[1], "content": assistant or GOOD[1]["content"]},
        ]
    }


@pytest.mark.parametrize(
    "reason, bad",
    [
        ("乱码", row("医生，锟斤拷锟斤拷，怎么办")),
        ("电话或证件号", row("我的电话13812345678，请回我")),
        ("电话或证件号", row("身份证11010519491231002X，能查到吗")),
        ("广告", row(assistant="扫码加我微信，祖传药包治百病")),
        ("轮次不对", row(assistant="   ")),
        ("轮次不对", {"messages": [{"role": "doctor", "content": "你好"}]}),
        ("完全重复", row(GOOD[0]["content"].replace("，", ", "))),
        ("近似重复", row(GOOD[0]["content"] + "了")),
    ],
)
def test_reason(reason, bad):
    kept, removed = clean([row(), bad])
    assert len(kept) == 1 and [r["reason"] for r in removed] == [reason]


def test_bundled_consultations_lose_nothing():
    rows = bundled("consultations")
    kept, removed = clean(rows)
    assert len(kept) == len(rows), removed[:3]


def test_no_row_left_is_one_clear_sentence():
    with pytest.raises(ValueError, match="none of the 1 rows can be used; the first: row 1"):
        clean([{"messages": [{"role": "doctor", "content": "你好"}]}])


def test_similarity_of_a_list_with_itself_looks_back_only():
    texts = ["一二三四五六", "甲乙丙丁戊己", "一二三四五六"]
    assert [s for s, _ in similarity(texts, texts)] == [0, 0, 1]
    assert similarity(texts[:1], texts[1:]) == [(1.0, 1)]
