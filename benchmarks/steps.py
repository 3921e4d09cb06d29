"""A few training steps of the course's recipe, changed in one thing: the child process of the ablation and the scaling.

Usage: python -m benchmarks.steps '{"rows": 20, …}'; the last line of the output is the result as JSON.
"""

import json
import sys
import time

from benchmarks.common import WORK
from benchmarks.contestants.course import build_trainer
from benchmarks.rows import consultations

DEFAULTS = dict(rows=20, length=256, config={}, lora={}, changes={}, threads=0, learn=0)


def long_row(messages: list, tokens: int) -> list:
    """Repeat the turns of a conversation until it surely has ``tokens`` tokens (cut later): two letters a token."""
    turns = messages[1:]
    times = 1 + 2 * tokens // sum(len(m["content"]) for m in turns)
    return messages[:1] + turns * times


def measure(settings: dict) -> dict:
    """Train for one epoch and return step times (s), tokens/s without the first step, build time, losses.

    ``rows``: how many (repeated when the file has fewer); ``length``: 256 = the rows of 7.6 as they are, any other
    number: rows of exactly that many tokens; ``learn``: measure the loss of that many held-out rows before and after.
    """
    import torch
    from transformers import TrainerCallback

    from helpers.sizes import SMOLLM2

    s = DEFAULTS | settings
    if s["threads"]:
        torch.set_num_threads(s["threads"])
    train, held_out = consultations(min(s["rows"], 768), s["learn"] or 1)
    rows = [train[i % len(train)] for i in range(s["rows"])]
    if s["length"] != 256:
        rows = [long_row(messages, s["length"]) for messages in rows]
    config = dict(output_dir=str(WORK / "steps"), eval_strategy="no", save_strategy="no", max_length=s["length"])
    config |= dict(disable_tqdm=True, seed=0) | s["config"]
    started = time.perf_counter()
    trainer = build_trainer(SMOLLM2, rows, config["output_dir"], config, s["lora"], **s["changes"])
    built = time.perf_counter() - started
    times, real, padded, supervised = [], [], [], []

    class Clock(TrainerCallback):
        def on_step_begin(self, *arguments, **more):
            self.started = time.perf_counter()

        def on_step_end(self, *arguments, **more):
            times.append(time.perf_counter() - self.started)

    train_one = trainer.training_step

    def counted(model, batch, *arguments, **more):
        mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
        real.append(int(mask.sum()))
        padded.append(batch["input_ids"].numel())
        supervised.append(int((batch["labels"][:, 1:] != -100).sum()))
        return train_one(model, batch, *arguments, **more)

    trainer.training_step = counted
    trainer.add_callback(Clock)
    losses = []
    if s["learn"]:
        from benchmarks.evaluate import encode_held_out, mean_loss

        held_out = encode_held_out(held_out)
        losses.append(mean_loss(trainer.model, held_out))
    trainer.train()
    if s["learn"]:
        losses.append(mean_loss(trainer.model, held_out))
    seconds = sum(times[1:])
    return dict(
        build_seconds=built,
        step_seconds=times,
        tokens_per_second=sum(real[1:]) / seconds,
        supervised_per_second=sum(supervised[1:]) / seconds,
        padding=1 - sum(real[1:]) / sum(padded[1:]),
        train_loss=[entry["loss"] for entry in trainer.state.log_history if "loss" in entry],
        held_out_loss=losses,
    )


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
