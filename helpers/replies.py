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


def compare(before: list[float], after: list[float], resamples: int = 1000) -> dict[str, tuple[float, float, float]]:
    """Return (mean, low, high) for ``before``, ``after`` and their ``change``; 95 % paired bootstrap over rows.

    Row i of both lists belongs together.
    """
    import numpy as np

    if len(before) != len(after) or not before:
        raise ValueError(f"{len(before)} rows before and {len(after)} after: the same rows are needed, at least one")
    b, a = np.array(before, dtype=float), np.array(after, dtype=float)
    draws = np.random.default_rng(0).integers(0, len(b), (resamples, len(b)))
    result = {}
    for name, values in (("before", b), ("after", a), ("change", a - b)):
        low, high = np.quantile(values[draws].mean(axis=1), (0.025, 0.975))
        result[name] = (float(values.mean()), float(low), float(high))
    return result


def bleu(pairs: list[tuple[str, str]]) -> list[float]:
    """Return sacrebleu's BLEU (0–100, Chinese characters, smoothed) of every (reply, reference) pair."""
    from sacrebleu import BLEU

    metric = BLEU(tokenize="zh", effective_order=True)
    return [metric.sentence_score(reply, [reference]).score for reply, reference in pairs]


def chrf(pairs: list[tuple[str, str]]) -> list[float]:
    """Return sacrebleu's chrF (0–100, character n-grams) of every (reply, reference) pair."""
    from sacrebleu import CHRF

    metric = CHRF()
    return [metric.sentence_score(reply, [reference]).score for reply, reference in pairs]


def contains_answer(reply: str, answers: list[str]) -> bool:
    """Return whether one of ``answers`` stands in ``reply``; English words whole, Chinese anywhere."""
    import re

    text = reply.lower()
    return any(
        re.search(rf"(?<![a-z0-9]){re.escape(a.lower())}(?![a-z0-9])", text) if a.isascii() else a in text
        for a in answers
    )
