"""Reading, checking and splitting rows: what a student's own file may look like, and what is refused before training."""

import json

import pytest

from helpers.conversations import check_conversation, to_messages, usable_conversations
from helpers.datasets import (
    bundled,
    read_conversations,
    read_rows,
    split,
)

USER, ASSISTANT = {"role": "user", "content": "你好"}, {"role": "assistant", "content": "你好，请说。"}
PAIR = [USER, ASSISTANT]


def lines(path, *rows):
    """Write rows as JSON Lines and return the path; strings are written as they are."""
    text = "\n".join(row if isinstance(row, str) else json.dumps(row, ensure_ascii=False) for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nothing.jsonl: no such file; check the name"):
        read_rows(tmp_path / "nothing.jsonl")


def test_broken_line_is_named_with_its_number(tmp_path):
    path = lines(tmp_path / "a.jsonl", {"messages": PAIR}, "", '{"messages": [')
    with pytest.raises(ValueError, match="a.jsonl, line 3: broken JSON .*repair or delete"):
        read_rows(path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [("", "no rows"), ("[1, 2]", "row 1: a row must be a JSON object, this is int"), ("[{]", "line 1: broken JSON")],
)
def test_unusable_json(tmp_path, content, reason):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=reason):
        read_rows(path)


def test_unknown_kind_of_file(tmp_path):
    with pytest.raises(ValueError, match="'.txt'; use .jsonl, .json or .csv"):
        read_rows(lines(tmp_path / "a.txt", "x"))


def test_json_list_and_json_with_one_object_a_line(tmp_path):
    """Hub files named .json are often JSON Lines."""
    (tmp_path / "list.JSON").write_text(json.dumps([{"question": "q", "answer": "a"}] * 2))
    lines(tmp_path / "lines.json", {"question": "q", "answer": "a"}, {"question": "q", "answer": "a"})
    assert read_rows(tmp_path / "list.JSON") == read_rows(tmp_path / "lines.json")


def test_csv_keeps_line_breaks_and_separators_inside_quotes(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text('question,answer\n"发烧\u2028两天,\n怎么办？","多喝水\n休息"\n', encoding="utf-8-sig")
    assert to_messages(read_rows(path)[0])[0]["content"] == "发烧\u2028两天,\n怎么办？"


@pytest.mark.parametrize("row", ["a,b,c", "a"])
def test_csv_with_wrong_number_of_cells(tmp_path, row):
    path = tmp_path / "a.csv"
    path.write_text(f"question,answer\nq,a\n{row}\n")
    with pytest.raises(ValueError, match="a.csv, row 2: not as many cells"):
        read_rows(path)


def test_gb18030_as_excel_saves_it(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes("question,answer\n头疼怎么办？,先休息，多喝水。\n".encode("gb18030"))
    assert read_rows(path) == [{"question": "头疼怎么办？", "answer": "先休息，多喝水。"}]


def test_neither_utf8_nor_gb18030(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"question,answer\n\xff\xff,\x80\x00\n")
    with pytest.raises(ValueError, match="neither UTF-8 nor GB18030; save it as UTF-8"):
        read_rows(path)


@pytest.mark.parametrize(
    "row",
    [
        {"messages": PAIR},
        {"conversations": [{"from": "human", "value": "你好"}, {"from": "gpt", "value": "你好，请说。"}]},
        {"instruction": "你好", "input": "", "output": "你好，请说。"},
        {"question": "你好", "answer": "你好，请说。"},
        {"history": [["你好", "你好，请说。"]], "instruction": "谢谢", "output": "不客气"},
        {"data": ["问：你好", "答：你好，请说。"]},
    ],
    ids=["messages", "ShareGPT", "Alpaca", "question-answer", "history", "data"],
)
def test_every_known_shape_becomes_the_same_messages(row):
    assert check_conversation(row, "row 1")["messages"] == PAIR


def test_alpaca_input_is_part_of_the_question():
    row = {"instruction": "翻译", "input": "fever", "output": "发烧"}
    assert to_messages(row)[0]["content"] == "翻译\nfever"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"messages": []}, "no conversation in the columns"),
        ({"messages": [USER]}, "needs a user turn and an assistant turn"),
        (
            {"messages": [{"role": "doctor", "content": "x"}, ASSISTANT]},
            "role: .*'system', 'user' or 'assistant', not 'doctor'",
        ),
        ({"conversations": [{"from": "医生", "value": "x"}]}, "unknown role '医生': use human, gpt or system"),
        ({"messages": [USER, USER, ASSISTANT]}, "turn 2 is 'user' but user and assistant must alternate"),
        ({"messages": [ASSISTANT, USER]}, "turn 1 is 'assistant'"),
        ({"messages": [USER, {"role": "assistant", "content": " \n"}]}, r"turn 2 \(assistant\) is empty"),
        ({"messages": [*PAIR, USER]}, "last turn must be the assistant's"),
        ({"messages": [*PAIR, {"role": "system", "content": "x"}, ASSISTANT]}, "turn 3 is 'system'"),
        ({"messages": [{"role": "user"}, ASSISTANT]}, "content"),
        ({"messages": ["hello"]}, "row 7"),
        ({"title": "x"}, r"no conversation in the columns \['title'\]"),
    ],
)
def test_bad_conversation_is_refused_with_its_place(row, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        check_conversation(row, "chats.jsonl, row 7")
    assert str(caught.value).startswith("chats.jsonl, row 7: ")
    assert str(caught.value).endswith("repair or delete this row")


def test_a_file_is_refused_with_all_its_bad_rows(tmp_path):
    path = lines(tmp_path / "a.jsonl", {"messages": PAIR}, {"messages": [USER, USER]}, {"messages": [USER]})
    with pytest.raises(ValueError) as caught:
        read_conversations(path)
    report = str(caught.value).splitlines()
    assert [line.split(": ")[0] for line in report] == [f"{path}, row 2", f"{path}, row 3"]


def test_bad_rows_can_be_left_out_and_are_reported():
    good, reports = usable_conversations([{"messages": PAIR}, {"messages": [USER]}], "hub")
    assert good == [{"messages": PAIR}] and len(reports) == 1 and reports[0].startswith("hub, row 2: ")


@pytest.mark.parametrize("name", ["chats", "consultations"])
def test_bundled_conversations_are_all_usable(name):
    rows = bundled(name)
    assert usable_conversations(rows, name) == (rows, [])


def test_split_has_no_leakage():
    """Equal rows, and rows that ask the same under another id or with another answer, stay on one side."""
    rows = [{"id": n, "messages": [{"role": "user", "content": f"q{n % 40}"}, ASSISTANT]} for n in range(100)]
    rows += rows[:30]
    train, held_out = split(rows, 60, 20)
    questions = [{row["messages"][0]["content"] for row in part} for part in (train, held_out)]
    assert len(held_out) == 20 and len(train) <= 60
    assert not questions[0] & questions[1]
    assert len({row["id"] for row in train + held_out}) == len(train) + len(held_out)


def test_held_out_part_stays_whatever_is_trained():
    rows = [{"text": f"t{n}"} for n in range(50)]
    assert split(rows, 5, 10)[1] == split(rows, 40, 10)[1]
    assert split(rows, 40, 10, seed=1)[1] != split(rows, 40, 10)[1]


def test_too_few_rows_for_evaluation():
    with pytest.raises(ValueError, match="3 different rows are too few: 5 are needed"):
        split([{"text": t} for t in "abcabc"], 10, 5)
