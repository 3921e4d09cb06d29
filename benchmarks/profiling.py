"""Where a training step spends its time, and the limit: the machine's own matrix throughput."""

import json
import statistics
import sys
import time

from benchmarks.common import WORK, run_json, save
from benchmarks.contestants.course import build_trainer
from benchmarks.rows import consultations

MATRIX = ("mm", "addmm", "bmm", "linear", "gemm", "_scaled_dot_product", "convolution", "mkldnn")


def matrix_gflops(dtype, size: int = 1024, rounds: int = 8) -> float:
    """Return the best GFLOP/s of a square matrix product of ``size`` in ``dtype`` (2 · size³ operations)."""
    import torch

    a, b = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return 2 * size**3 / min(times) / 1e9


def step_operations(tokens: int, supervised: int, head: int, body: int) -> float:
    """Return the operations that a LoRA step cannot do without: forward and backward through frozen weights.

    2 per weight and token forward, 2 backward (to the inputs; frozen weights need no gradient of their own); the
    output head only for supervised tokens. ``body`` and ``head`` are numbers of weights. LoRA and attention left out.
    """
    return 4 * (body * tokens + head * supervised)


def measure(loss: str | None = None, rows: int = 12) -> dict:
    """Return seconds of the second and third step, and the share of each kind of operation in their CPU time."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from helpers.sizes import SMOLLM2

    train, _ = consultations(rows, 1)
    config = dict(output_dir=str(WORK / "steps"), eval_strategy="no", save_strategy="no", disable_tqdm=True)
    trainer = build_trainer(SMOLLM2, train, config["output_dir"], config, **({"loss": loss} if loss else {}))
    trainer.create_optimizer_and_scheduler(3)
    trainer.current_gradient_accumulation_steps = 1  # what Trainer.train() sets
    trainer.model.train()
    batches = list(trainer.get_train_dataloader())
    counts = [((b["labels"] != -100).sum().item(), b["attention_mask"].sum().item()) for b in batches]
    times = []

    def step(batch):
        start = time.perf_counter()
        trainer.training_step(trainer.model, dict(batch))
        trainer.optimizer.step()
        trainer.model.zero_grad()
        times.append(time.perf_counter() - start)

    step(batches[0])
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        for batch in batches[1:]:
            step(batch)
    events = [(e.key, e.self_cpu_time_total, e.count) for e in profiler.key_averages()]
    total = sum(own for _, own, _ in events)
    matrix = sum(own for name, own, _ in events if any(word in name for word in MATRIX))
    largest = sorted(events, key=lambda e: -e[1])[:15]
    net = trainer.model.get_base_model()
    head = net.get_output_embeddings().weight.numel()
    body = sum(m.in_features * m.out_features for m in net.model.modules() if hasattr(m, "lora_A"))
    return dict(
        loss=loss or "7.6",
        step_seconds=times[1:],
        supervised=[c[0] for c in counts[1:]],
        tokens=[c[1] for c in counts[1:]],
        operations=sum(step_operations(t, s, head, body) for s, t in counts[1:]),
        matrix_share=matrix / total,
        largest=[dict(name=name, share=own / total, calls=calls) for name, own, calls in largest],
        gflops={str(d).removeprefix("torch."): matrix_gflops(d) for d in (torch.float32, torch.bfloat16)},
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(**json.loads(sys.argv[1]))))
        sys.exit()
    results = []
    for settings in ({}, dict(loss="trl"), dict(loss="full")):
        result = run_json("benchmarks.profiling", settings)
        limit = result["operations"] / max(result["gflops"].values()) / 1e9
        results.append(result | dict(limit_seconds=limit))
        print(
            f"{result['loss']}: {statistics.mean(result['step_seconds']):.2f} s a step, matrix products "
            f"{result['matrix_share']:.0%}, at this machine's best throughput {limit / len(result['tokens']):.2f} s",
            flush=True,
        )
    save("profile", dict(results=results))
