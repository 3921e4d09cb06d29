"""Execute notebooks in order, saying which cell is running; keep the executed copies and their HTML."""

import argparse
import json
import os
import platform
import resource
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OUTPUTS = ROOT / "outputs"


def _heading(cell, current: str) -> str:
    """Return the last Markdown heading in ``cell``, or ``current``."""
    lines = [line.lstrip("# ").strip() for line in cell.source.splitlines() if line.startswith("#")]
    return lines[-1] if cell.cell_type == "markdown" and lines else current


def _tidy(notebook) -> None:
    """Remove progress bars and other widgets: without a kernel they show as a bar stuck at 0 %, or break the page."""
    notebook.metadata.pop("widgets", None)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            view = "application/vnd.jupyter.widget-view+json"
            cell.outputs = [output for output in cell.outputs if view not in output.get("data", {})]
            for output in cell.outputs:
                if "text" in output:  # a library's warning names its file: without the folders of this machine
                    output["text"] = output["text"].replace(str(ROOT), ".")


def execute(path: Path) -> float:
    """Execute one notebook from its own folder, write ``outputs/<name>.ipynb`` and ``.html``; return seconds.

    The executed part is written also when a cell fails. Raises nbclient's CellExecutionError then.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbconvert import HTMLExporter

    notebook = nbformat.read(path, as_version=4)
    headings, current = [], ""
    for cell in notebook.cells:
        current = _heading(cell, current)
        headings.append(current)
    started = time.monotonic()

    def announce(cell, cell_index):
        if cell.cell_type == "code":
            clock = time.monotonic() - started
            print(
                f"  {clock:6.0f} s  cell {cell_index + 1:>2}/{len(notebook.cells)}  {headings[cell_index]}", flush=True
            )

    client = NotebookClient(
        notebook,
        timeout=None,
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
        on_cell_start=announce,
    )
    try:
        client.execute()
    finally:
        _tidy(notebook)
        OUTPUTS.mkdir(exist_ok=True)
        nbformat.write(notebook, OUTPUTS / path.name)
        html, _ = HTMLExporter().from_notebook_node(notebook)
        (OUTPUTS / path.with_suffix(".html").name).write_text(html, encoding="utf-8")
    return time.monotonic() - started


def main() -> None:
    """Execute the notebooks named on the command line, or all six."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("notebooks", nargs="*", type=Path)
    paths = parser.parse_args().notebooks or sorted((ROOT / "notebooks").glob("*.ipynb"))
    seconds = {}
    for number, path in enumerate(paths, 1):
        print(f"[{number}/{len(paths)}] {path.name}", flush=True)
        seconds[path.name] = execute(path.resolve())
        print(f"  {seconds[path.name]:6.0f} s  done → outputs/{path.with_suffix('.html').name}", flush=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    report = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}",
        "seconds": {name: round(value) for name, value in seconds.items()},
        "seconds_in_all": round(sum(seconds.values())),
        "peak_memory_of_the_largest_notebook_gb": round(peak / 1e9, 2),
    }
    (OUTPUTS / "course.json").write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    sys.exit(main())
