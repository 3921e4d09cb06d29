"""Rows to train on: bundled, from the hub, or the student's own file; read, checked, split."""

import csv
import io
import json
import random
from pathlib import Path

from helpers.conversations import usable_conversations

DATA = Path(__file__).resolve().parent.parent / "data"

# the slides' data sets on the hub; more than one repository: the first that answers is taken
HUB = {
    "reviews": [("stanfordnlp/imdb", "train")],
    "code_instructions": [("lucasmccabe-lmi/CodeAlpaca-20k", "train"), ("sahil2801/CodeAlpaca-20k", "train")],
    "chats": [("HuggingFaceH4/ultrachat_200k", "train_sft")],
    "consultations": [("FreedomIntelligence/HuatuoGPT2-SFT-GPT4-140K", "train"), ("Suprit/CMtMedQA", "train")],
}


def read_rows(path: str | Path) -> list[dict]:
    """Read a .jsonl, .json (a list) or .csv file; UTF-8 (with or without a mark) or GB18030.

    Raises FileNotFoundError or ValueError; the message names the file, the row and what to do.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; check the name (working folder: {Path.cwd().name})")
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        try:
            text = raw.decode("gb18030")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: neither UTF-8 nor GB18030; save it as UTF-8 ({error})") from error
    kind = path.suffix.lower()
    if kind == ".csv":
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
    elif kind in (".jsonl", ".json"):
        # a .json file that does not begin like a list holds one object a line, as hub files often do
        numbered = [(1, text)] if kind == ".json" and text.lstrip()[:1] == "[" else enumerate(text.split("\n"), 1)
        rows = []
        for number, line in numbered:
            if line.strip():
                try:
                    rows.append(json.loads(line))
                except json.JSONDecodeError as error:
                    where = f"{path}, line {number + error.lineno - 1}"
                    raise ValueError(f"{where}: broken JSON ({error.msg}); repair or delete this line") from error
        if kind == ".json" and rows and isinstance(rows[0], list):
            rows = rows[0]
    else:
        raise ValueError(f"{path}: unknown kind of file {path.suffix!r}; use .jsonl, .json or .csv")
    if not rows:
        raise ValueError(f"{path}: the file has no rows")
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise ValueError(f"{path}, row {number}: a row must be a JSON object, this is {type(row).__name__}")
        if None in row or (kind == ".csv" and None in row.values()):
            raise ValueError(f"{path}, row {number}: not as many cells as the head line has; put quotes around text")
    return rows


def read_conversations(path: str | Path) -> list[dict]:
    """Read a file of conversations in any known shape and check every row before anything is trained.

    Raises ValueError with every bad row (the first ten in words).
    """
    good, reports = usable_conversations(read_rows(path), path)
    if reports:
        more = f"\n… and {len(reports) - 10} more bad rows" if len(reports) > 10 else ""
        raise ValueError("\n".join(reports[:10]) + more)
    return good


def bundled(name: str) -> list[dict]:
    """Return the rows of ``data/<name>.jsonl``."""
    return read_rows(DATA / f"{name}.jsonl")


def from_hub(name: str, rows: int) -> list[dict]:
    """Return the first ``rows`` rows of the slides' data set for ``name``, streamed from the hub.

    Raises RuntimeError, naming the remedy, when none of the repositories answers.
    """
    from datasets import load_dataset

    problems = []
    for repository, split in HUB[name]:
        try:
            stream = load_dataset(repository, split=split, streaming=True).shuffle(seed=0, buffer_size=10_000)
            return list(stream.take(rows))
        except (OSError, ValueError, RuntimeError) as error:
            problems.append(f"{repository}: {type(error).__name__}")
    raise RuntimeError(f"no data set for {name!r} answers ({'; '.join(problems)}); use bundled({name!r}) instead")


def training_rows(name: str, run) -> tuple[list[dict], list[dict]]:
    """Return (train, held out) rows of ``name`` for this run: hub data in size t4/gpu, else the bundled rows."""
    wanted = run.rows + run.eval_rows
    rows = from_hub(name, wanted) if run.hub_data else bundled(name)
    if name in ("chats", "consultations"):
        rows, reports = usable_conversations(rows, name)
        if reports:
            print(f"{len(reports)} 条不能用，已跳过，例如 {reports[0]}")
    return split(rows, run.rows, run.eval_rows)


def _question(row: dict) -> str:
    """Return what a row asks: its first user turn, instruction, question or text."""
    turns = [m["content"] for m in row.get("messages") or [] if m.get("role") == "user"]
    fields = [row.get("instruction"), row.get("input"), row.get("question"), row.get("text")]
    return turns[0].strip() if turns else "\n".join(f for f in fields if isinstance(f, str)) or json.dumps(row)


def split(rows: list[dict], train: int, held_out: int, seed: int = 0) -> tuple[list[dict], list[dict]]:
    """Shuffle and split into disjoint (train, held out); equal rows are taken once, equal questions stay together.

    Rows with the same first question (another answer, another id) all land on one side, so that nothing
    held out was seen in training. The held-out part is drawn first: it stays the same whatever ``train`` is.
    Raises ValueError when the file has too few different rows.
    """
    unique = {json.dumps(row, ensure_ascii=False, sort_keys=True): row for row in rows}.values()
    groups = {}
    for row in unique:
        groups.setdefault(_question(row), []).append(row)
    if len(groups) < held_out + 1:
        raise ValueError(f"{len(groups)} different rows are too few: {held_out} are needed for evaluation alone")
    groups = list(groups.values())
    random.Random(seed).shuffle(groups)
    aside, rest = [], []
    for group in groups:
        (aside if len(aside) < held_out else rest).extend(group)
    return rest[:train], aside[:held_out]
