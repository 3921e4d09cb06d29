"""Checkpoints that survive a killed process: where they go, which one is whole, when to resume."""

import json
import shutil
import zipfile
from pathlib import Path

DRIVE = Path("/content/drive/MyDrive")  # where Colab mounts Google Drive
_ZIPPED = ("optimizer.pt", "scheduler.pt")  # torch.save writes ZIP archives; their index stands at the end


def run_folder(section: str) -> Path:
    """Return the folder of a section's results: on Google Drive if it is mounted, else under ``outputs/``."""
    home = DRIVE / "finetuning-course" if DRIVE.is_dir() else Path(__file__).resolve().parent.parent / "outputs"
    return home / section


def broken_part(checkpoint: Path) -> str | None:
    """Return the name of the first file of ``checkpoint`` that is missing or cut off, or None if it is whole.

    ``trainer_state.json`` is written last; weights and optimizer can still be cut off when a disk fills up or
    a network drive loses the connection, so their ends are looked at too. Nothing is unpickled.
    """
    from safetensors import SafetensorError, safe_open

    weights = next((n for n in ("adapter_model.safetensors", "model.safetensors") if (checkpoint / n).is_file()), None)
    if weights is None:
        return "adapter_model.safetensors"
    try:
        with safe_open(checkpoint / weights, "pt"):
            pass  # the header names the length of the file
    except (SafetensorError, OSError):
        return weights
    for name in _ZIPPED:
        if not zipfile.is_zipfile(checkpoint / name):
            return name
    try:
        json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8"))["global_step"]
    except (OSError, ValueError, KeyError):
        return "trainer_state.json"
    return None


def newest_checkpoint(folder: str | Path) -> Path | None:
    """Return the newest whole ``checkpoint-N`` in ``folder``, or None; say which half-written ones are skipped."""
    found = [p for p in Path(folder).glob("checkpoint-*") if p.name.removeprefix("checkpoint-").isdigit()]
    for checkpoint in sorted(found, key=lambda p: int(p.name.removeprefix("checkpoint-")), reverse=True):
        broken = broken_part(checkpoint)
        if broken is None:
            return checkpoint
        print(f"跳过 {checkpoint.name}：{broken} 没有写完")
    return None


def resume_point(folder: str | Path, settings: dict) -> Path | None:
    """Return the checkpoint to resume from, or None for a start from the beginning; print which and why.

    ``settings``: what must be equal for a resumed run to be the same run (model, rows, learning rate, …).
    A run that was finished or had other settings is moved to ``<folder>-previous``; the one before is deleted.
    """
    folder = Path(folder)
    settings = json.loads(json.dumps(settings))  # as it reads back from the file
    noted = folder / "settings.json"
    if folder.is_dir() and any(folder.iterdir()):
        old = json.loads(noted.read_text(encoding="utf-8")) if noted.is_file() else None
        checkpoint = newest_checkpoint(folder)
        changed = sorted(k for k in {*settings, *(old or {})} if (old or {}).get(k) != settings.get(k))
        state = json.loads((checkpoint / "trainer_state.json").read_text(encoding="utf-8")) if checkpoint else {}
        finished = checkpoint is not None and state["global_step"] >= state["max_steps"]
        if checkpoint and not changed and not finished:
            print(f"接着上次训练：从 {checkpoint.name} 开始（共 {state['max_steps']} 步）")
            return checkpoint
        if checkpoint:
            why = f"设置变了（{'、'.join(changed)}）" if changed else "已经训练完"
            previous = folder.with_name(folder.name + "-previous")
            more = "（替换更早的那一份）" if previous.exists() else ""
            print(f"上次的训练{why}，移到 {previous.name}{more}；这次从头训练")
            shutil.rmtree(previous, ignore_errors=True)
            folder.rename(previous)
        else:
            print("上次没有留下完整的检查点；这次从头训练")
    folder.mkdir(parents=True, exist_ok=True)
    draft = noted.with_suffix(".draft")
    draft.write_text(json.dumps(settings, ensure_ascii=False, indent=1), encoding="utf-8")
    draft.replace(noted)  # there whole or not at all
    return None
