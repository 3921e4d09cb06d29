"""7.6's recipe on this machine's GPU, forced to what a T4 must do (fp16): time, peak memory and loss of 60 steps.

    python -m benchmarks.gpu_check                # Llama-3.2-1B and Llama-3.1-8B in size and shape
    python -m benchmarks.gpu_check --tiny         # two small layers, also on a CPU: checks the script, not the GPU

The weights are random, made here: the hub is not asked. Memory and time do not depend on the values; the loss only
shows that training moves (an untrained model begins at ln(vocabulary), 11.8 for Llama 3).
The weights go to a temporary folder layer by layer (2.5 and 16 GB), because 8B in fp16 fits into no T4.
"""

import argparse
import datetime
import gc
import importlib.metadata
import json
import re
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.random_model import write_random_model
from helpers.colab import PACKAGES, ROOT
from helpers.consultation import SYSTEM
from helpers.memory import FAMILIES, plan

RESULTS = ROOT / "benchmarks" / "results"
MODELS = ("Llama-3.2-1B", "Llama-3.1-8B")
TINY = {**FAMILIES["Llama-3.2-1B"], "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2}
TINY |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 49152}
T4_RECIPE = dict(batch_size=4, max_length=768, learning_rate=2e-4)  # helpers.sizes, size t4, section 7.6
TINY_RECIPE = dict(batch_size=1, max_length=256, learning_rate=2e-4)


def train(config: dict, recipe: dict, steps: int, seed: int) -> dict:
    """Run ``steps`` steps of 7.6's training in fp16 on random weights of ``config``; return the figures (bytes, s)."""
    import torch
    from datasets import Dataset
    from transformers import set_seed
    from trl import SFTConfig, SFTTrainer

    from helpers.datasets import bundled
    from helpers.formatting import fit_conversations, set_chat_template, with_system
    from helpers.lora import adapters_to_fp32, lora_config
    from helpers.models import load_model, load_tokenizer
    from helpers.sizes import SMOLLM2, trainer_hardware
    from helpers.training import longest, stop_on_bad_loss

    cuda = torch.cuda.is_available()
    gc.collect()  # trainer and model of the run before refer to each other
    torch.cuda.empty_cache()
    tokenizer = set_chat_template(load_tokenizer(SMOLLM2))
    rows = [{"messages": with_system(row["messages"], SYSTEM)} for row in bundled("consultations")]
    rows, _ = fit_conversations(tokenizer, rows, recipe["max_length"], "consultations")
    set_seed(seed)
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        write_random_model(config, Path(folder), seed)
        written = time.perf_counter()
        model = load_model(folder, "nf4", dtype=torch.float16)
        loaded = time.perf_counter()
        trainer = SFTTrainer(
            model,
            args=SFTConfig(
                output_dir=folder,
                max_length=recipe["max_length"],
                assistant_only_loss=True,
                per_device_train_batch_size=recipe["batch_size"],
                max_steps=steps,
                learning_rate=recipe["learning_rate"],
                lr_scheduler_type="cosine",
                warmup_steps=0.1,
                logging_steps=1,
                save_strategy="no",
                disable_tqdm=True,
                seed=seed,
                **{**trainer_hardware(), "bf16": False, "fp16": True},
            ),
            train_dataset=Dataset.from_list([{"messages": row["messages"]} for row in rows]),
            processing_class=tokenizer,
            peft_config=lora_config(),
            callbacks=[stop_on_bad_loss()],
        )
        adapters_to_fp32(trainer.model)
        if cuda:
            torch.cuda.reset_peak_memory_stats()
        result = trainer.train()
        peak = torch.cuda.max_memory_allocated() if cuda else None  # the last line that needs the GPU
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    length = longest(trainer.train_dataset)
    sizes = dict(sequence_length=length, batch_size=recipe["batch_size"], optimizer_bytes=2 if cuda else 8)
    predicted = plan(config, "nf4", r=16, checkpointing=trainer.args.gradient_checkpointing, **sizes)
    return {
        "seconds": round(result.metrics["train_runtime"], 1),
        "seconds_per_step": round(result.metrics["train_runtime"] / steps, 3),
        "seconds_writing_and_loading": [round(written - started, 1), round(loaded - written, 1)],
        "peak_bytes": peak,
        "predicted_bytes": round(sum(predicted.values())),
        "predicted_parts": {part: round(value) for part, value in predicted.items()},
        "loss_first_and_last_5": [round(sum(part) / len(part), 4) for part in (losses[:5], losses[-5:])],
        "longest_row_tokens": length,
        "optimizer": str(trainer.args.optim),
        "trained_dtypes": sorted({str(p.dtype) for p in trainer.model.parameters() if p.requires_grad}),
    }


def main(arguments: list[str] | None = None) -> Path:
    """Run the check, print the figures and write them to a JSON file named after the GPU; return its path."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiny", action="store_true", help="two small layers, also without a GPU")
    parser.add_argument("--out", type=Path, default=RESULTS)
    wanted = parser.parse_args(arguments)
    import torch

    cuda = torch.cuda.is_available()
    if not cuda and not wanted.tiny:
        sys.exit("gpu_check needs a CUDA GPU and torch sees none: run it on Colab (T4), or --tiny to check the script")
    gpu = torch.cuda.get_device_name() if cuda else "CPU"
    recipe = TINY_RECIPE if wanted.tiny else T4_RECIPE
    report = dict(date=datetime.date.today().isoformat(), gpu=gpu, seed=wanted.seed, steps=wanted.steps, recipe=recipe)
    report |= dict(
        versions={name: importlib.metadata.version(name) for name in PACKAGES}, cuda=torch.version.cuda, models={}
    )
    for name in ("tiny",) if wanted.tiny else wanted.models:
        figures = train(TINY if wanted.tiny else FAMILIES[name], recipe, wanted.steps, wanted.seed)
        report["models"][name] = figures
        peak = (
            "not measured without CUDA" if figures["peak_bytes"] is None else f"{figures['peak_bytes'] / 2**30:.2f} GiB"
        )
        first, last = figures["loss_first_and_last_5"]
        print(
            f"{name} on {gpu}: {wanted.steps} steps in {figures['seconds']} s, loss {first:.3f} -> {last:.3f}, "
            f"peak {peak}, planner {figures['predicted_bytes'] / 2**30:.2f} GiB"
        )
    wanted.out.mkdir(parents=True, exist_ok=True)
    label = re.sub(r"[^a-z0-9]+", "-", gpu.lower()).strip("-") + ("-tiny" if wanted.tiny else "")
    path = wanted.out / f"gpu_check-{label}.json"
    path.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"wrote {path}")
    return path


if __name__ == "__main__":
    main()
