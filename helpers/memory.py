"""How much GPU memory a run needs, by part, before anything is loaded; and the sizes of the model families."""

# sizes from each model's public config.json; llama, qwen2, qwen3, mistral and mixtral are transformers' names
_COLUMNS = ("model_type", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")
_COLUMNS += ("num_key_value_heads", "head_dim", "vocab_size", "tie_word_embeddings")
_ROWS = {
    "SmolLM2-135M": ("llama", 576, 1536, 30, 9, 3, 64, 49152, True),
    "Llama-3.2-1B": ("llama", 2048, 8192, 16, 32, 8, 64, 128256, True),
    "Llama-3.2-3B": ("llama", 3072, 8192, 28, 24, 8, 128, 128256, True),
    "Llama-3.1-8B": ("llama", 4096, 14336, 32, 32, 8, 128, 128256, False),
    "Llama-3.1-70B": ("llama", 8192, 28672, 80, 64, 8, 128, 128256, False),
    "Llama-3.1-405B": ("llama", 16384, 53248, 126, 128, 8, 128, 128256, False),
    "Qwen2.5-0.5B": ("qwen2", 896, 4864, 24, 14, 2, 64, 151936, True),
    "Qwen2.5-1.5B": ("qwen2", 1536, 8960, 28, 12, 2, 128, 151936, True),
    "Qwen2.5-3B": ("qwen2", 2048, 11008, 36, 16, 2, 128, 151936, True),
    "Qwen2.5-7B": ("qwen2", 3584, 18944, 28, 28, 4, 128, 152064, False),
    "Qwen2.5-14B": ("qwen2", 5120, 13824, 48, 40, 8, 128, 152064, False),
    "Qwen2.5-32B": ("qwen2", 5120, 27648, 64, 40, 8, 128, 152064, False),
    "Qwen2.5-72B": ("qwen2", 8192, 29568, 80, 64, 8, 128, 152064, False),
    "Qwen3-0.6B": ("qwen3", 1024, 3072, 28, 16, 8, 128, 151936, True),
    "Qwen3-1.7B": ("qwen3", 2048, 6144, 28, 16, 8, 128, 151936, True),
    "Qwen3-4B": ("qwen3", 2560, 9728, 36, 32, 8, 128, 151936, True),
    "Qwen3-8B": ("qwen3", 4096, 12288, 36, 32, 8, 128, 151936, False),
    "Qwen3-14B": ("qwen3", 5120, 17408, 40, 40, 8, 128, 151936, False),
    "Qwen3-32B": ("qwen3", 5120, 25600, 64, 64, 8, 128, 151936, False),
    "Mistral-7B-v0.3": ("mistral", 4096, 14336, 32, 32, 8, 128, 32768, False),
    "Mistral-Nemo-12B": ("mistral", 5120, 14336, 40, 32, 8, 128, 131072, False),
    "Mistral-Small-24B": ("mistral", 5120, 32768, 40, 32, 8, 128, 131072, False),
    "Mixtral-8x7B": ("mixtral", 4096, 14336, 32, 32, 8, 128, 32000, False),
    "Mixtral-8x22B": ("mixtral", 6144, 16384, 56, 48, 8, 128, 32768, False),
}
FAMILIES = {name: dict(zip(_COLUMNS, row, strict=True)) for name, row in _ROWS.items()}

T4 = 14.7 * 2**30  # bytes that a program can use on a Colab T4 (16 GB card); the unit below is GiB = 2**30 bytes
BITS = {"fp32": 32, "bf16": 16, "fp16": 16, "int8": 8, "nf4": 4}


def empty_model(config):
    """Return the model of ``config`` (a transformers config or a dict as in FAMILIES) without any weights.

    The layers are built on torch's ``meta`` device: names, shapes and types are real, the numbers are not there.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    if isinstance(config, dict):
        config = AutoConfig.for_model(**config)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=torch.float32)


def parameter_counts(config) -> dict[str, int]:
    """Return how many numbers the model has: ``linear`` (what is quantized), ``rest``, ``linear_rows``.

    ``linear`` is every linear layer but the output head (a mixture's experts included); ``rest`` is embeddings,
    output head, norms, biases; ``linear_rows`` counts output rows (int8 keeps one fp32 scale for each).
    """
    import torch

    model = empty_model(config)
    head = model.get_output_embeddings()
    layers = [m.weight for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    layers += [p for name, p in model.named_parameters() if ".experts." in name and p.dim() == 3]
    linear = sum(weight.numel() for weight in layers)
    rows = sum(weight.numel() // weight.shape[-1] for weight in layers)
    return {"linear": linear, "rest": sum(p.numel() for p in model.parameters()) - linear, "linear_rows": rows}


def weight_bytes(config, precision: str, double_quant: bool = True, rest_bytes: int = 2) -> float:
    """Return the bytes of the weights; the parts that are not quantized take ``rest_bytes`` per number.

    nf4: 4 bits and one fp32 scale per block of 64 (0.5 bit per number); double quantization stores the scales
    in 8 bits with one fp32 scale per 256 of them, 0.127 bit per number (QLoRA, arXiv 2305.14314, section 3).
    Raises ValueError for an unknown precision.
    """
    if precision not in BITS:
        raise ValueError(f"unknown precision {precision!r}: use one of {', '.join(BITS)}")
    counts = parameter_counts(config)
    if precision in ("fp32", "bf16", "fp16"):
        return (counts["linear"] + counts["rest"]) * BITS[precision] / 8
    if precision == "int8":
        return counts["linear"] + 4 * counts["linear_rows"] + counts["rest"] * rest_bytes
    scale_bits = (8 + 32 / 256) / 64 if double_quant else 32 / 64
    return counts["linear"] * (4 + scale_bits) / 8 + counts["rest"] * rest_bytes


def plan(
    config,
    precision: str = "nf4",
    r: int | None = 16,
    sequence_length: int = 2048,
    batch_size: int = 1,
    checkpointing: bool = True,
    training: bool = True,
    compute_bytes: int = 2,
    optimizer_bytes: int = 8,
) -> dict[str, float]:
    """Return the peak memory of a run in bytes by part; the sum of the values is the whole.

    ``config``: a transformers config or a dict as in FAMILIES. ``r``: LoRA rank on all linear layers, None for
    full fine-tuning. ``batch_size`` is per device; gradient accumulation does not change the peak.
    ``checkpointing``: keep only each layer's input and recompute the rest. ``training=False``: inference with a
    key-value cache. ``compute_bytes``: bytes of an activation (2: fp16/bf16, 4: fp32). ``optimizer_bytes`` per
    trained number: 8 for AdamW (two fp32 states), 2 for 8-bit AdamW.
    Not included: the CUDA context (0.3 to 0.5 GiB) and the allocator's gaps.
    """
    from helpers.lora import lora_parameter_count

    model = empty_model(config)
    c = model.config
    head_dim = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    queries = c.num_attention_heads * head_dim
    keys_values = 2 * (getattr(c, "num_key_value_heads", None) or c.num_attention_heads) * head_dim
    wide = getattr(c, "intermediate_size", None) or c.ffn_dim  # OPT's name; its MLP has no gate and keeps less
    tokens = batch_size * sequence_length
    parts = {"weights": weight_bytes(config, precision, rest_bytes=compute_bytes)}
    if not training:
        parts["cache"] = tokens * c.num_hidden_layers * keys_values * compute_bytes
        return parts
    trained = lora_parameter_count(model, r) if r else sum(p.numel() for p in model.parameters())
    if r:
        parts["adapter"] = trained * 4  # the adapter is trained in fp32
    parts["gradients"] = trained * 4
    parts["optimizer"] = trained * optimizer_bytes
    # what autograd keeps of one layer per token: the inputs of two norms (in fp32) and their outputs, queries three
    # times (rotated, attention's output and its copy), keys, values, and gate, up, silu(gate) and their product
    one_layer = 2 * c.hidden_size * 4 + compute_bytes * (2 * c.hidden_size + 3 * queries + keys_values + 4 * wide)
    inputs = c.num_hidden_layers * c.hidden_size * compute_bytes
    parts["activations"] = tokens * (inputs + one_layer if checkpointing else c.num_hidden_layers * one_layer)
    parts["logits"] = tokens * c.vocab_size * (compute_bytes + 4 + 4)  # logits, their fp32 copy, its gradient
    return parts
