"""What each setting of the course's recipe contributes: one changed at a time, each in its own process.

"batches in random order" is what the recipe does anyway: its distance from the recipe is the noise of one measurement.
"""

import argparse
import statistics

from benchmarks.common import run_json, save

BASE = "the recipe of 7.6"
NO_TRIM = dict(MALLOC_TRIM_THRESHOLD_="1073741824", MALLOC_TOP_PAD_="67108864", MALLOC_MMAP_THRESHOLD_="1073741824")


def variants(bf16: bool, cores: int) -> dict[str, dict]:
    """Return {what is changed: settings of ``benchmarks.steps``, and ``environment``}; the first is the recipe."""
    other = "fp32 instead of bf16 autocast" if bf16 else "bf16 autocast on a CPU without it"
    chosen = {
        BASE: {},
        other: dict(config=dict(bf16=not bf16)),
        "base model in fp32": dict(changes=dict(precision="fp32")),
        "base model in bf16": dict(changes=dict(precision="bf16")),
        "TRL's own loss (every position)": dict(changes=dict(loss="trl")),
        "transformers' loss (all logits at once)": dict(changes=dict(loss="full")),
        "activation checkpointing on": dict(config=dict(activation_checkpointing=True)),
        "LoRA dropout 0.05": dict(lora=dict(dropout=0.05)),
        "batches of similar length": dict(config=dict(train_sampling_strategy="group_by_length")),
        "batches in random order": dict(config=dict(train_sampling_strategy="random")),
        "packed to 256 tokens": dict(config=dict(packing=True, pad_to_multiple_of=None)),
        "padded to the longest row only": dict(config=dict(pad_to_multiple_of=None)),
        # the rows fit into max_length anyway
        "padding-free batches": dict(config=dict(padding_free=True, max_length=None, pad_to_multiple_of=None)),
        "memory kept by malloc": dict(environment=NO_TRIM),
        "1 data loader worker": dict(config=dict(dataloader_num_workers=1)),
        "1 thread": dict(threads=1),
        f"{2 * cores} threads": dict(threads=2 * cores),
    }
    for size in (1, 4, 8):
        chosen[f"batch of {size}"] = dict(config=dict(per_device_train_batch_size=size))
    for rank in (4, 64):
        chosen[f"rank {rank}"] = dict(lora=dict(r=rank, alpha=2 * rank))
    return chosen


def learning(rows: int) -> dict[str, dict]:
    """Return the variants whose effect is on the loss, trained on ``rows`` rows and then evaluated."""
    rates = {f"lr {rate:g}": dict(config=dict(learning_rate=rate)) for rate in (2e-4, 5e-4, 2e-3, 4e-3)}
    ranks = {f"rank {rank}": dict(lora=dict(r=rank, alpha=2 * rank)) for rank in (4, 64)}
    chosen = {BASE: {}} | rates | ranks | {"LoRA dropout 0.05": dict(lora=dict(dropout=0.05))}
    return {f"{name}, {rows} rows": settings | dict(rows=rows, learn=16) for name, settings in chosen.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=24, help="rows of the short runs")
    parser.add_argument("--learn", type=int, default=96, help="rows of the runs that compare losses; 0 leaves them out")
    parser.add_argument("--only", nargs="+", help="only variants that contain one of these words")
    options = parser.parse_args()
    import torch

    from helpers.sizes import compute_dtype

    chosen = variants(compute_dtype() == torch.bfloat16, torch.get_num_threads())
    chosen |= learning(options.learn) if options.learn else {}
    results, failed = {}, []
    for name, settings in chosen.items():
        if options.only and not any(word in name for word in options.only) and name != BASE:
            continue
        environment = settings.pop("environment", None)
        settings = dict(rows=options.rows) | settings
        try:
            result = run_json("benchmarks.steps", settings, environment)
        except RuntimeError as error:  # the others are still measured and saved; the exit status tells at the end
            failed.append(name)
            print(f"{name} failed:\n{error}", flush=True)
            continue
        results[name] = dict(settings=settings, environment=environment or {}, **result)
        median = statistics.median(result["step_seconds"][1:] or result["step_seconds"])
        loss = " → ".join(f"{x:.3f}" for x in result["held_out_loss"])
        print(
            f"{name:40} {median:6.2f} s a step, {result['tokens_per_second']:5.0f} tokens/s, "
            f"padding {result['padding']:3.0%}, {result['peak_mib']:6.0f} MiB  {loss}",
            flush=True,
        )
    save("ablation", dict(base=BASE, results=results))
    if failed:
        raise SystemExit(f"not measured: {', '.join(failed)}")
