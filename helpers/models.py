"""Finding and loading models: hub, mirror or the offline copy; full, half, 8-bit or 4-bit precision."""

from pathlib import Path

from helpers.offline import build_offline_model, offline_model
from helpers.sizes import SMOLLM2, compute_dtype
from helpers.sources import LIMIT, model_source

PRECISIONS = ("fp32", "bf16", "fp16", "int8", "nf4")


def at_hand(name: str) -> str | None:
    """Return where ``name`` is on this machine (a folder, the offline copy, the hub's cache), or None."""
    from huggingface_hub import try_to_load_from_cache

    if Path(name).is_dir():
        return name
    if name == SMOLLM2 and (built := offline_model()):
        return str(built)
    return name if isinstance(try_to_load_from_cache(name, "config.json"), str) else None


def model_path(name: str) -> str:
    """Return what ``from_pretrained`` needs for ``name``: a folder, or the name itself for the hub and its cache.

    What is at hand is used without asking anybody, else the first of hub, ModelScope and offline copy.
    Set ``HF_ENDPOINT`` (a mirror) before Python starts; it is read when huggingface_hub is imported.
    Raises RuntimeError, saying what to do, when there is no copy and nobody answers.
    """
    if found := at_hand(name):
        return found
    source = model_source()
    if source == "hub":
        return name
    if source == "modelscope":
        from modelscope import snapshot_download

        return snapshot_download(name)
    if name == SMOLLM2:
        return str(build_offline_model())
    raise RuntimeError(
        f"cannot find the model {name!r}: it is no local folder, not in the cache, and the hub does not answer. "
        f"Set HF_ENDPOINT=https://hf-mirror.com before starting Python, or use {SMOLLM2!r}, which needs no hub"
    )


def first_available(name: str, fallback: str | None = None) -> str:
    """Return ``name`` if it may be downloaded, else ``fallback``, printing why (a gated or missing repository)."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import GatedRepoError

    if fallback is None or at_hand(name):
        return name
    if model_source() != "hub":
        print(f"{name} 的许可要在 hub 上查，现在连不上 hub，改用 {fallback}")
        return fallback
    try:
        hf_hub_download(name, "config.json", etag_timeout=LIMIT)  # asks with the token that huggingface_hub finds
    except GatedRepoError:
        print(f"{name} 需要先在它的网页上申请许可，并把 HF_TOKEN 放进环境变量或 Colab 密钥；现在改用 {fallback}")
    except OSError as error:  # every other refusal and network error of huggingface_hub is one
        print(f"{name} 现在下载不了（{type(error).__name__}），改用 {fallback}")
    else:
        return name
    return fallback


def load_tokenizer(name: str):
    """Return the tokenizer of ``name`` with a pad token that is not the stop token.

    If pad and stop token are the same, a collator that masks padding by token id also masks the stop
    token, and the model never learns to stop.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_path(name))
    if tokenizer.pad_token is None or tokenizer.pad_token == tokenizer.eos_token:
        vocabulary = tokenizer.get_vocab()
        spare = ("<|endoftext|>", "<|finetune_right_pad_id|>", "<pad>", tokenizer.unk_token)
        pad = next((t for t in spare if t in vocabulary and t != tokenizer.eos_token), None)
        if pad is None:
            raise ValueError(
                f"{name}: no token to pad with other than the stop token; set tokenizer.pad_token yourself"
            )
        tokenizer.pad_token = pad
    return tokenizer


def load_model(name: str, precision: str = "fp32", dtype=None):
    """Load a causal language model in one of ``PRECISIONS``, on the GPU if there is one.

    ``int8`` is LLM.int8 (arXiv 2208.07339); ``nf4`` is 4-bit NormalFloat with double quantization
    (QLoRA, arXiv 2305.14314), both by bitsandbytes. ``dtype`` is what nf4 and int8 compute in
    (default: :func:`helpers.sizes.compute_dtype`).
    Raises ValueError for an unknown precision, RuntimeError when the model cannot be found.
    """
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}: use one of {', '.join(PRECISIONS)}")
    compute = dtype or compute_dtype()
    options = dict(dtype={"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, compute))
    if precision == "int8":
        options["quantization_config"] = BitsAndBytesConfig(load_in_8bit=True)
    elif precision == "nf4":
        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute,
        )
    if torch.cuda.is_available():
        options["device_map"] = {"": 0}
    model = AutoModelForCausalLM.from_pretrained(model_path(name), attn_implementation="sdpa", **options)
    return keep_gradients_after_evaluation(model)


def keep_gradients_after_evaluation(model):
    """Switch off the AVX512-BF16 repacking of 4-bit layers and return ``model``.

    On CPUs with AVX512-BF16, bitsandbytes repacks ``Linear4bit`` weights at the first forward without
    gradients; a later backward then loses the gradients through these layers, without a warning.
    """
    import bitsandbytes

    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False
    return model


if __name__ == "__main__":
    print(f"model: {model_path(SMOLLM2)}")
