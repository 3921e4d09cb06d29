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
