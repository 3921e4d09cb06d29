"""The tables of data/README.md, made from the rows: `make data-card` rewrites them, a test compares."""

from collections import Counter

from helpers.datasets import DATA, read_rows

CARD = DATA / "README.md"
BEGIN, END = "<!-- made by `make data-card` -->", "<!-- end -->"
TRAINING = ("consultations", "reviews", "code_instructions", "chats")


def _markdown(head: list, rows: list[list]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def file_table() -> str:
    """Return file, rows, size and mean length in characters of every bundled file."""
    rows = []
    for path in [DATA / f"{name}.jsonl" for name in TRAINING] + sorted((DATA / "evaluation").glob("*.jsonl")):
        content = read_rows(path)
        texts = ["".join(m["content"] for m in r["messages"]) if "messages" in r else _text(r) for r in content]
        mean = sum(map(len, texts)) / len(texts)
        rows.append([f"`{path.relative_to(DATA)}`", len(content), f"{path.stat().st_size / 1e6:.2f}", f"{mean:.0f}"])
    return _markdown(["file", "rows", "MB", "characters per row (mean)"], rows)


def _text(row: dict) -> str:
    return " ".join(value for value in row.values() if isinstance(value, str))


def urgency_table() -> str:
    """Return departments × urgency of the consultations, with sums and the share of every level."""
    rows = read_rows(DATA / "consultations.jsonl")
    counts = Counter((r["department"], r["urgency"]) for r in rows)
    departments = list(dict.fromkeys(r["department"] for r in rows))
    table = [[d, *(counts[d, u] for u in range(1, 6)), sum(counts[d, u] for u in range(1, 6))] for d in departments]
    sums = [sum(line[u] for line in table) for u in range(1, 7)]
    table.append(["sum", *sums])
    table.append(["share", *(f"{s / len(rows):.1%}" for s in sums)])
    return _markdown(["department", "1", "2", "3", "4", "5", "sum"], table)


def shape_table() -> str:
    """Return how the consultations are built: patient turns, who asks back, lengths, entities."""
    rows = read_rows(DATA / "consultations.jsonl")
    turns = Counter(len(r["messages"]) // 2 for r in rows)
    doctor = [len(m["content"]) for r in rows for m in r["messages"] if m["role"] == "assistant"]
    asks = sum("？" in r["messages"][1]["content"] for r in rows)
    labels = Counter(e["label"] for r in rows for e in r["entities"])
    lines = [[f"{n} patient turns", f"{turns[n]} rows"] for n in sorted(turns)]
    lines.append(["first doctor turn asks back", f"{asks} rows ({asks / len(rows):.0%})"])
    lines.append(["doctor turn, characters", f"{min(doctor)}–{max(doctor)}, mean {sum(doctor) / len(doctor):.0f}"])
    lines += [[f"entities: {label}", count] for label, count in sorted(labels.items())]
    return _markdown(["", ""], lines)


def card() -> str:
    """Return data/README.md with fresh tables."""
    text = CARD.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    tables = "\n\n".join([file_table(), urgency_table(), shape_table()])
    return f"{before}{BEGIN}\n{tables}\n{END}{after}"


if __name__ == "__main__":
    CARD.write_text(card(), encoding="utf-8")
    print(f"tables written to {CARD.name}")
