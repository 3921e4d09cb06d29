"""Measures of whole replies, before against after, each with a paired bootstrap interval."""

from helpers.evaluation import repetition


def in_chinese(text: str) -> bool:
    """Return whether at least 80 % of the letters are Chinese characters (an empty reply is not in Chinese)."""
    letters = [c for c in text if c.isalpha()]
    return bool(letters) and sum("\u4e00" <= c <= "\u9fff" for c in letters) >= 0.8 * len(letters)


def asks_back(text: str) -> bool:
    """Return whether the reply contains a question."""
    return "？" in text or "?" in text


def measures(replies: list[tuple[str, bool]]) -> dict[str, list[float]]:
    """Return {name: one number (0–1) per reply} for replies as ``generate_replies`` gives them."""
    return {
        "stops": [float(stopped) for _, stopped in replies],
        "repetition": [repetition(text) for text, _ in replies],
        "in Chinese": [float(in_chinese(text)) for text, _ in replies],
    }


def compare(before: list, after: list, score=None, resamples: int = 1000) -> dict[str, tuple[float, float, float]]:
    """Return (value, low, high) for ``before``, ``after`` and their ``change``; 95 % paired bootstrap over rows.

    ``score`` turns a list of rows into one number (default: the mean). Row i of both lists belongs together.
    """
    import numpy as np

    if len(before) != len(after) or not before:
        raise ValueError(f"{len(before)} rows before and {len(after)} after: the same rows are needed, at least one")
    score = score or (lambda rows: sum(rows) / len(rows))
    draws = np.random.default_rng(0).integers(0, len(before), (resamples, len(before)))
    sampled = [(score([before[i] for i in draw]), score([after[i] for i in draw])) for draw in draws.tolist()]
    b, a = np.array(sampled).T
    values = {"before": (score(before), b), "after": (score(after), a), "change": (score(after) - score(before), a - b)}
    return {name: (float(v), *(float(q) for q in np.quantile(s, (0.025, 0.975)))) for name, (v, s) in values.items()}


def bleu(pairs: list[tuple[str, str]]) -> float:
    """Return sacrebleu's corpus BLEU (0–100, Chinese characters) of (reply, reference) pairs."""
    import sacrebleu

    replies, references = zip(*pairs, strict=True)
    return sacrebleu.corpus_bleu(replies, [references], tokenize="zh").score


def chrf(pairs: list[tuple[str, str]]) -> float:
    """Return sacrebleu's corpus chrF (0–100, character n-grams) of (reply, reference) pairs."""
    import sacrebleu

    replies, references = zip(*pairs, strict=True)
    return sacrebleu.corpus_chrf(replies, [references]).score


def contains_answer(reply: str, answers: list[str]) -> bool:
    """Return whether one of ``answers`` stands in ``reply``; English words whole, Chinese anywhere."""
    import re

    text = reply.lower()
    return any(
        re.search(rf"(?<![a-z0-9]){re.escape(a.lower())}(?![a-z0-9])", text) if a.isascii() else a in text
        for a in answers
    )
