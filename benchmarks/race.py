"""The contest: slides, TRL's defaults, LLaMA-Factory and the course train on the same rows, each in its own process.

Model, rows, text (the model's ChatML template), one epoch and held-out rows are the same for all; everything else is
the contestant's own. Each writes its adapter ten times; when a file was written is its time, from the start of the
process (imports, loading and tokenizing included), and what it is worth is measured afterwards, by one program for all.
"""

import argparse
import datetime
import json
import re
import shutil
import statistics
import sys
from pathlib import Path

from benchmarks.common import RESULTS, ROOT, WORK, machine, run_json, run_measured, save, versions
from benchmarks.rows import prepare

HERE = Path(__file__).resolve().parent / "contestants"
SCRIPTS = {"slides": "slides.py", "slides_2024": "slides.py", "trl": "trl_defaults.py"}
LABELS = {
    "slides": "the slides' code, today's libraries",
    "slides_2024": "the slides' code, libraries of its time",
    "trl": "TRL SFTTrainer, defaults",
    "llamafactory": "LLaMA-Factory 0.9.5",
    "course": "this course, 7.6",
}


def command(name: str, pythons: dict, shared: dict, output: Path, seed: int) -> list[str]:
    """Return the command line of contestant ``name``."""
    arguments = [shared["model"], f"{shared['data']}/consultations.jsonl", str(output), str(seed)]
    if name == "course":
        return [pythons[name], "-m", "benchmarks.contestants.course", *arguments]
    if name != "llamafactory":
        return [pythons[name], str(HERE / SCRIPTS[name]), *arguments]
    import torch

    from helpers.sizes import compute_dtype

    settings = dict(model_name_or_path=shared["model"], dataset_dir=shared["data"], output_dir=output, seed=seed)
    settings["bf16"] = str(compute_dtype() == torch.bfloat16).lower()
    cli = str(Path(pythons[name]).with_name("llamafactory-cli"))
    return [cli, "train", str(HERE / "llama_factory.yaml"), *(f"{key}={value}" for key, value in settings.items())]


def saved_adapters(output: Path, started: float) -> list[tuple[float, Path]]:
    """Return (seconds since ``started``, folder) of every adapter that a contestant saved, in order of time."""
    files = output.glob("checkpoint-*/adapter_model.safetensors")
    return sorted((file.stat().st_mtime - started, file.parent) for file in files)


def time_to(points: list[tuple[float, float]], target: float) -> float | None:
    """Return the seconds of the first (seconds, loss) whose loss is at most ``target``; None if there is none."""
    return next((seconds for seconds, loss in points if loss <= target), None)


def one_run(name: str, pythons: dict, shared: dict, seed: int) -> dict:
    """Let contestant ``name`` train once, then evaluate what it saved."""
    output = WORK / "runs" / name
    shutil.rmtree(output, ignore_errors=True)
    log = WORK / "logs" / f"{name}.log"
    environment = dict(HF_HUB_OFFLINE="1", DISABLE_VERSION_CHECK="1", TOKENIZERS_PARALLELISM="false")
    measured = run_measured(command(name, pythons, shared, output, seed), log, environment)
    adapters = saved_adapters(output, measured.pop("started"))
    losses = run_json(
        "benchmarks.evaluate",
        dict(held_out=f"{shared['data']}/held_out.jsonl", adapters=[str(a) for _, a in adapters]),
    )["losses"]
    loop = float(re.findall(r"'train_runtime': '?([\d.]+)", log.read_text(encoding="utf-8"))[-1])
    points = [(0.0, losses[0]), *((seconds, loss) for (seconds, _), loss in zip(adapters, losses[1:], strict=True))]
    return dict(
        contestant=name,
        seed=seed,
        date=datetime.date.today().isoformat(),
        **measured,
        loop_seconds=loop,
        tokens_per_second=shared["tokens"] / loop,
        supervised_per_second=shared["supervised"] / loop,
        points=points,
    )


def kept(race: dict, measured: list[str], facts: dict, here: dict, rounds: int) -> tuple[list[dict], dict]:
    """Return (runs, libraries) of an earlier ``race`` without the contestants that are ``measured`` again.

    Raises ValueError when it had other settings than ``facts``, another number of ``rounds`` or ran on another machine
    than ``here``.
    """
    earlier = len({run["seed"] for run in race["runs"]})
    pairs = (("settings", race["settings"], facts), ("machine", race["machine"], here), ("rounds", earlier, rounds))
    for name, then, now in pairs:
        if then != now:
            raise ValueError(f"race.json has another {name}, {then}, than this run, {now}: measure all without --keep")
    runs = [dict(date=race["date"]) | run for run in race["runs"] if run["contestant"] not in measured]
    return runs, {name: found for name, found in race["libraries"].items() if name not in measured}


def summary(runs: list[dict]) -> dict:
    """Return {contestant: {measure: [median, lowest, highest]}}; ``to_target``: reaching the slides' final loss.

    The target of a round is the loss at the end of the slides' own run in that round (``slides``, same seed).
    A contestant that misses it in any round has ``to_target`` None.
    """
    targets = {run["seed"]: run["points"][-1][1] for run in runs if run["contestant"] == "slides"}
    result = {}
    for name in dict.fromkeys(run["contestant"] for run in runs):
        own = [run for run in runs if run["contestant"] == name]
        measures = {key: [r[key] for r in own] for key in ("seconds", "loop_seconds", "tokens_per_second", "peak_mib")}
        measures["supervised_per_second"] = [r["supervised_per_second"] for r in own]
        measures["final_loss"] = [r["points"][-1][1] for r in own]
        measures["to_target"] = [time_to(r["points"], targets[r["seed"]]) for r in own if r["seed"] in targets]
        result[name] = {
            key: [statistics.median(v), min(v), max(v)] if v and None not in v else None for key, v in measures.items()
        }
    return result


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--held-out", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=LABELS, default=list(LABELS))
    parser.add_argument("--slides-python", default=str(ROOT / ".venv-slides" / "bin" / "python"))
    parser.add_argument("--llamafactory-python", default=str(ROOT / ".venv-llamafactory" / "bin" / "python"))
    parser.add_argument("--keep", action="store_true", help="keep what race.json has of contestants not in --only")
    options = parser.parse_args()
    pythons = dict.fromkeys(LABELS, sys.executable)
    pythons |= dict(slides_2024=options.slides_python, llamafactory=options.llamafactory_python)
    shared = prepare(options.rows, options.held_out)
    facts = dict(rows=options.rows, held_out=options.held_out, tokens=shared["tokens"], supervised=shared["supervised"])
    runs, libraries, afterwards = [], {}, []
    if options.keep:
        earlier = json.loads((RESULTS / "race.json").read_text(encoding="utf-8"))
        runs, libraries = kept(earlier, options.only, facts, machine(), options.rounds)
        afterwards = sorted({*earlier.get("afterwards", []), *options.only})
    libraries |= {name: versions(pythons[name]) for name in options.only}
    for seed in range(options.rounds):
        for name in options.only if seed % 2 == 0 else reversed(options.only):
            run = one_run(name, pythons, shared, seed)
            runs.append(run)
            print(
                f"round {seed + 1}, {name:12} {run['seconds']:6.0f} s, {run['tokens_per_second']:5.0f} tokens/s, "
                f"{run['peak_mib']:6.0f} MiB, loss {run['points'][0][1]:.3f} → {run['points'][-1][1]:.3f}",
                flush=True,
            )
    result = dict(settings=facts, afterwards=afterwards, libraries=libraries, summary=summary(runs), runs=runs)
    save("race", result)
