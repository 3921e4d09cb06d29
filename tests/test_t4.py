"""The contract with a free Colab T4, up to the last line that needs the card: fp16 everywhere and bf16 nowhere."""

import json
import math

import bitsandbytes
import pytest
import torch
from datasets import Dataset
from test_sizes import gpu
from transformers import AutoModelForCausalLM
from trl import SFTConfig, SFTTrainer

from benchmarks import gpu_check
from helpers import models, sizes
from helpers.datasets import bundled
from helpers.formatting import set_chat_template
from helpers.lora import adapters_to_fp32, lora_config
from helpers.memory import T4, plan
from helpers.training import memory_table

MEMORY = 15360 / 1024  # GiB on the card


@pytest.fixture
def t4(monkeypatch):
    """torch sees a T4, which says of itself that it supports bf16 (it emulates it)."""
    gpu(monkeypatch, "Tesla T4", (7, 5), MEMORY)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    return monkeypatch


def test_size_and_precision(t4, capsys):
    assert sizes.detect_size() == "t4" and sizes.compute_dtype() == torch.float16
    run = sizes.run_size("7.6")
    assert (run.size, run.device, run.dtype, run.precision) == ("t4", "cuda", torch.float16, "nf4")
    assert "Tesla T4" in capsys.readouterr().out
    assert T4 < MEMORY * 2**30  # the planner reckons with what programs really get


def test_load_model_asks_for_nf4_with_fp16_and_sdpa_on_the_card(t4):
    asked = {}

    def from_pretrained(name, **options):
        asked.update(options)
        return torch.nn.Module()

    t4.setattr(AutoModelForCausalLM, "from_pretrained", from_pretrained)
    models.load_model(sizes.SMOLLM2, "nf4")
    quantization = asked["quantization_config"]
    assert quantization.load_in_4bit and quantization.bnb_4bit_quant_type == "nf4"
    assert quantization.bnb_4bit_use_double_quant and quantization.bnb_4bit_compute_dtype == torch.float16
    assert asked["dtype"] == torch.float16 and asked["attn_implementation"] == "sdpa"
    assert asked["device_map"] == {"": 0}


@pytest.fixture
def trainer(t4, tmp_path):
    """7.6's trainer with the settings of a T4 on two layers of the real model in NF4; only the device is the CPU."""
    hardware = sizes.trainer_hardware()
    compute = sizes.compute_dtype()
    t4.undo()
    assert hardware.pop("use_cpu") is False and hardware["dataloader_pin_memory"]
    from_pretrained = AutoModelForCausalLM.from_pretrained
    t4.setattr(AutoModelForCausalLM, "from_pretrained", lambda *a, **k: from_pretrained(*a, num_hidden_layers=2, **k))
    model = models.load_model(sizes.SMOLLM2, "nf4", dtype=compute)
    rows = [{"messages": row["messages"][:2]} for row in bundled("consultations")[:4]]
    return SFTTrainer(
        model,
        args=SFTConfig(
            output_dir=str(tmp_path),
            max_length=64,
            assistant_only_loss=True,
            per_device_train_batch_size=2,
            use_cpu=True,
            **hardware,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=set_chat_template(models.load_tokenizer(sizes.SMOLLM2)),
        peft_config=lora_config(),
    )


def test_no_bf16_in_the_trainer(trainer):
    args = trainer.args
    assert args.fp16 and not args.bf16 and args.mixed_precision == "fp16"
    assert args.gradient_checkpointing and trainer.model.config._attn_implementation == "sdpa"
    layers = [m for m in trainer.model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    assert len(layers) == 14 and {m.compute_dtype for m in layers} == {torch.float16}
    trained = [p for p in trainer.model.parameters() if p.requires_grad]
    assert {p.dtype for p in trained} == {torch.bfloat16}  # what TRL does to the adapters of a quantized model
    assert adapters_to_fp32(trainer.model) == len(trained) == 28
    assert {p.dtype for p in trained} == {torch.float32}
    assert torch.bfloat16 not in {t.dtype for t in (*trainer.model.parameters(), *trainer.model.buffers())}


def test_the_gradient_scaler_takes_the_gradients_of_the_adapters(trainer):
    """fp16 training scales the loss; on CUDA the scaler knows no bf16 gradients (trl issue 4901), so none may arise."""
    adapters_to_fp32(trainer.model)
    loss = trainer.compute_loss(trainer.model, next(iter(trainer.get_train_dataloader())))
    trainer.create_optimizer()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    scaler.scale(loss).backward()
    gradients = {p.grad.dtype for p in trainer.model.parameters() if p.grad is not None}
    assert gradients == {torch.float32}
    scaler.unscale_(trainer.optimizer)
    assert torch.isfinite(loss) and any(
        p.grad.abs().sum() > 0 for p in trainer.model.parameters() if p.grad is not None
    )


def test_optimizer_is_paged_8bit_adamw(trainer):
    adapters_to_fp32(trainer.model)
    optimizer = trainer.create_optimizer()
    assert isinstance(optimizer, bitsandbytes.optim.AdamW)
    assert optimizer.is_paged and optimizer.args.optim_bits == 8
    names = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(names) == 28


def test_the_memory_table_knows_what_the_trainer_is(trainer, monkeypatch):
    asked = []

    def spy(config, precision, **options):
        asked.append((config, precision, options))
        return plan(config, precision, **options)

    monkeypatch.setattr("helpers.memory.plan", spy)
    assert "每次 2 条 × 64 个词元" in memory_table(trainer)
    config, precision, options = asked[0]
    assert (config.num_hidden_layers, precision) == (2, "nf4")
    wanted = dict(r=16, sequence_length=64, batch_size=2, checkpointing=True, compute_bytes=2, optimizer_bytes=2)
    assert options == wanted


def test_gpu_check_refuses_a_machine_without_a_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as refused:
        gpu_check.main([])
    assert "needs a CUDA GPU and torch sees none" in refused.value.code  # a text: the exit status is 1


def test_gpu_check_takes_the_settings_of_7_6(t4):
    run = sizes.run_size("7.6")
    assert gpu_check.T4_RECIPE == {name: getattr(run, name) for name in gpu_check.T4_RECIPE}


def test_gpu_check_runs_on_two_small_layers(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    path = gpu_check.main(["--tiny", "--steps", "2", "--out", str(tmp_path)])
    assert path.name == "gpu_check-cpu-tiny.json"
    report = json.loads(path.read_text(encoding="utf-8"))
    assert {"date", "gpu", "seed", "steps", "recipe", "versions"} <= report.keys()
    figures = report["models"]["tiny"]
    assert figures["trained_dtypes"] == ["torch.float32"] and figures["peak_bytes"] is None
    assert figures["loss_first_and_last_5"][0] == pytest.approx(math.log(49152), abs=0.1)  # an untrained model guesses
    assert figures["longest_row_tokens"] <= 256 and figures["predicted_bytes"] > 0
    assert "tiny on CPU: 2 steps in" in capsys.readouterr().out
