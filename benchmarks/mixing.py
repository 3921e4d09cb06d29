"""What the training rows do: consultations alone, or with general chats mixed in; on request also the reader's own file.

Every run is the recipe of 7.6 (the notebook's own cells) from the same start. Measured on the held-out consultations,
on 100 general questions (does it forget?) and, with --own FILE, on held-out rows of that file, too.
"""

import argparse
import gc

from benchmarks.common import WORK, save
from benchmarks.contestants.course import build_trainer
from benchmarks.rows import consultations
from helpers.consultation import SYSTEM


def own_rows(path: str, train: int, held_out: int, max_length: int) -> tuple[list, list]:
    """Return (train, held out) first turns of the conversations in ``path`` that fit ``max_length`` tokens."""
    from helpers.cleaning import clean
    from helpers.datasets import read_rows, split
    from helpers.formatting import encode_chat, set_chat_template, with_system
    from helpers.models import load_tokenizer
    from helpers.sizes import SMOLLM2

    tokenizer = set_chat_template(load_tokenizer(SMOLLM2))
    rows = [{**row, "messages": with_system(row["messages"], SYSTEM)[:3]} for row in clean(read_rows(path))[0]]
    rows = [row for row in rows if len(encode_chat(tokenizer, row["messages"])["input_ids"]) <= max_length]
    return tuple([row["messages"] for row in part] for part in split(rows, train, held_out))


def chats(count: int, tokenizer, max_length: int) -> list:
    """Return ``count`` general chats, cut after the first whole turns that fit ``max_length`` tokens.

    Raises ValueError when fewer fit.
    """
    from helpers.datasets import bundled
    from helpers.formatting import encode_chat

    found = []
    for row in bundled("chats"):
        start = row["messages"][: 3 if row["messages"][0]["role"] == "system" else 2]
        if len(encode_chat(tokenizer, start)["input_ids"]) <= max_length:
            found.append(start)
    if len(found) < count:
        raise ValueError(f"only {len(found)} bundled chats fit {max_length} tokens, {count} were asked for")
    return found[:count]


def measure(model, tokenizer, held_out: dict, questions: list, run) -> dict:
    """Return {set: losses per row} and the list of right (1) and wrong (0) answers to ``questions``."""
    from helpers.evaluation import generate_replies, token_losses
    from helpers.formatting import encode_chat
    from helpers.replies import contains_answer

    result = {
        name: token_losses(model, [encode_chat(tokenizer, m) for m in rows], name, run.eval_batch)
        for name, rows in held_out.items()
    }
    asked = [encode_chat(tokenizer, [dict(role="user", content=q["question"])], reply=True) for q in questions]
    replies = generate_replies(model, tokenizer, [a["input_ids"] for a in asked], run.general_tokens, run.reply_batch)
    right = [float(contains_answer(text, q["answers"])) for (text, _), q in zip(replies, questions, strict=True)]
    return result | {"general": right}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--share", type=float, default=0.15, help="general chats as a share of all training rows")
    parser.add_argument("--own", help="a file of real conversations (JSONL, JSON or CSV); its results are only printed")
    options = parser.parse_args()

    from helpers.datasets import bundled
    from helpers.evaluation import loss_change, perplexity, verdict
    from helpers.formatting import set_chat_template
    from helpers.models import load_tokenizer
    from helpers.replies import compare
    from helpers.sizes import SMOLLM2, run_size

    run = run_size("7.6")
    rows, kept = consultations(run.rows, run.eval_rows, run.turns, run.max_length)
    held_out, questions = {"consultations": kept}, bundled("evaluation/general")
    count = round(len(rows) * options.share / (1 - options.share))
    tokenizer = set_chat_template(load_tokenizer(SMOLLM2))
    recipes = {"consultations": rows, "consultations + chats": rows + chats(count, tokenizer, run.max_length)}
    if options.own:
        recipes["own"], held_out["own"] = own_rows(options.own, run.rows, run.eval_rows, run.max_length)

    measured = {}
    for name, chosen in recipes.items():
        trainer = build_trainer(
            SMOLLM2, chosen, str(WORK / "mixing"), dict(eval_strategy="no", save_strategy="no", seed=0)
        )
        if not measured:
            with trainer.model.disable_adapter():
                measured["before"] = measure(trainer.model, tokenizer, held_out, questions, run)
        seconds = trainer.train().metrics["train_runtime"]
        measured[name] = measure(trainer.model, tokenizer, held_out, questions, run)
        print(f"{name}: {len(chosen)} rows, {seconds:.0f} s", flush=True)
        del trainer
        gc.collect()

    results = {}
    pairs = [("before", name) for name in recipes] + [("consultations", name) for name in list(recipes)[1:]]
    for old, new in pairs:
        for data in held_out:
            change = loss_change(measured[old][data], measured[new][data])
            results[f"{data}: {old} → {new}"] = dict(
                perplexity=[perplexity(measured[m][data]) for m in (old, new)], change=change, verdict=verdict(change)
            )
        change = compare(measured[old]["general"], measured[new]["general"])
        results[f"general questions: {old} → {new}"] = change | dict(verdict=verdict(change["change"]))
    for name, figures in results.items():
        print(name, figures)
    public = {name: figures for name, figures in results.items() if "own" not in name}
    save("mixing", dict(settings=dict(rows=len(rows), chats=count, questions=len(questions)), results=public))
