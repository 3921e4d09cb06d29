"""What every benchmark shares: the machine, a measured child process, the JSON of a result."""

import datetime
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
WORK = ROOT / "outputs" / "bench"
PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "bitsandbytes", "llamafactory")


def tree_memory(process) -> int:
    """Return the resident bytes of a ``psutil.Process`` and all its descendants, 0 once it has ended."""
    import psutil

    total = 0
    try:
        for one in (process, *process.children(recursive=True)):
            total += one.memory_info().rss
    except psutil.NoSuchProcess:
        pass  # ended between two calls; what was counted so far stays a lower bound
    return total


def run_measured(command: list[str], log: Path, environment: dict | None = None, timeout: float = 7200) -> dict:
    """Run ``command`` in its own process; return ``started`` (Unix time), ``seconds`` and ``peak_mib``.

    ``peak_mib`` is the highest resident memory of the process tree, sampled every 0.1 s. Output goes to ``log``.
    Raises RuntimeError with the end of the output when the command fails.
    """
    import psutil

    log.parent.mkdir(parents=True, exist_ok=True)
    peak, ended = 0, threading.Event()
    with open(log, "w", encoding="utf-8") as file:
        started, clock = time.time(), time.perf_counter()
        child = subprocess.Popen(
            command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})}
        )
        process = psutil.Process(child.pid)

        def sample():
            nonlocal peak
            while not ended.wait(0.1):
                peak = max(peak, tree_memory(process))

        thread = threading.Thread(target=sample)
        thread.start()
        try:
            code = child.wait(timeout)
        finally:
            seconds = time.perf_counter() - clock
            ended.set()
            thread.join()
            if child.poll() is None:
                child.kill()
    if code:
        raise RuntimeError(f"{' '.join(command)}\nended with {code}; {log}:\n{log.read_text(encoding='utf-8')[-3000:]}")
    return dict(started=started, seconds=seconds, peak_mib=peak / 2**20)


def run_json(module: str, settings: dict, environment: dict | None = None) -> dict:
    """Run ``python -m module SETTINGS`` (JSON) as a child; return the JSON of its last line and ``peak_mib``."""
    log = WORK / "logs" / f"{module}.log"
    command = [sys.executable, "-W", "ignore", "-m", module, json.dumps(settings)]
    measured = run_measured(command, log, environment)
    return {**json.loads(log.read_text(encoding="utf-8").splitlines()[-1]), "peak_mib": measured["peak_mib"]}


def versions(python: str = sys.executable) -> dict:
    """Return {package: version} of ``PACKAGES`` as the interpreter ``python`` finds them, and its own version."""
    if python == sys.executable:
        found = {d.metadata["Name"].lower(): d.version for d in importlib.metadata.distributions()}
        return {"python": platform.python_version()} | {name: found[name] for name in PACKAGES if name in found}
    code = "from benchmarks.common import versions; import json; print(json.dumps(versions()))"
    answer = subprocess.run([python, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(answer.stdout)


def machine() -> dict:
    """Return what the figures depend on: processor, the instruction sets that matter, cores, memory, threads."""
    import psutil
    import torch

    capabilities = torch.cpu.get_capabilities()
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), name)
    return {
        "cpu": name,
        "instructions": sorted(k for k, v in capabilities.items() if v is True and k.startswith(("avx", "amx", "sve"))),
        "cores": len(psutil.Process().cpu_affinity()) if hasattr(psutil.Process, "cpu_affinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "system": platform.system(),
    }


def save(name: str, result: dict) -> Path:
    """Write ``benchmarks/results/<name>.json``: date, machine, versions and ``result``; return the path."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    head = dict(date=datetime.date.today().isoformat(), machine=machine(), versions=versions())
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({**head, **result}, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"wrote {path.relative_to(ROOT)}")
    return path
