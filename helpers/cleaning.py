"""Cleaning conversations before training: what is removed, why, and how alike two conversations are."""

import re
import unicodedata

from helpers.conversations import check_conversation

# reason -> what gives it away; written to keep medical numbers ("38.5", "血压150/95", "120") and to catch the rest
PATTERNS = {
    "乱码": re.compile(r"\ufffd|锟斤拷|烫烫烫|[ÃÂ][\x80-\xbf]|[\x00-\x08\x0e-\x1f]"),
    "电话或证件号": re.compile(r"(?<!\d)(1[3-9]\d[- ]?\d{4}[- ]?\d{4}|0\d{2,3}-\d{7,8}|\d{17}[\dXx])(?![\dA-Za-z])"),
    "广告": re.compile(
        r"https?://|www\.|扫码(加|领|进群|关注)|长按.{0,4}二维码|关注.{0,6}公众号|包治百病|无效退款|免费领取|(加|添加)我?(的)?(微信|V信|VX|QQ|vx)",
        re.I,
    ),
}


def conversation_text(messages: list[dict]) -> str:
    """Return what user and assistant say, without spaces, punctuation and width variants: for comparing."""
    text = unicodedata.normalize("NFKC", "".join(m["content"] for m in messages if m["role"] != "system"))
    return "".join(c for c in text.lower() if c.isalnum())


def similarity(texts: list[str], others: list[str], n: int = 4):
    """Return for every text (highest Jaccard similarity 0–1 to ``others``, its index), character n-grams.

    When both lists are the same object, a text is compared with the ones before it only.
    """
    import numpy as np
    from sklearn.feature_extraction.text import CountVectorizer

    counter = CountVectorizer(analyzer="char", ngram_range=(n, n), binary=True, dtype=np.float32)
    counter.fit([*texts, *others, "?" * n])  # never an empty vocabulary
    left, right = counter.transform(texts), counter.transform(others)
    sizes = right.sum(axis=1).A1
    best = []
    for start in range(0, len(texts), 256):
        block = left[start : start + 256]
        shared = (block @ right.T).toarray()
        jaccard = shared / np.maximum(block.sum(axis=1).A1[:, None] + sizes[None] - shared, 1)
        if texts is others:
            jaccard = np.where(np.arange(len(others))[None] < start + np.arange(len(jaccard))[:, None], jaccard, 0)
        best += [(float(row.max()), int(row.argmax())) for row in jaccard]
    return best


def clean(rows: list[dict], near: float = 0.7) -> tuple[list[dict], list[dict]]:
    """Return (kept, removed): kept rows have checked ``messages``, removed ones are as read, plus ``reason``.

    Reasons: a conversation that cannot be learned from (empty turn, unknown role, …), the ``PATTERNS``, an
    exact duplicate, a near duplicate (character 4-grams shared with an earlier row, Jaccard ≥ ``near``).
    Raises ValueError, with the first reason, when no row is left.
    """
    kept, removed, seen = [], [], set()
    for number, row in enumerate(rows, 1):
        try:
            checked = check_conversation(row, f"row {number}")
        except ValueError as error:
            removed.append({**row, "reason": "轮次不对", "detail": str(error)})
            continue
        text = "\n".join(m["content"] for m in checked["messages"])
        reason = next((name for name, pattern in PATTERNS.items() if pattern.search(text)), None)
        key = conversation_text(checked["messages"])
        if reason is None and key in seen:
            reason = "完全重复"
        seen.add(key)
        if reason:
            removed.append({**row, "reason": reason})
        else:
            kept.append(checked)
    if kept:
        texts = [conversation_text(row["messages"]) for row in kept]
        close = [score >= near for score, _ in similarity(texts, texts)]
        removed += [{**row, "reason": "近似重复"} for row, c in zip(kept, close, strict=True) if c]
        kept = [row for row, c in zip(kept, close, strict=True) if not c]
    if not kept:
        first = removed[0].get("detail", removed[0]["reason"]) if removed else "the list is empty"
        raise ValueError(f"none of the {len(rows)} rows can be used; the first: {first}")
    return kept, removed
