"""How the course scales: rows, tokens a row, loading the model, and the floor under ``make test`` and ``make course``."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.common import ROOT, WORK, run_json, run_measured, save
from benchmarks.rows import consultations

LOAD = """
import time; start = time.perf_counter()
from helpers.models import load_model, load_tokenizer
from helpers.sizes import SMOLLM2
import torch, transformers, trl, peft
ready = time.perf_counter(); tokenizer = load_tokenizer(SMOLLM2); model = load_model(SMOLLM2, "fp32")
print([ready - start, time.perf_counter() - ready])
"""


def preparing(counts: list[int]) -> list[dict]:
    """Return rows/s of formatting (template to text) and of tokenizing with the supervised mask, per row count."""
    from helpers.formatting import encode_chat, set_chat_template
    from helpers.models import load_tokenizer
    from helpers.sizes import SMOLLM2

    tokenizer = set_chat_template(load_tokenizer(SMOLLM2))
    train, _ = consultations(min(max(counts), 768), 1)
    result = []
    for count in counts:
        rows = [train[i % len(train)] for i in range(count)]
        start = time.perf_counter()
        for messages in rows:
            tokenizer.apply_chat_template(messages, tokenize=False)
        middle = time.perf_counter()
        for messages in rows:
            encode_chat(tokenizer, messages)
        end = time.perf_counter()
        result.append(
            dict(rows=count, format_per_second=count / (middle - start), encode_per_second=count / (end - middle))
        )
        print(
            "{rows} rows: {format_per_second:.0f} formatted/s, {encode_per_second:.0f} encoded/s".format(**result[-1])
        )
    return result


def training(counts: list[int], lengths: list[int], steps: int) -> list[dict]:
    """Return tokens/s and memory of ``steps`` steps of 4 rows, per row count and per tokens a row."""
    cases = [dict(rows=count) for count in counts] + [dict(rows=4 * steps, length=length) for length in lengths]
    result = []
    for case in cases:
        measured = run_json("benchmarks.steps", case | dict(config=dict(max_steps=steps)))
        result.append(case | measured)
        print(
            f"{case}: built in {measured['build_seconds']:.1f} s, {measured['tokens_per_second']:.0f} tokens/s, "
            f"{measured['peak_mib']:.0f} MiB",
            flush=True,
        )
    return result


def forget_file(path: Path):
    """Drop a file from the page cache, so that the next read comes from the disk (Linux)."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)  # pages that are not yet written cannot be dropped
    os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(descriptor)


def loading(rounds: int) -> dict:
    """Return seconds of importing and of loading the fp32 model in a fresh process; cold = not in the page cache."""
    from helpers.models import model_path
    from helpers.sizes import SMOLLM2

    result = dict(imports=[], cold=[], warm=[])
    for round_number in range(2 * rounds):
        cold = round_number % 2 == 0
        if cold:
            forget_file(Path(model_path(SMOLLM2)) / "model.safetensors")
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", LOAD], cwd=ROOT, capture_output=True, text=True)
        done.check_returncode()
        imports, load = json.loads(done.stdout.splitlines()[-1])
        result["imports"].append(imports)
        result["cold" if cold else "warm"].append(load)
    print({name: round(statistics.median(values), 2) for name, values in result.items()}, flush=True)
    return result


def floor(rounds: int) -> dict:
    """Return seconds of executing a notebook that only imports and loads, as ``make course`` would (kernel included)."""
    import nbformat

    path = WORK / "floor.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    code = f"import os; os.chdir({str(ROOT)!r})\n{LOAD}"
    nbformat.write(nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)]), path)
    command = [sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--stdout", str(path)]
    seconds = [run_measured(command, WORK / "logs" / "floor.log")["seconds"] for _ in range(rounds)]
    notebooks = len(list((ROOT / "notebooks").glob("*.ipynb")))
    print(
        f"one notebook that only loads: {statistics.median(seconds):.1f} s; times {notebooks} is the floor", flush=True
    )
    return dict(seconds=seconds, notebooks=notebooks)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[64, 256, 1024, 4096])
    parser.add_argument("--lengths", type=int, nargs="+", default=[128, 512, 1024])
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    parts = dict(loading=loading(options.rounds), floor=floor(options.rounds), preparing=preparing(options.rows))
    save("scaling", parts | dict(training=training(options.rows, options.lengths, options.steps)))
