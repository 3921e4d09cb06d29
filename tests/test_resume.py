"""A training killed with SIGKILL goes on from its newest whole checkpoint as if nothing had happened.

Guards against what free Colab users meet (unsloth issue 99): the session ends in the middle of a run, often
in the middle of writing a checkpoint, and everything starts over, or a broken checkpoint stops the restart.
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.checkpoints import newest_checkpoint, resume_point

ROOT = Path(__file__).resolve().parent.parent

# Real weights (the first two layers of SmolLM2 in NF4), real LoRA with dropout, the settings of 7.6.
# `kill` 5: the process kills itself after step 5. `kill` 6: after the optimizer of checkpoint-6 is written,
# before its trainer_state.json.
TRAINING = """
import os, signal, sys
import torch
torch.set_num_threads(1)
from datasets import Dataset
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TrainerCallback, set_seed
from trl import SFTConfig, SFTTrainer
from helpers.checkpoints import resume_point
from helpers.datasets import bundled
from helpers.formatting import set_chat_template
from helpers.lora import adapters_to_fp32, lora_config
from helpers.models import SMOLLM2, keep_gradients_after_evaluation, load_tokenizer, model_path
from helpers.sizes import trainer_hardware

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

class Kill(TrainerCallback):
    def on_step_end(self, args, state, control, **_):
        if kill == 5 and state.global_step == 5:
            die()
        if kill == 6 and state.global_step == 6:
            trainer._save_rng_state = die

def train(folder):
    global trainer
    set_seed(0)
    tokenizer = set_chat_template(load_tokenizer(SMOLLM2))
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    model = AutoModelForCausalLM.from_pretrained(
        model_path(SMOLLM2), num_hidden_layers=2, dtype=torch.float32, quantization_config=nf4)
    rows = [{"messages": row["messages"][:2]} for row in bundled("consultations")[:16]]
    config = SFTConfig(
        output_dir=folder, max_length=96, assistant_only_loss=True, per_device_train_batch_size=2, max_steps=8,
        learning_rate=1e-3, logging_steps=1, save_steps=2, eval_strategy="steps", eval_steps=4,
        disable_tqdm=True, **trainer_hardware())
    trainer = SFTTrainer(
        keep_gradients_after_evaluation(model), args=config, train_dataset=Dataset.from_list(rows[:12]),
        eval_dataset=Dataset.from_list(rows[12:]), processing_class=tokenizer, peft_config=lora_config(dropout=0.05),
        callbacks=[Kill()])
    adapters_to_fp32(trainer.model)
    trainer.train(resume_from_checkpoint=resume_point(folder, {"rows": 12}))

folder, kill = sys.argv[1], int(sys.argv[2])
train(folder)
"""
RUNS = (("whole", 0), ("after", 5), ("after", 0), ("saving", 6), ("saving", 0))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run ``RUNS`` one after the other; return their folder and what they printed."""
    folder = tmp_path_factory.mktemp("resume")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TOKENIZERS_PARALLELISM": "false"}
    printed = ""
    for name, kill in RUNS:
        command = [sys.executable, "-c", TRAINING, name, str(kill)]
        run = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)
        expected = -signal.SIGKILL if kill else 0
        assert run.returncode == expected, f"{name} {kill}: {run.returncode}\n{run.stdout}{run.stderr[-3000:]}"
        printed += run.stdout
    return folder, printed


def losses(folder):
    state = json.loads((newest_checkpoint(folder) / "trainer_state.json").read_text())
    return {(k, e["step"]): e[k] for e in state["log_history"] for k in ("loss", "eval_loss") if k in e}


@pytest.mark.parametrize("name", ["after", "saving"])
def test_killed_run_ends_with_the_losses_of_the_uninterrupted_one(runs, name):
    folder, _ = runs
    expected, got = losses(folder / "whole"), losses(folder / name)
    assert len(expected) == 8 + 2 and got.keys() == expected.keys()
    assert max(abs(got[key] - expected[key]) for key in expected) < 1e-3


def test_it_resumed_and_skipped_the_half_written_checkpoint(runs):
    _, stdout = runs
    assert "跳过 checkpoint-6：trainer_state.json 没有写完" in stdout
    assert stdout.count("从 checkpoint-4 开始") == 2


@pytest.mark.parametrize("name", ["optimizer.pt", "adapter_model.safetensors", "scheduler.pt", "trainer_state.json"])
def test_a_cut_off_file_is_found(runs, name):
    folder, _ = runs
    newest = newest_checkpoint(folder / "whole")
    whole = (newest / name).read_bytes()
    try:
        (newest / name).write_bytes(whole[: len(whole) // 2])
        assert newest_checkpoint(folder / "whole") != newest
        (newest / name).unlink()
        assert newest_checkpoint(folder / "whole") != newest
    finally:
        (newest / name).write_bytes(whole)
    assert newest_checkpoint(folder / "whole") == newest


def test_nothing_older_is_overwritten_without_a_word(runs, capsys):
    folder, _ = runs
    before = sorted(p.name for p in (folder / "whole").iterdir())
    assert resume_point(folder / "whole", {"rows": 12}) is None  # finished: a new run begins
    assert sorted(p.name for p in (folder / "whole-previous").iterdir()) == before
    assert "已经训练完，移到 whole-previous" in capsys.readouterr().out
    (newest_checkpoint(folder / "after")).rename(folder / "after" / "elsewhere")  # as if killed before the end
    assert resume_point(folder / "after", {"rows": 13}) is None  # other settings: not the same run
    assert "设置变了（rows），移到 after-previous" in capsys.readouterr().out
