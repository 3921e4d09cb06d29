"""The planner against published parameter counts, against real modules and against what autograd really keeps."""

import pytest

from helpers.memory import BITS, FAMILIES, empty_model, parameter_counts, plan, weight_bytes


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("SmolLM2-135M", 134_515_008),
        ("Llama-3.2-1B", 1_235_814_400),
        ("Llama-3.1-8B", 8_030_261_248),
        ("Qwen2.5-0.5B", 494_032_768),
        ("Qwen2.5-7B", 7_615_616_512),
        ("Qwen3-8B", 8_190_735_360),
        ("Mistral-7B-v0.3", 7_248_023_552),
        ("Mixtral-8x7B", 46_702_792_704),
    ],
)
def test_parameter_counts_are_the_published_ones(name, published):
    counts = parameter_counts(FAMILIES[name])
    assert counts["linear"] + counts["rest"] == published


@pytest.mark.parametrize(
    ("name", "r", "count"),
    [("SmolLM2-135M", 8, 2_442_240), ("Llama-3.2-1B", 16, 11_272_192), ("Llama-3.1-8B", 16, 41_943_040)],
)
def test_adapter_counts_are_the_published_ones(name, r, count):
    assert plan(FAMILIES[name], r=r)["adapter"] == count * 4
    assert plan(FAMILIES[name], r=r)["optimizer"] == count * 8


def test_fp16_8b_does_not_fit_a_t4_and_nf4_does():
    """The slide's load: 8B in fp16 needs 16 GB of weights alone."""
    usable = 14.7 * 2**30
    assert weight_bytes(FAMILIES["Llama-3.1-8B"], "fp16") > usable
    assert sum(plan(FAMILIES["Llama-3.1-8B"], "nf4", batch_size=2).values()) < usable


def test_fewer_bits_never_need_more_memory():
    sizes = [weight_bytes(FAMILIES["Llama-3.1-8B"], p) for p in ("fp32", "bf16", "int8", "nf4")]
    assert sizes == sorted(sizes, reverse=True)
    single = weight_bytes(FAMILIES["Llama-3.1-8B"], "nf4", double_quant=False)
    assert sizes[-1] < single < sizes[-2]


def test_unknown_precision_is_named():
    with pytest.raises(ValueError, match="int3.*nf4"):
        weight_bytes(FAMILIES["SmolLM2-135M"], "int3")
    assert "nf4" in BITS


def test_a_transformers_config_and_a_dict_give_the_same():
    config = empty_model(FAMILIES["Qwen2.5-0.5B"]).config
    assert plan(config) == plan(FAMILIES["Qwen2.5-0.5B"])


def test_inference_has_a_cache_and_no_optimizer():
    parts = plan(FAMILIES["Llama-3.1-8B"], training=False, sequence_length=8192)
    assert parts["cache"] == 8192 * 32 * 2 * 8 * 128 * 2  # tokens, layers, keys and values, heads, head size, bytes
    assert "optimizer" not in parts


@pytest.fixture(scope="module")
def trained():
    """A small real model with a rank-4 adapter, one step of AdamW taken, and what autograd kept for it."""
    import torch
    from peft import get_peft_model
    from transformers import AutoConfig, AutoModelForCausalLM

    from helpers.lora import lora_config

    sizes = ("llama", 128, 320, 3, 4, 2, 32, 64, False)
    config = AutoConfig.for_model(**dict(zip(FAMILIES["SmolLM2-135M"], sizes, strict=True)))
    model = get_peft_model(AutoModelForCausalLM.from_config(config, dtype=torch.float32), lora_config(4))
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept = {}

    def remember(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    adapter = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(adapter)
    ids = torch.zeros((1, 256), dtype=torch.long)
    with torch.autograd.graph.saved_tensors_hooks(remember, lambda tensor: tensor):
        loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    optimizer.step()
    return config, {
        "weights": sum(p.nbytes for p in model.parameters() if not p.requires_grad),
        "adapter": sum(p.nbytes for p in adapter),
        "gradients": sum(p.grad.nbytes for p in adapter),
        "optimizer": sum(t.nbytes for state in optimizer.state.values() for t in state.values()),
        "activations": sum(size for pointer, size in kept.items() if pointer not in own),
    }


@pytest.mark.parametrize(
    ("part", "tolerance"),
    [("weights", 0.05), ("adapter", 0.05), ("gradients", 0.05), ("optimizer", 0.05), ("activations", 0.25)],
)
def test_parts_agree_with_a_real_training_step(trained, part, tolerance):
    config, measured = trained
    predicted = plan(config, "fp32", r=4, sequence_length=256, checkpointing=False, compute_bytes=4)
    assert predicted[part] == pytest.approx(measured[part], rel=tolerance)


@pytest.mark.parametrize("double_quant", [False, True])
def test_nf4_bytes_are_what_bitsandbytes_stores(double_quant):
    import torch
    from bitsandbytes.functional import quantize_4bit

    sizes = ("llama", 1024, 2048, 1, 16, 16, 64, 64, False)
    config = dict(zip(FAMILIES["SmolLM2-135M"], sizes, strict=True))
    stored = 0
    for rows, columns in [(1024, 1024)] * 4 + [(2048, 1024)] * 2 + [(1024, 2048)]:
        options = dict(quant_type="nf4", blocksize=64, compress_statistics=double_quant)
        packed, state = quantize_4bit(torch.randn(rows, columns), **options)
        stored += packed.nbytes + state.absmax.nbytes + (state.state2.absmax.nbytes if state.nested else 0)
    rest = parameter_counts(config)["rest"] * 2
    assert weight_bytes(config, "nf4", double_quant=double_quant) - rest == pytest.approx(stored, rel=0.001)
