"""The course's recipe: the cells of notebook 7.6 themselves, from the LoRA configuration to the trainer.

Set for measuring: data, paths, seed, ten saves (all kept), no evaluation and no drawing while training.
Usage: python -m benchmarks.contestants.course MODEL DATA OUTPUT SEED
"""

import json
import sys
from pathlib import Path

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks" / "7.6_medical_consultation_bot.ipynb"


def recipe_cells() -> list[str]:
    """Return the code cells of 7.6 that set up training: imports, LoRA, the loss, the trainer.

    Raises ValueError when the notebook has no cell, or several cells, with one of the lines looked for.
    """
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    chosen = []
    for line in ("run = run_size(", "peft_config = ", "class DoctorTrainer(", "training_args = SFTConfig("):
        found = [s for s in sources if any(row.startswith(line) for row in s.splitlines())]
        if len(found) != 1:
            raise ValueError(f"{NOTEBOOK.name}: {len(found)} cells have a line that starts with {line!r}, 1 is needed")
        chosen += [found[0]] if found[0] not in chosen else []
    return chosen


def build_trainer(model_id: str, messages: list, output: str, config: dict, lora: dict | None = None, **changes):
    """Return the trainer that the cells of 7.6 build for ``messages`` (a list of conversations).

    ``config`` overrides settings of the cells' SFTConfig, ``lora`` arguments of ``lora_config``. ``changes``:
    ``precision`` of the base model, ``loss`` = "trl" (SFTTrainer's own) or "full" (logits for every position).
    """
    from datasets import Dataset
    from transformers import Trainer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class FullLogits(SFTTrainer):
        compute_loss = Trainer.compute_loss

    from helpers.lora import lora_config

    imports, *setup, trainer_cell = recipe_cells()
    names = {}
    exec(imports, names)
    run = names["run"]
    names["folder"] = Path(output)
    names["live_loss"] = TrainerCallback  # one that does nothing
    names["SFTConfig"] = lambda **settings: SFTConfig(**settings | config)
    names["lora_config"] = lambda **settings: lora_config(**settings | (lora or {}))
    names["tokenizer"] = names["set_chat_template"](names["load_tokenizer"](model_id))
    names["model"] = names["load_model"](model_id, changes.get("precision", run.precision))
    names["train_dataset"] = names["live_dataset"] = Dataset.from_list([{"messages": m} for m in messages])
    for cell in setup:
        exec(cell, names)
    if "loss" in changes:
        names["DoctorTrainer"] = {"trl": SFTTrainer, "full": FullLogits}[changes["loss"]]
    exec(trainer_cell, names)
    return names["trainer"]


if __name__ == "__main__":
    model_id, data, output, seed = sys.argv[1:]
    rows = [json.loads(line)["messages"] for line in Path(data).read_text(encoding="utf-8").splitlines()]
    for_measuring = dict(output_dir=output, seed=int(seed), eval_strategy="no", save_steps=0.1, save_total_limit=None)
    build_trainer(model_id, rows, output, for_measuring).train()
