"""The bundled data keep the promises of data/README.md. Figures are printed (`pytest -s tests/test_data.py`)."""

import contextlib
import io
import re
from collections import Counter
from typing import Annotated, Literal

import numpy as np
import pytest
from pydantic import BaseModel, ConfigDict, Field
from sklearn.feature_extraction.text import CountVectorizer

from helpers import data_card
from helpers.conversations import Conversation
from helpers.datasets import DATA, read_rows
from helpers.red_flags import labelled

CONSULTATIONS = read_rows(DATA / "consultations.jsonl")
REVIEWS = read_rows(DATA / "reviews.jsonl")
CODE = read_rows(DATA / "code_instructions.jsonl")
CHATS = read_rows(DATA / "chats.jsonl")
EVALUATION = {path.stem: read_rows(path) for path in sorted((DATA / "evaluation").glob("*.jsonl"))}
Text = Annotated[str, Field(min_length=1)]


class Row(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Entity(Row):
    label: Literal["symptom", "body_part", "duration", "drug"]
    start: int
    end: int
    text: Text


class Consultation(Row):
    id: Annotated[str, Field(pattern=r"^[a-z]+-\d{3}$")]
    department: Text
    urgency: Annotated[int, Field(ge=1, le=5)]
    entities: list[Entity]
    messages: Annotated[list[dict], Field(min_length=4, max_length=8)]


class Review(Row):
    text: Text
    label: Literal[0, 1]


class Code(Row):
    instruction: Text
    input: str
    output: Text
    check: str
    language: Literal["python", "sql", "javascript", "html", "css", "bash", "regex", "text"]


class Chat(Row):
    messages: Annotated[list[dict], Field(min_length=4, max_length=11)]


class Emergency(Row):
    text: Text
    kind: Text
    for_child: bool
    self_harm: bool


class Lookalike(Row):
    text: Text
    why: Text


class Message(Row):
    text: Text
    emergency: bool
    why: Text


class Complaint(Row):
    text: Text


class Dose(Row):
    text: Text
    kind: Text


class General(Row):
    question: Text
    answers: Annotated[list[Text], Field(min_length=1)]
    language: Literal["en", "zh"]
    kind: Text


SCHEMAS = {
    "consultations": (Consultation, CONSULTATIONS, 1200),
    "reviews": (Review, REVIEWS, 300),
    "code_instructions": (Code, CODE, 400),
    "chats": (Chat, CHATS, 250),
    "emergencies": (Emergency, EVALUATION["emergencies"], 60),
    "lookalikes": (Lookalike, EVALUATION["lookalikes"], 60),
    "development": (Message, EVALUATION["development"], 280),
    "unseen": (Message, EVALUATION["unseen"], 150),
    "vague": (Complaint, EVALUATION["vague"], 50),
    "complete": (Complaint, EVALUATION["complete"], 30),
    "doses": (Dose, EVALUATION["doses"], 60),
    "general": (General, EVALUATION["general"], 100),
}


def doctor_turns(row):
    return [m["content"] for m in row["messages"] if m["role"] == "assistant"]


def whole_text(row):
    if "messages" in row:
        return "\n".join(m["content"] for m in row["messages"])
    return "\n".join(row[key] for key in ("text", "instruction", "input", "output", "question") if key in row)


def first_sentence(text):
    return re.split(r"(?<=[。！？])", text)[0]


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_and_number_of_rows(name):
    schema, rows, least = SCHEMAS[name]
    for number, row in enumerate(rows, 1):
        schema.model_validate(row, context=f"{name}, row {number}")
        if "messages" in row:
            Conversation(messages=row["messages"])
    print(f"\n{name}: {len(rows)} rows")
    assert len(rows) >= least


def test_departments_and_urgency():
    departments = Counter(row["department"] for row in CONSULTATIONS)
    urgency = Counter(row["urgency"] for row in CONSULTATIONS)
    share = urgency[5] / len(CONSULTATIONS)
    print(f"\n{dict(departments)}\nurgency {dict(sorted(urgency.items()))}, emergencies {share:.1%}")
    assert 12 <= len(departments) <= 16 and min(departments.values()) >= 50
    assert len({row["id"] for row in CONSULTATIONS}) == len(CONSULTATIONS)
    assert 0.06 <= share <= 0.12, "the card says about a tenth"


def test_emergencies_are_sent_away_first():
    for row in CONSULTATIONS:
        if row["urgency"] == 5:
            assert re.search("120|急诊|急救", first_sentence(doctor_turns(row)[0])), row["id"]


def test_entities_are_literal_spans_of_the_first_turn():
    for row in CONSULTATIONS:
        first, last = row["messages"][0]["content"], 0
        for entity in row["entities"]:
            assert first[entity["start"] : entity["end"]] == entity["text"], row["id"]
            assert entity["start"] >= last, f"{row['id']}: overlapping or unsorted spans"
            last = entity["end"]
    without = sum(not row["entities"] for row in CONSULTATIONS)
    print(f"\n{without} rows without an entity")
    assert without <= 0.03 * len(CONSULTATIONS)


def test_lengths():
    for row in CONSULTATIONS:
        for turn in doctor_turns(row):
            assert 30 <= len(turn) <= 150, f"{row['id']}: a doctor turn of {len(turn)} characters"
        assert row["messages"][0]["role"] == "user" and len(row["messages"][0]["content"]) <= 120, row["id"]
    words = [len(row["text"].split()) for row in REVIEWS]
    print(f"\nreviews: {min(words)}–{max(words)} words, mean {np.mean(words):.0f}")
    assert 60 <= min(words) and max(words) <= 180
    assert 0.4 <= np.mean([row["label"] for row in REVIEWS]) <= 0.6
    assert sum(path.stat().st_size for path in DATA.rglob("*") if path.is_file()) < 6e6


def similarity(texts):
    """Jaccard similarity over character 5-grams, all pairs, diagonal zero."""
    grams = CountVectorizer(analyzer="char", ngram_range=(5, 5), binary=True, dtype=np.int32).fit_transform(texts)
    sizes = np.asarray(grams.sum(1)).ravel()
    shared = (grams @ grams.T).tocoo()
    pairs = shared.row < shared.col
    i, j, both = shared.row[pairs], shared.col[pairs], shared.data[pairs]
    return i, j, both / (sizes[i] + sizes[j] - both)


@pytest.mark.parametrize("name", SCHEMAS)
def test_no_near_duplicates_in_a_file(name):
    rows = SCHEMAS[name][1]
    i, j, score = similarity([whole_text(row) for row in rows])
    if not len(score):
        return  # no two rows share five characters in a row
    worst = int(np.argmax(score))
    print(f"\n{name}: nearest pair {score[worst]:.2f} (rows {i[worst] + 1} and {j[worst] + 1})")
    assert score[worst] <= 0.6, f"rows {i[worst] + 1} and {j[worst] + 1} of {name} are nearly the same"


def test_evaluation_does_not_overlap_with_training():
    training = [m["content"] for row in CONSULTATIONS for m in row["messages"] if m["role"] == "user"]
    training += [m["content"] for row in CHATS for m in row["messages"] if m["role"] == "user"]
    training += [row["instruction"] for row in CODE]
    held_out = [row.get("text") or row["question"] for rows in EVALUATION.values() for row in rows]
    i, j, score = similarity(held_out + training)
    across = (i < len(held_out)) & (j >= len(held_out))
    nearest = score[across].max()
    print(f"\nnearest pair between evaluation and training: {nearest:.2f}")
    assert nearest <= 0.5


def test_unseen_messages_are_unlike_what_the_check_was_fitted_on():
    unseen, known = [row["text"] for row in EVALUATION["unseen"]], [text for text, _, _ in labelled()]
    i, j, score = similarity(unseen + known)
    nearest = score[(i < len(unseen)) & (j >= len(unseen))].max()
    print(f"\nnearest pair: {nearest:.2f}")
    assert nearest <= 0.6


def test_lexical_variety():
    grams = CountVectorizer(analyzer="char", ngram_range=(4, 4), binary=True)
    counts = np.asarray(grams.fit_transform(whole_text(row) for row in CONSULTATIONS).sum(0)).ravel()
    single = (counts == 1).mean()
    opening, often = Counter(first_sentence(doctor_turns(row)[0]) for row in CONSULTATIONS).most_common(1)[0]
    print(f"\n{single:.0%} of {len(counts)} character 4-grams occur in one row only")
    print(f"most frequent opening: {often} × {opening}")
    assert single >= 0.25 and often <= 0.02 * len(CONSULTATIONS)


NUMBER = r"[0-9０-９一二三四五六七八九十两半几]+"
UNIT = r"(?:mg|毫克|微克|ug|μg|ml|毫升|IU|单位|片(?!状|红|黑|白)|粒|颗(?!牙|痣|痘)|丸|袋|支(?!持)|滴|喷|包|克(?!服|制))"
DOSE = re.compile(rf"{NUMBER}\s*{UNIT}", re.I)
FREQUENCY = re.compile(rf"(?:服|吃药|口服|含服)[^，。；！？]{{0,6}}(?:每日|每天|一天|一日){NUMBER}次")
PRIVATE = {
    "phone number": r"(?<!\d)1[3-9]\d{9}(?!\d)|(?<!\d)0\d{2,3}-\d{7,8}",
    "ID number": r"(?<!\d)\d{17}[\dXx](?!\d)",
    "URL": r"https?://|www\.|\.com\b",
    "long number": r"\d{7,}",
    "hospital": "协和|华西|同仁医院|湘雅|瑞金|华山医院|积水潭|阜外|齐鲁医院|天坛医院|北医三院|301医院",
    "brand": "优甲乐|芬必得|泰诺|美林|云南白药|白加黑|感康|达克宁|三九感冒|斯达舒|吗丁啉|拜新同|络活喜|微信|抖音|淘宝|(?<![一二两三四五六七八九几])百度",
    "person": "我(?:叫|的名字是)[\u4e00-\u9fff]{2,3}[，。]",
}


def test_no_dose_in_a_doctor_turn():
    for row in CONSULTATIONS:
        for turn in doctor_turns(row):
            found = DOSE.search(turn) or FREQUENCY.search(turn)
            assert not found, f"{row['id']}: {found[0]}"


@pytest.mark.parametrize("text", ["每次吃两片", "口服500mg", "服用每日3次", "挤 2 滴"])
def test_dose_pattern_finds_doses(text):
    assert DOSE.search(text) or FREQUENCY.search(text)


def test_no_private_data():
    for name, (_, rows, _) in SCHEMAS.items():
        if name in ("reviews", "code_instructions"):
            continue
        for number, row in enumerate(rows, 1):
            for kind, pattern in PRIVATE.items():
                found = re.search(pattern, whole_text(row))
                assert not found, f"{name}, row {number}: {kind} {found[0]!r}"


def test_chinese_punctuation():
    half_width = re.compile(r"[\u4e00-\u9fff][,;:?!]|[,;:?!][\u4e00-\u9fff]")
    for row in CONSULTATIONS:
        for turn in doctor_turns(row):
            assert not half_width.search(turn), f"{row['id']}: {half_width.search(turn)[0]}"


def run(row):
    """Execute a row's output and its check; the check sees what was printed as ``stdout``."""
    namespace, printed = {"__name__": "__main__", "output": row["output"]}, io.StringIO()
    if row["language"] == "python":
        with contextlib.redirect_stdout(printed):
            exec(compile(row["output"], "output", "exec"), namespace)
    namespace["stdout"] = printed.getvalue()
    exec(compile(row["check"], "check", "exec"), namespace)


def test_code_outputs_run_and_compute_what_they_should():
    executed = 0
    for number, row in enumerate(CODE, 1):
        if row["language"] == "python":
            assert "assert" in row["check"], f"code_instructions, row {number}: no assertion"
        if row["check"]:
            try:
                run(row)
            except Exception as error:
                raise AssertionError(f"code_instructions, row {number}: {row['instruction']}") from error
            executed += 1
    print(f"\n{executed} of {len(CODE)} code outputs executed")
    assert executed >= 320


def test_a_wrong_output_is_noticed():
    row = next(row for row in CODE if row["language"] == "python")
    with pytest.raises((AssertionError, NameError)):
        run({**row, "output": "pass"})


def test_card_is_current():
    assert data_card.CARD.read_text(encoding="utf-8") == data_card.card(), "run `make data-card`"
