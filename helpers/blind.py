"""Blind A/B reading: two replies to one question in a random order, the reader's votes in a CSV file."""

import csv
import random
from pathlib import Path

CHOICES = ("before", "after", "tie")
_COLUMNS = ("rater", "question", "vote")


def read_votes(path: str | Path) -> list[dict]:
    """Return the votes of a CSV file with the columns rater, question, vote; an absent file has none."""
    path = Path(path)
    if not path.is_file():
        return []
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def record(path: str | Path, rater: str, question: str, vote: str) -> None:
    """Append one vote to the CSV file at once, so that nothing is lost; raise ValueError for an unknown vote."""
    if vote not in CHOICES:
        raise ValueError(f"unknown vote {vote!r}: use one of {', '.join(CHOICES)}")
    path = Path(path)
    new = not path.is_file()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8-sig" if new else "utf-8", newline="") as file:  # the mark is for Excel
        writer = csv.writer(file)
        if new:
            writer.writerow(_COLUMNS)
        writer.writerow((rater, question, vote))


def waiting(pairs: list[dict], votes: list[dict], rater: str) -> list[dict]:
    """Return the pairs that ``rater`` has not judged yet, in this rater's own order, each with sides "A" and "B".

    ``pairs``: dicts with question, before, after. The order depends only on rater and question, so a sheet
    that is opened again goes on where it stopped and shows the same sides.
    """
    done = {vote["question"] for vote in votes if vote["rater"] == rater}
    result = []
    for pair in pairs:
        if pair["question"] not in done:
            sides = ["before", "after"]
            random.Random(f"{rater}|{pair['question']}").shuffle(sides)
            result.append({**pair, "A": sides[0], "B": sides[1]})
    return sorted(result, key=lambda p: random.Random(f"order|{rater}|{p['question']}").random())


def sheet(pairs: list[dict], path: str | Path, rater: str):
    """Return a widget that shows one pair after the other and records each vote in ``path``."""
    import ipywidgets as widgets

    todo = waiting(pairs, read_votes(path), rater)
    head, texts = (
        widgets.HTML(),
        [widgets.Textarea(disabled=True, layout={"width": "48%", "height": "160px"}) for _ in "AB"],
    )
    buttons = [widgets.Button(description=name) for name in ("A 更好", "B 更好", "差不多")]

    def show():
        head.value = f"<b>还有 {len(todo)} 题</b>" + (f"<br>问：{todo[0]['question']}" if todo else "，评完了")
        for text, side in zip(texts, "AB", strict=True):
            text.value = f"{side}：{todo[0][todo[0][side]]}" if todo else ""

    def vote(side):
        def on_click(_):
            if todo:
                pair = todo.pop(0)
                record(path, rater, pair["question"], pair.get(side, "tie"))
                show()

        return on_click

    for button, side in zip(buttons, ("A", "B", "tie"), strict=True):
        button.on_click(vote(side))
    show()
    return widgets.VBox([head, widgets.HBox(texts), widgets.HBox(buttons)])


def summary(votes: list[dict]) -> dict:
    """Return counts of the votes, the two-sided sign test of after against before (ties left out), and kappa.

    ``kappa``: Cohen's, averaged over all pairs of raters who judged at least two questions in common; None without.
    """
    from itertools import combinations

    from scipy.stats import binomtest
    from sklearn.metrics import cohen_kappa_score

    counts = {choice: sum(v["vote"] == choice for v in votes) for choice in CHOICES}
    decided = counts["before"] + counts["after"]
    raters = {}
    for v in votes:
        raters.setdefault(v["rater"], {})[v["question"]] = v["vote"]
    kappas = []
    for one, other in combinations(raters.values(), 2):
        common = sorted(one.keys() & other.keys())
        if len(common) >= 2:
            kappas.append(cohen_kappa_score([one[q] for q in common], [other[q] for q in common], labels=CHOICES))
    p_value = binomtest(counts["after"], decided).pvalue if decided else None
    return {**counts, "p_value": p_value, "kappa": sum(kappas) / len(kappas) if kappas else None}
