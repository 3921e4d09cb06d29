"""What the install cell changes on Colab's GPU images: torch, numpy and pandas must stay what they are.

``colab_images.json`` holds the packages of two images with their date. The resolver (``uv pip compile``, metadata only,
nothing is installed) reads requirements.txt with the image's versions as preferences, as pip does on Colab: what is
there stays unless a requirement forbids it. It asks the package index, so without one these tests fail.
``python tests/test_colab_image.py`` prints the same report.
"""

import functools
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from uv import find_uv_bin

ROOT = Path(__file__).resolve().parent.parent
IMAGES = json.loads((ROOT / "tests" / "colab_images.json").read_text(encoding="utf-8"))["images"]
KEPT = ("torch", "numpy", "pandas")
CUDA = re.compile(r"nvidia-|cuda-")  # torch's own; Colab's build (+cu128) has others than the index's, and torch stays
NO_INDEX = (
    "no package index answered, so what Colab's install cell changes is not known: connect, or set UV_DEFAULT_INDEX"
)


def versions(pairs):
    """Return {normalised name: version without the local part} of (name, version) pairs."""
    return {re.sub(r"[-_.]+", "-", name).lower(): version.split("+")[0] for name, version in pairs}


@functools.cache
def index():
    """Return the environment for uv: pip's mirror, which uv does not read by itself, is the index unless uv has one."""
    settings = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True).stdout
    mirrors = re.findall(r"index-url='([^']+)'", re.sub(r".*extra-index-url.*", "", settings))
    defaults = {"UV_DEFAULT_INDEX": os.environ.get("UV_INDEX_URL") or (mirrors[0] if mirrors else "")}
    defaults = {key: value for key, value in defaults.items() if value}
    return {**defaults, "UV_PYTHON_DOWNLOADS": "never", "UV_HTTP_RETRIES": "1", **os.environ}


def changes(image, requirements, folder, environment=None):
    """Return {name: (version in the image or None, version after the install)} of what ``requirements`` changes.

    image: an entry of colab_images.json; folder: an empty Path for uv's input and output; environment: of uv.
    Raises AssertionError with one sentence when no index answers or no solution exists.
    """
    before = versions(image["packages"].items())
    wanted, solved = folder / "requirements.txt", folder / "solved.txt"
    wanted.write_text(requirements, encoding="utf-8")
    solved.write_text("".join(f"{name}=={version}\n" for name, version in before.items()), encoding="utf-8")
    command = [find_uv_bin(), "pip", "compile", "--quiet", "--no-header", "--no-annotate"]
    command += ["--python-version", image["python"], "--python-platform", "x86_64-unknown-linux-gnu"]
    command += [
        str(wanted),
        "--output-file",
        str(solved),
    ]  # versions already in the output file are kept if they can be
    run = subprocess.run(command, env=environment or index(), capture_output=True, text=True)
    error = run.stderr.strip()
    assert not run.returncode or "No solution found" not in error, f"{image['name']}: {error}"
    assert not run.returncode, f"{NO_INDEX}\n{error}"
    after = versions(re.findall(r"^([\w.-]+)==(\S+)", solved.read_text(encoding="utf-8"), re.M))
    new = {name: (before.get(name), version) for name, version in after.items() if before.get(name) != version}
    return {name: pair for name, pair in sorted(new.items()) if not CUDA.match(name)}


def report(image, changed):
    """Return the lines that say what the install cell adds and changes."""
    added = [f"{name} {new}" for name, (old, new) in changed.items() if old is None]
    moved = [f"{name} {old} → {new}" for name, (old, new) in changed.items() if old is not None]
    head = f"Colab image {image['name']} of {image['date']}, Python {image['python']}"
    return f"{head}\n  adds:    {', '.join(added) or '-'}\n  changes: {', '.join(moved) or '-'}"


def broken(changed):
    """Return those of torch, numpy and pandas that would change."""
    return {name: changed[name] for name in KEPT if name in changed}


def requirements():
    return (ROOT / "requirements.txt").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def resolving(tmp_path_factory):
    """Return {image's name: future of its changes}; the images wait for the index at the same time."""
    index()
    with ThreadPoolExecutor() as pool:
        folders = {image["name"]: tmp_path_factory.mktemp("image") for image in IMAGES}
        return {i["name"]: pool.submit(changes, i, requirements(), folders[i["name"]]) for i in IMAGES}


@pytest.mark.parametrize("image", IMAGES, ids=lambda image: image["name"])
def test_install_cell_keeps_torch_numpy_and_pandas(image, resolving):
    changed = resolving[image["name"]].result()
    print(report(image, changed))
    assert not broken(changed), f"{image['name']}: lower the bounds in requirements.txt, Colab would swap {changed}"
    assert {"trl", "bitsandbytes"} <= set(changed), "Colab does not bring these two, so the install must add them"


def test_a_bound_above_the_image_is_noticed(tmp_path):
    changed = changes(IMAGES[0], "torch>=2.12\nnumpy>=2.2\npandas>=3\n", tmp_path)
    assert set(broken(changed)) == set(KEPT)


def test_no_index_is_said(tmp_path):
    offline = {key: value for key, value in index().items() if not key.startswith("UV_")}
    offline |= {"UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0", "UV_NO_CONFIG": "1"}
    offline |= {"UV_CACHE_DIR": str(tmp_path / "cache"), "UV_PYTHON_DOWNLOADS": "never"}
    with pytest.raises(AssertionError, match="no package index answered"):
        changes(IMAGES[0], "trl\n", tmp_path, offline)


def test_setup_cell_removes_the_torchao_that_peft_refuses():
    torchao = [versions(image["packages"].items()).get("torchao", "1") for image in IMAGES]
    old = [version for version in torchao if tuple(int(part) for part in version.split(".")[:2]) < (0, 16)]
    cells = json.loads(next((ROOT / "notebooks").glob("7.1*.ipynb")).read_text(encoding="utf-8"))["cells"]
    assert not old or '"uninstall", "-q", "-y", "torchao"' in "".join(cells[1]["source"])


if __name__ == "__main__":
    import tempfile

    for one in IMAGES:
        with tempfile.TemporaryDirectory() as place:
            print(report(one, changes(one, requirements(), Path(place))))
