"""The check that answers before the language model: does a message describe an emergency?

helpers/red_flag_words.py holds lists: SIGNS for each kind of emergency; AGAINST, words that speak against one: it is
over, it comes and goes for months, an exam, a film. No list decides: which lists a message hits goes, with its
character n-grams, into one logistic regression, fitted in a second on labelled messages in ``data/``. Only signs of
self-harm outside a story are always answered. data/evaluation/unseen.jsonl takes no part in any of it.
"""

import re
from functools import lru_cache

from helpers.red_flag_words import AGAINST, SIGNS, WORDS

SELF_HARM = "自伤"
THRESHOLD = 0.55  # of the probability, and C = 3, 0.5 below: chosen by cross-validation over labelled()


def _pattern(lines: str) -> re.Pattern:
    pattern = "|".join(line.strip() for line in lines.strip().splitlines())
    for _ in range(2):  # a list may name another
        pattern = re.sub(r"<(\w+)>", lambda name: f"(?:{WORDS[name[1]]})", pattern)
    return re.compile(pattern.replace("…", "[^。！？]{0,14}").replace("‥", "[^，。！？]{0,6}"))


_SIGNS = {kind: _pattern(lines) for kind, lines in SIGNS.items()}
_AGAINST = {kind: _pattern(words) for kind, words in AGAINST.items()}


@lru_cache(10_000)
def signs(text: str) -> tuple[str, ...]:
    """Return the kinds of emergency whose signs stand in ``text``."""
    return tuple(kind for kind, pattern in _SIGNS.items() if pattern.search(text))


def features(texts: list[str], hide_signs: bool = False) -> list[list[float]]:
    """Return for each text: every sign (0 or 1), how many (at most 3), any; and how often each list of AGAINST (at most 2)."""
    rows = []
    for text in texts:
        kinds = () if hide_signs else signs(text)
        against = [min(len(pattern.findall(text)), 2) for pattern in _AGAINST.values()]
        rows.append([*(kind in kinds for kind in _SIGNS), min(len(kinds), 3), bool(kinds), *against])
    return [[0.5 * value for value in row] for row in rows]


def labelled() -> list[tuple[str, bool, str]]:
    """Return (message, emergency or not, file or urgency) of all rows to fit on; level 4, "today", is neither."""
    from helpers.datasets import bundled

    def asked(row):
        return [message["content"] for message in row["messages"] if message["role"] == "user"]

    rows = [(asked(row)[0], row["urgency"] == 5, row["urgency"]) for row in bundled("consultations")]
    rows = [(text, emergency, str(level)) for text, emergency, level in rows if level != 4]
    rows += [(row["text"], True, "emergencies") for row in bundled("evaluation/emergencies")]
    rows += [(row["text"], False, "lookalikes") for row in bundled("evaluation/lookalikes")]
    rows += [(row["text"], row["emergency"], "development") for row in bundled("evaluation/development")]
    rows += [
        (text, False, "later turns")
        for row in bundled("consultations")
        if row["urgency"] <= 2
        for text in asked(row)[1:]
    ]
    rows += [(asked(row)[0], False, "chats") for row in bundled("chats")]
    return [row for row in rows if re.search("[\u4e00-\u9fff]", row[0])]


def fit(texts: list[str], emergencies: list[bool]):
    """Return a function from messages to their probabilities of an emergency: 1- and 2-grams beside :func:`features`.

    Every message is learned twice, the second time with its signs hidden: otherwise the n-grams would learn nothing
    about wordings that no list foresees.
    """
    from scipy.sparse import hstack, vstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    grams = TfidfVectorizer(analyzer="char", ngram_range=(1, 2), sublinear_tf=True, min_df=2).fit(texts)

    def matrix(texts, hide_signs=False):
        return hstack([grams.transform(texts), features(texts, hide_signs)]).tocsr()

    model = LogisticRegression(C=3, solver="liblinear", class_weight="balanced", max_iter=3000)
    model.fit(vstack([matrix(texts), matrix(texts, hide_signs=True)]), [*emergencies, *emergencies])
    return lambda texts: model.predict_proba(matrix(texts))[:, 1]


@lru_cache
def classifier():
    """Return what :func:`fit` returns for :func:`labelled`."""
    texts, emergencies, _ = zip(*labelled(), strict=True)
    return fit(texts, emergencies)


def decide(text: str, probability: float) -> str | None:
    """Return the kind of emergency, "可能的急症" if no sign names it, or None; self-harm outside a story at any probability."""
    kinds = signs(text)
    story = _AGAINST["故事"].search(text) or _AGAINST["课业"].search(text)
    if SELF_HARM in kinds and (not story or probability > THRESHOLD):
        return SELF_HARM
    return [*kinds, "可能的急症"][0] if probability > THRESHOLD else None


def red_flag(text: str) -> str | None:
    """Return the kind of emergency that ``text`` describes ("可能的急症" if only its n-grams tell), or None."""
    return decide(text, classifier()([text])[0])
