"""The consultations nearest to what a patient says: TF-IDF over characters, the retriever of 7.1."""


def retriever(rows: list[dict]):
    """Return ``nearest(text, count=3)``, which returns [(similarity, row)], the most similar row first.

    ``rows`` have ``messages``; what is compared is the first message of the patient. The similarity is the cosine
    of TF-IDF vectors over single characters and pairs (0: nothing in common, 1: the same characters). It sees
    spelling, not meaning. Rows with similarity 0 are left out.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 2), sublinear_tf=True)
    vectors = vectorizer.fit_transform([first_words(row) for row in rows])

    def nearest(text: str, count: int = 3) -> list[tuple[float, dict]]:
        similarity = (vectors @ vectorizer.transform([text]).T).toarray().ravel()
        best = similarity.argsort()[::-1][:count]
        return [(float(similarity[i]), rows[i]) for i in best if similarity[i] > 0]

    return nearest


def first_words(row: dict, role: str = "user") -> str:
    """Return the first message of ``role`` ("user": the patient, "assistant": the doctor) in ``row``."""
    return next(message["content"] for message in row["messages"] if message["role"] == role)
