"""Which pins of constraints.txt can move: pinned, newest that requirements.txt admits, newest of all (`make outdated`).

Both columns come from the resolver (``uv pip compile``, metadata only) for the Python that runs this.
"""

import re
import subprocess
import sys

from test_colab_image import NO_INDEX, ROOT, index, versions
from uv import find_uv_bin


def resolved(requirements, *options):
    """Return {name: newest version} for the text ``requirements``; SystemExit with uv's words where none is found."""
    command = [find_uv_bin(), "pip", "compile", "--quiet", "--no-header", "--no-annotate", "--python", sys.executable]
    run = subprocess.run(
        [*command, *options, "-"], input=requirements, env=index(), capture_output=True, text=True, cwd=ROOT / "tests"
    )
    if run.returncode:
        sys.exit(f"{run.stderr.strip()}\n({NO_INDEX})")
    return pins(run.stdout)


def pins(text):
    return versions(re.findall(r"^([\w.-]+)==(\S+)", text, re.M))


def table(pinned, allowed, newest):
    """Return the lines of the table: every pin that is not the newest, and whether it can move."""
    rows = [("package", "pinned", "allowed", "newest")]
    for name, version in sorted(pinned.items()):
        if not version == allowed.get(name) == newest[name]:
            rows.append((name, version, allowed.get(name, "not needed"), newest[name]))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


if __name__ == "__main__":
    pinned = pins((ROOT / "constraints.txt").read_text(encoding="utf-8"))
    allowed = resolved((ROOT / "tests" / "requirements.txt").read_text(encoding="utf-8"))
    newest = resolved("\n".join(pinned), "--no-deps")
    lines = table(pinned, allowed, newest)
    print(*lines, sep="\n")
    print(f"{len(lines) - 1} of {len(pinned)} pins are behind. What the suite says when they move: make test-newest")
