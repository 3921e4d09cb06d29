"""What surrounds a notebook: environment check, token, and the repository's address in badges and setup cells."""

import argparse
import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = "OWNER/REPO"  # the one place; `make badges REPO=owner/name BRANCH=main` rewrites it and all that follows
BRANCH = "main"

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ROOT / "notebooks"
PACKAGES = ("torch", "transformers", "trl", "peft", "datasets", "bitsandbytes")


def check_environment() -> None:
    """Print one [OK] or [FAIL] line per thing that the notebooks need, with the remedy; raise if one fails.

    Raises RuntimeError when a package is missing or peft would refuse the installed torchao.
    """
    failures = 0

    def line(good: bool, text: str, remedy: str = "") -> None:
        nonlocal failures
        failures += not good
        print(f"[OK]   {text}" if good else f"[FAIL] {text} → {remedy}")

    line(sys.version_info >= (3, 11), f"Python {sys.version.split()[0]}", "需要 Python 3.11 或更新")
    for package in PACKAGES:
        try:
            line(True, f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            line(False, package, "在项目根目录运行 make course，或 pip install -r requirements.txt")
    try:
        torchao = importlib.metadata.version("torchao")
        number = tuple(int(part) for part in re.findall(r"\d+", torchao)[:2])
        line(
            number >= (0, 16), f"torchao {torchao}", "peft 不接受 0.16 之前的 torchao：pip uninstall -y torchao，再重启"
        )
    except importlib.metadata.PackageNotFoundError:
        pass  # not needed
    if failures:
        raise RuntimeError(f"{failures} 项环境检查没有通过，先按 → 后面的办法处理")


def hub_token() -> str | None:
    """Return the hub token from Colab's secrets, the environment or huggingface_hub's login, or None.

    It is never printed or stored.
    """
    if "google.colab" in sys.modules:
        from google.colab import userdata

        try:
            return userdata.get("HF_TOKEN")
        except (userdata.SecretNotFoundError, userdata.NotebookAccessError, userdata.TimeoutException):
            pass  # no such secret, or this notebook may not see it: look on
    from huggingface_hub import get_token

    return get_token()


def badge(notebook: str, repository: str = REPOSITORY, branch: str = BRANCH) -> str:
    """Return the Markdown of the Colab badge of ``notebook`` (a file name)."""
    address = f"https://colab.research.google.com/github/{repository}/blob/{branch}/notebooks/{notebook}"
    return f"[![Open In Colab](https://colab.research.google.com/assets/colab-badge.svg)]({address})"


def badge_page(repository: str = REPOSITORY, branch: str = BRANCH) -> str:
    """Return the text of colab_badges.md."""
    rows = [f"| `{p.name}` | {badge(p.name, repository, branch)} |" for p in sorted(NOTEBOOKS.glob("*.ipynb"))]
    head = "# Colab badges\n\nMade by `make badges REPO=owner/name BRANCH=main`.\n\n| notebook | badge |\n|---|---|\n"
    return head + "\n".join(rows) + "\n"


def address(text: str, repository: str, branch: str) -> str:
    """Return ``text`` with every address of this course (badge, clone, constants) pointing to ``repository``."""
    text = re.sub(
        r"(colab\.research\.google\.com/github/)[\w.-]+/[\w.-]+(/blob/)[^/\s]+(/notebooks/)",
        rf"\g<1>{repository}\g<2>{branch}\g<3>",
        text,
    )
    text = re.sub(r"(REPOSITORY = \\?\")[^\"\\]+", rf"\g<1>{repository}", text)
    return re.sub(r"(BRANCH = \\?\")[^\"\\]+", rf"\g<1>{branch}", text)


def remote_repository() -> str:
    """Return owner/name of the GitHub remote ``origin``, or REPOSITORY if there is none."""
    result = subprocess.run(["git", "remote", "get-url", "origin"], cwd=ROOT, capture_output=True, text=True)
    match = re.search(r"github\.com[:/]([\w.-]+/[\w.-]+?)(?:\.git)?\s*$", result.stdout)
    return match[1] if match else REPOSITORY


def addressed_files() -> list[Path]:
    """Return the files in which the repository's address stands."""
    return [Path(__file__), *sorted(NOTEBOOKS.glob("*.ipynb")), *sorted(ROOT.glob("README*.md"))]


def write_addresses(repository: str, branch: str) -> None:
    """Rewrite badges, setup cells, READMEs, colab_badges.md and this file's constants to one address."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ValueError(f"REPO={repository!r} is not of the form owner/name")
    for path in addressed_files():
        old = path.read_text(encoding="utf-8")
        new = address(old, repository, branch)
        if path.suffix == ".ipynb":
            json.loads(new)
        if new != old:
            path.write_text(new, encoding="utf-8")
    (ROOT / "colab_badges.md").write_text(badge_page(repository, branch), encoding="utf-8")
    print(f"badges, setup cells and READMEs point to {repository}, branch {branch}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="rewrite the repository's address everywhere")
    parser.add_argument("--repository", default="")
    parser.add_argument("--branch", default=BRANCH)
    arguments = parser.parse_args()
    write_addresses(arguments.repository or remote_repository(), arguments.branch)
