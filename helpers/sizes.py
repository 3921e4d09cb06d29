"""Run sizes: how many rows, steps and minutes each notebook takes on which machine.

This is the only place with numbers that depend on hardware. A notebook calls :func:`run_size`
once and reads everything from the answer.
"""

import os
from types import SimpleNamespace

SMOLLM2 = "HuggingFaceTB/SmolLM2-135M-Instruct"
OPT = "facebook/opt-350m"  # the slides' model in 7.3 and 7.4
QWEN = "Qwen/Qwen2.5-0.5B-Instruct"
MEDICAL = "meta-llama/Llama-3.2-1B-Instruct"  # gated: models.first_available() falls back to the next line
MEDICAL_UNGATED = "Qwen/Qwen2.5-1.5B-Instruct"
MEDICAL_8B = "meta-llama/Llama-3.1-8B-Instruct"

SIZES = ("smoke", "cpu", "t4", "gpu")
SECTIONS = ("7.1", "7.2", "7.3", "7.4", "7.5", "7.6")

# size -> what holds for all sections; then section -> what differs there (gpu: from t4)
_COMMON = {
    "smoke": dict(model=SMOLLM2, hub_data=False, rows=8, eval_rows=4, batch_size=4, max_length=128, epochs=1),
    "cpu": dict(model=SMOLLM2, hub_data=False, rows=64, eval_rows=24, batch_size=4, max_length=256, epochs=1),
    "t4": dict(model=QWEN, hub_data=True, rows=2000, eval_rows=200, batch_size=8, max_length=1024, epochs=1),
    "gpu": dict(model=QWEN, hub_data=True, rows=8000, eval_rows=400, batch_size=16, max_length=2048, epochs=1),
}
_SECTION = {
    "smoke": {
        "7.1": dict(
            departments=4,
            max_characters=24,
            neighbours=1,
            learning_rate=3e-3,
            rows=8,
            eval_rows=4,
            batch_size=8,
            head_layers=2,
            head_learning_rate=5e-4,
            head_epochs=1,
            replies=2,
        ),
        "7.2": dict(
            text_tokens=64,
            row_tokens=32,
            slow_tokens=2,
            decode_tokens=2,
            rows=2,
            eval_rows=2,
            batch_size=2,
            steps=1,
            seeds=1,
            ranks=(1, 8),
            complaint=6,
        ),
        "7.3": dict(
            rows=2,
            eval_rows=3,
            batch_size=2,
            max_length=120,
            new_tokens=8,
            side_rows=2,
            speed_rows=1,
            speed_rounds=1,
        ),
        "7.4": dict(rows=4, eval_rows=8, batch_size=2, loss_rows=3, replies=2, new_tokens=12, reply_batch=2, seeds=1),
        "7.5": dict(rows=4, batch_size=1, max_length=384, replies=2, reply_batch=2, new_tokens=12, turn_tokens=6),
        "7.6": dict(
            pool=0,  # rows asked from the hub before cleaning; here none
            rows=4,
            eval_rows=4,
            batch_size=2,
            max_length=256,
            replies=2,
            complaints=1,
            new_tokens=8,
            reply_batch=4,
            eval_batch=8,
            precision="nf4",
            merge_precision="fp32",
            turns=1,
            live_eval_rows=2,
            learning_rate=1e-3,
            save_steps=1,
            facts=1,
            rag_rows=2,
            general=2,
            general_tokens=4,
            safety=1,
            safety_tokens=8,
        ),
    },
    "cpu": {
        "7.1": dict(
            departments=4,
            max_characters=40,
            neighbours=2,
            learning_rate=3e-3,
            rows=240,
            eval_rows=150,
            batch_size=8,
            epochs=2,
            head_layers=4,
            head_learning_rate=5e-4,
            head_epochs=3,
            replies=8,
        ),
        "7.2": dict(
            text_tokens=640,
            row_tokens=80,
            slow_tokens=4,
            decode_tokens=8,
            rows=24,
            eval_rows=16,
            batch_size=4,
            steps=6,
            seeds=2,
            ranks=(1, 8, 64),
            complaint=8,
        ),
        "7.3": dict(rows=24, eval_rows=16, max_length=160, new_tokens=40, side_rows=12, speed_rows=4, speed_rounds=2),
        "7.4": dict(rows=12, eval_rows=60, loss_rows=12, replies=12, new_tokens=48, reply_batch=12, seeds=2),
        "7.5": dict(
            rows=10,
            eval_rows=10,
            batch_size=1,
            max_length=512,
            replies=8,
            reply_batch=8,
            new_tokens=80,
            turn_tokens=24,
        ),
        "7.6": dict(
            pool=0,
            rows=120,
            eval_rows=100,
            batch_size=2,
            max_length=256,
            replies=48,
            complaints=24,
            new_tokens=160,
            reply_batch=48,
            eval_batch=8,
            precision="nf4",
            merge_precision="fp32",
            turns=1,
            live_eval_rows=8,
            learning_rate=1e-3,
            save_steps=20,
            facts=6,
            rag_rows=16,
            general=100,
            general_tokens=10,
            safety=20,
            safety_tokens=32,
        ),
    },
    "t4": {
        "7.1": dict(
            departments=16,
            max_characters=200,
            neighbours=4,
            learning_rate=2e-4,
            rows=1000,
            eval_rows=250,
            batch_size=16,
            epochs=3,
            head_layers=12,
            head_learning_rate=5e-5,
            head_epochs=2,
            replies=32,
        ),
        "7.2": dict(
            text_tokens=16384,
            row_tokens=512,
            slow_tokens=64,
            decode_tokens=64,
            rows=480,
            eval_rows=200,
            batch_size=8,
            steps=60,
            seeds=2,
            ranks=(1, 2, 8, 64),
            complaint=60,
        ),
        "7.3": dict(model=OPT, new_tokens=60, side_rows=100, speed_rows=64, speed_rounds=3),
        "7.4": dict(model=OPT, max_length=512, loss_rows=200, replies=64, new_tokens=128, reply_batch=32, seeds=2),
        "7.5": dict(rows=400, eval_rows=100, batch_size=2, replies=32, reply_batch=16, new_tokens=256, turn_tokens=64),
        "7.6": dict(
            model=MEDICAL,
            fallback=MEDICAL_UNGATED,
            pool=2500,
            rows=1500,
            eval_rows=200,
            batch_size=4,
            max_length=768,
            replies=100,
            complaints=30,
            new_tokens=256,
            reply_batch=20,
            eval_batch=8,
            precision="nf4",
            merge_precision="fp32",
            turns=8,
            live_eval_rows=50,
            learning_rate=2e-4,
            save_steps=50,
            facts=6,
            rag_rows=50,
            general=100,
            general_tokens=24,
            safety=60,
            safety_tokens=128,
        ),
    },
    "gpu": {
        "7.1": dict(neighbours=8),
        "7.2": dict(
            rows=960,
            eval_rows=256,
            text_tokens=65536,
            row_tokens=1024,
            slow_tokens=128,
            decode_tokens=128,
            steps=120,
            seeds=3,
        ),
        "7.5": dict(rows=2000, eval_rows=400, batch_size=8, replies=64, reply_batch=32),
        "7.6": dict(
            model=MEDICAL_8B,
            rows=3000,
            eval_rows=300,
            batch_size=8,
            max_length=1024,
            pool=4500,
            reply_batch=50,
            merge_precision="bf16",
            live_eval_rows=100,
            rag_rows=100,
        ),
    },
}
# expected minutes per section; smoke and cpu measured on 2 cores, t4 and gpu are budgets (README says so)
_MINUTES = {
    "smoke": dict.fromkeys(SECTIONS, 1),
    "cpu": {"7.1": 6, "7.2": 5, "7.3": 3, "7.4": 3, "7.5": 3, "7.6": 12},
    "t4": {**dict.fromkeys(SECTIONS, 10), "7.6": 30},
    "gpu": {**dict.fromkeys(SECTIONS, 10), "7.6": 30},
}


def detect_size() -> str:
    """Return the run size for this machine: ``COURSE_SIZE`` if set, else by GPU memory and generation.

    Raises ValueError when ``COURSE_SIZE`` names no known size.
    """
    wanted = os.environ.get("COURSE_SIZE", "").strip().lower()
    if wanted:
        if wanted not in SIZES:
            raise ValueError(f"COURSE_SIZE={wanted!r} is unknown: use one of {', '.join(SIZES)}, or unset it")
        return wanted
    import torch

    if not torch.cuda.is_available():
        return "cpu"
    properties = torch.cuda.get_device_properties(0)
    large = properties.total_memory >= 22 * 2**30 and (properties.major, properties.minor) >= (8, 0)
    return "gpu" if large else "t4"


def compute_dtype():
    """Return the torch dtype to compute in on this machine.

    CUDA: bfloat16 from compute capability 8.0 (Ampere) on, else float16. ``is_bf16_supported()`` does not
    decide here: it is True on a T4 through emulation. CPU: bfloat16 where the processor multiplies it
    (AVX512-BF16 or AMX), else float32.
    """
    import torch

    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.get_device_capability() >= (8, 0) else torch.float16
    capabilities = torch.cpu.get_capabilities()
    return torch.bfloat16 if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else torch.float32


def trainer_hardware() -> dict:
    """Return the SFTConfig settings that follow from the machine, not from the lesson.

    ``bf16`` must be set either way: TRL turns it on by default, which fails on a T4 and on most CPUs.
    Activation checkpointing (recompute activations in the backward pass: less memory, more time) is on
    where GPU memory is scarce; transformers called it gradient_checkpointing before 5.16. Paged 8-bit AdamW
    keeps its states in 2 bytes per trained number and moves them to main memory when the GPU is full (QLoRA,
    arXiv 2305.14314, section 3).
    """
    import torch
    from trl import SFTConfig

    cuda = torch.cuda.is_available()
    new = "activation_checkpointing" in SFTConfig.__dataclass_fields__
    return {
        "use_cpu": not cuda,
        "bf16": compute_dtype() == torch.bfloat16,
        "fp16": compute_dtype() == torch.float16,
        "activation_checkpointing" if new else "gradient_checkpointing": cuda,
        "optim": "paged_adamw_8bit" if cuda else "adamw_torch_fused",
        "dataloader_pin_memory": cuda,
        "report_to": "none",
    }


def run_size(section: str) -> SimpleNamespace:
    """Return everything of ``section`` ("7.1" … "7.6") that depends on the machine, and print it.

    Fields: ``size``, ``device`` ("cuda"/"cpu"), ``dtype``, ``model``, ``fallback`` (7.6), ``hub_data``,
    ``rows``, ``eval_rows``, ``batch_size``, ``max_length`` (tokens), ``epochs``, ``minutes``.
    """
    import torch

    if section not in SECTIONS:
        raise ValueError(f"unknown section {section!r}: use one of {', '.join(SECTIONS)}")
    size = detect_size()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if size in ("t4", "gpu") and device == "cpu":
        raise ValueError(f"COURSE_SIZE={size} needs a CUDA GPU and this machine has none: use COURSE_SIZE=cpu")
    small = _SECTION["t4"][section] if size == "gpu" else {}
    settings = {**_COMMON[size], **small, **_SECTION[size].get(section, {})}
    run = SimpleNamespace(
        section=section, size=size, device=device, dtype=compute_dtype(), minutes=_MINUTES[size][section], **settings
    )
    name = torch.cuda.get_device_name() if device == "cuda" else f"CPU × {torch.get_num_threads()}"
    print(
        f"运行规模 {size} | {name} | {run.model} | {str(run.dtype).removeprefix('torch.')} | "
        f"训练 {run.rows} 条，评估 {run.eval_rows} 条 | 预计 {run.minutes} 分钟"
    )
    return run
