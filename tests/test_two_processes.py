"""The recipe that 7.6 writes trains on two processes as on one: `trl sft` under torchrun, same losses at equal batch.

`accelerate launch --cpu --num_processes 2` silently runs one process; here the number of steps proves two.
"""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROWS, BATCH = 8, 2  # rows in all, rows of a step in all


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    """Return the folder where the notebook's own cell wrote sft.yaml, for the first two layers of the real model."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM

    from helpers.datasets import bundled
    from helpers.formatting import set_chat_template
    from helpers.models import SMOLLM2, load_tokenizer, model_path

    folder = tmp_path_factory.mktemp("sft")
    tokenizer = set_chat_template(load_tokenizer(SMOLLM2))
    small = AutoModelForCausalLM.from_pretrained(model_path(SMOLLM2), num_hidden_layers=2)
    small.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    notebook = json.loads((ROOT / "notebooks" / "7.6_medical_consultation_bot.ipynb").read_text(encoding="utf-8"))
    cell = next(text for c in notebook["cells"] if "yaml.safe_dump" in (text := "".join(c["source"])))
    rows = [{"messages": row["messages"][:2]} for row in bundled("consultations")[:ROWS]]
    known = dict(
        folder=folder,
        tokenizer=tokenizer,
        train_dataset=Dataset.from_list(rows),
        model_id=str(folder / "model"),
        run=SimpleNamespace(max_length=256, batch_size=BATCH, learning_rate=1e-3),
    )
    exec(cell, known)
    return folder


def train(recipe, processes):
    """Return the state that `trl sft` leaves behind after one epoch on ``processes`` processes."""
    out = recipe / f"run-{processes}"
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    overrides = ["--use_cpu", "--bf16", "False", "--num_train_epochs", "1", "--logging_steps", "1"]
    overrides += ["--per_device_train_batch_size", str(BATCH // processes), "--output_dir", str(out)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, *launch, "-m", "trl.scripts.sft", "--config", str(recipe / "sft.yaml"), *overrides]
    log = recipe / f"run-{processes}.log"
    with open(log, "w", encoding="utf-8") as file:
        child = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file, start_new_session=True)
    try:
        deadline = time.monotonic() + 240
        while child.poll() is None and not (out / "adapter_model.safetensors").is_file():
            assert time.monotonic() < deadline, log.read_text(encoding="utf-8")[-3000:]
            time.sleep(0.5)
        # The model is saved last. After that a process can hang in torch's ~ProcessGroupGloo (seen with 2.13: `trl sft`
        # ends without destroy_process_group), so the end is not waited for longer than this.
        with suppress(subprocess.TimeoutExpired):
            assert child.wait(20) == 0, log.read_text(encoding="utf-8")[-3000:]
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)  # torchrun passes it on to what it started
        child.wait(60)
    states = sorted(out.glob("checkpoint-*/trainer_state.json"))
    return json.loads(states[-1].read_text(encoding="utf-8"))


def test_two_processes_train_as_one(recipe):
    one, two = train(recipe, 1), train(recipe, 2)
    assert one["train_batch_size"] == BATCH and two["train_batch_size"] == BATCH // 2  # rows of one process
    assert one["max_steps"] == two["max_steps"] == ROWS // BATCH  # with one process the second would need twice as many
    losses = [[entry["loss"] for entry in state["log_history"] if "loss" in entry] for state in (one, two)]
    assert len(losses[0]) == ROWS // BATCH
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[0][-1] != losses[0][0]
