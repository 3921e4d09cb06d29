"""Measures of a model before and after training: perplexity with interval, replies, stopping, repetition."""


def token_losses(model, rows: list[dict], description: str = "evaluation", batch_size: int = 1):
    """Return [(summed loss in nats, number of supervised tokens)], one pair per row, in the order of ``rows``.

    ``rows`` hold ``input_ids`` and ``labels`` (lists of equal length; -100 = not counted). The output head sees
    only positions that are counted in some row of the batch; rows of similar length share a batch, padded right.
    """
    import torch
    from tqdm.auto import tqdm

    model.eval()
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"])) if batch_size > 1 else range(len(rows))
    result = [None] * len(rows)
    for start in tqdm(range(0, len(rows), batch_size), desc=description, leave=False):
        chosen = order[start : start + batch_size]
        columns = [[torch.tensor(rows[i][name]) for i in chosen] for name in ("input_ids", "labels")]
        mask = torch.nn.utils.rnn.pad_sequence([torch.ones_like(c) for c in columns[0]], batch_first=True)
        ids = torch.nn.utils.rnn.pad_sequence(columns[0], batch_first=True)
        labels = torch.nn.utils.rnn.pad_sequence(columns[1], batch_first=True, padding_value=-100)
        ids, labels, mask = (tensor.to(model.device) for tensor in (ids, labels, mask))
        counted = labels[:, 1:] != -100  # position p predicts token p + 1
        if not counted.any(dim=1).all():
            raise ValueError("a row without any supervised token cannot be evaluated")
        keep = torch.nonzero(counted.any(dim=0)).flatten()
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=mask, logits_to_keep=keep, use_cache=False).logits.float()
            targets = labels[:, keep + 1]
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        sums = loss.view_as(targets).sum(dim=1)  # positions that are not counted have loss 0
        for i, total, count in zip(chosen, sums.tolist(), counted.sum(dim=1).tolist(), strict=True):
            result[i] = (total, count)
    return result


def perplexity(losses: list[tuple[float, int]]) -> tuple[float, float, float]:
    """Return (perplexity, low, high): exp of the mean loss per token, with its 95 % bootstrap interval over rows."""
    import numpy as np
    from scipy.stats import bootstrap

    total, count = (np.array(column, dtype=float) for column in zip(*losses, strict=True))

    def statistic(t, n, axis=-1):
        return np.exp(t.sum(axis) / n.sum(axis))

    interval = bootstrap(
        (total, count), statistic, paired=True, vectorized=True, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return float(statistic(total, count)), float(interval.low), float(interval.high)


def loss_change(before: list[tuple[float, int]], after: list[tuple[float, int]]) -> tuple[float, float, float]:
    """Return (change, low, high) of the loss per token in nats, same rows before and after, 95 % paired bootstrap."""
    import numpy as np
    from scipy.stats import bootstrap

    b, n = (np.array(column, dtype=float) for column in zip(*before, strict=True))
    a = np.array([loss for loss, _ in after])

    def statistic(b, a, n, axis=-1):
        return (a - b).sum(axis) / n.sum(axis)

    interval = bootstrap(
        (b, a, n), statistic, paired=True, vectorized=True, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return float(statistic(b, a, n)), float(interval.low), float(interval.high)


def verdict(change: tuple[float, float, float]) -> str:
    """Return 下降, 上升 or 看不出差别 (the interval includes zero) for an answer of :func:`loss_change`."""
    _, low, high = change
    return "下降" if high < 0 else "上升" if low > 0 else "看不出差别（区间包含 0）"


def reply_penalty(penalty: float, prompt_tokens: int):
    """Return a logits processor list: CTRL's repetition penalty (arXiv 1909.05858), counted on the reply alone.

    ``generate(repetition_penalty=…)`` counts the prompt too. There the stop token stands after every turn, so
    the model would be kept from stopping, and from using the patient's own words. 1.0 changes nothing.
    """
    from transformers import LogitsProcessorList, RepetitionPenaltyLogitsProcessor

    return LogitsProcessorList([RepetitionPenaltyLogitsProcessor(penalty, prompt_ignore_length=prompt_tokens)])


def generate_replies(
    model, tokenizer, prompts: list[list[int]], max_new_tokens: int, batch_size: int = 8, penalty: float = 1.0
):
    """Return [(reply, stopped)] to prompts given as token ids; greedy decoding, left-padded batches.

    ``stopped`` tells whether the model ended by itself with the stop token; ``penalty``: see :func:`reply_penalty`.
    """
    import torch
    from tqdm.auto import tqdm

    model.eval()
    replies = []
    for start in tqdm(range(0, len(prompts), batch_size), desc="replies", leave=False):
        batch = {"input_ids": prompts[start : start + batch_size]}
        padded = tokenizer.pad(batch, padding_side="left", return_tensors="pt").to(model.device)
        with torch.inference_mode():
            output = model.generate(
                **padded,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                use_cache=True,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=tokenizer.eos_token_id,
                logits_processor=reply_penalty(penalty, padded["input_ids"].shape[1]),
            )
        for ids in output[:, padded["input_ids"].shape[1] :]:
            stopped = tokenizer.eos_token_id in ids
            replies.append((tokenizer.decode(ids, skip_special_tokens=True).strip(), stopped))
    return replies


def repetition(text: str, n: int = 8) -> float:
    """Return the share (0–1) of character n-grams that occurred before in the same text; loops score high."""
    grams = [text[i : i + n] for i in range(len(text) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
