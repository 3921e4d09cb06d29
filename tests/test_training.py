"""What a training run does when the loss is nan or 0, and when memory does not suffice, on a tiny random model."""

import pytest
import torch
from datasets import Dataset
from transformers import LlamaConfig, LlamaForCausalLM, set_seed
from trl import SFTConfig, SFTTrainer

from helpers.lora import lora_config
from helpers.models import load_tokenizer
from helpers.sizes import SMOLLM2, trainer_hardware
from helpers.training import memory_table, stop_on_bad_loss, train_or_shrink

ROWS = [{"input_ids": ids, "labels": ids} for ids in ([100 + (7 * i + j) % 50 for j in range(80)] for i in range(8))]


class Trainer(SFTTrainer):
    """Multiplies the loss by ``factor`` from step ``since`` on; knows how many numbers fit into its memory."""

    factor, since, fits = 1.0, 0, 10**9

    def compute_loss(self, model, inputs, *arguments, **options):
        self.steps = [*getattr(self, "steps", []), self.state.global_step]
        if self.state.global_step >= self.since and inputs["input_ids"].numel() > self.fits:
            raise torch.OutOfMemoryError("CUDA out of memory")
        loss = super().compute_loss(model, inputs, *arguments, **options)
        return loss * self.factor if self.state.global_step >= self.since else loss


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(SMOLLM2)


@pytest.fixture
def build(tokenizer, tmp_path):
    def build(callbacks=(), rows=ROWS, **options):
        set_seed(0)
        config = LlamaConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            vocab_size=256,  # the rows need no more
        )
        settings = dict(per_device_train_batch_size=4, max_length=None, learning_rate=1e-2, logging_steps=1)
        settings |= dict(num_train_epochs=1, save_strategy="no", disable_tqdm=True, output_dir=str(tmp_path / "run"))
        return Trainer(
            LlamaForCausalLM(config),
            args=SFTConfig(**settings | trainer_hardware() | options),
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            peft_config=lora_config(),
            callbacks=list(callbacks),
        )

    return build


def losses(trainer):
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize(
    ("factor", "options", "said"),
    [
        (float("nan"), dict(fp16=True, bf16=False), "第 2 步的损失是 nan，停止训练。多半是 FP16 溢出"),
        (float("inf"), dict(fp16=False), "第 2 步的损失是 inf，停止训练。多半是学习率太大"),
        (0.0, {}, "第 2 步的损失是 0.0，停止训练。多半是没有一个词元有监督"),
    ],
)
def test_a_bad_loss_stops_the_run_and_says_why(build, factor, options, said):
    trainer = build([stop_on_bad_loss()], num_train_epochs=3, **options)
    trainer.factor, trainer.since = factor, 1
    with pytest.raises(RuntimeError, match=said):
        trainer.train()
    assert trainer.state.global_step == 2


def test_without_the_callback_nan_would_be_logged_as_zero(build):
    """Why the callback switches a filter of the Trainer off."""
    trainer = build()
    trainer.factor = float("nan")
    trainer.train()
    assert losses(trainer) == [0.0, 0.0]


def test_a_good_run_is_left_alone(build):
    plain, watched = build(), build([stop_on_bad_loss()])
    plain.train()
    watched.train()
    assert len(losses(plain)) == 2 and losses(plain) == losses(watched)


def test_out_of_memory_is_answered_with_half_the_rows_and_the_same_updates(build, capsys):
    whole, small = build(num_train_epochs=3), build(num_train_epochs=3)
    whole.train()
    small.fits, small.since = 2 * 80, 1  # the second step runs out of memory: the first must not stay in the adapter
    result = train_or_shrink(small)
    assert result.global_step == 6 and small.args.per_device_train_batch_size == 2
    assert losses(small) == pytest.approx(losses(whole), rel=1e-4)
    out = capsys.readouterr().out
    assert "显存不够。每次 4 条 × 80 个词元" in out and "改成每次 2 条、累积 2 次更新一次" in out
    for part in ("weights", "adapter", "gradients", "optimizer", "activations", "logits", "sum"):
        assert f"  {part} " in out


def test_it_goes_on_from_the_newest_checkpoint_of_the_run(build):
    whole = build(num_train_epochs=3)
    whole.train()
    small = build(num_train_epochs=3, save_strategy="steps", save_steps=2)
    small.fits, small.since = 2 * 80, 3
    train_or_shrink(small)
    assert small.steps[:4] == [0, 1, 2, 3] and small.steps[4:] == [2, 2, 3, 3, 4, 4, 5, 5]
    assert losses(small) == pytest.approx(losses(whole), rel=1e-4)


def test_one_row_at_a_time_is_answered_with_half_the_length(build, capsys):
    trainer = build(per_device_train_batch_size=1)
    trainer.fits = 40
    assert train_or_shrink(trainer).global_step == 8
    assert "改成每条至多 40 个词元" in capsys.readouterr().out
    assert {len(row) for row in trainer.train_dataset["input_ids"]} == {40}


@pytest.mark.parametrize(("fits", "rows"), [(2 * 80 - 1, ROWS), (0, [{k: v[:60] for k, v in r.items()} for r in ROWS])])
def test_it_tries_once_and_gives_up_where_nothing_can_be_halved(build, fits, rows):
    trainer = build(rows=rows, per_device_train_batch_size=4 if fits else 1)
    trainer.fits = fits
    with pytest.raises(torch.OutOfMemoryError, match="CUDA out of memory"):
        train_or_shrink(trainer)


def test_the_table_knows_models_that_name_their_sizes_otherwise(build):
    """OPT has neither num_key_value_heads nor intermediate_size; it is the model of 7.3 and 7.4 on a GPU."""
    from transformers import OPTConfig, OPTForCausalLM

    trainer = build()
    trainer.model = OPTForCausalLM(OPTConfig(hidden_size=16, ffn_dim=32, num_hidden_layers=1, num_attention_heads=2))
    assert "显存不够。每次 4 条 × 80 个词元" in memory_table(trainer)
