"""Promises of the repository: one address everywhere, two commands, what CI runs, what the files say."""

import json
import re
import subprocess

import pytest

from helpers import colab

ROOT = colab.ROOT
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def test_six_notebooks():
    assert [path.name[:3] for path in NOTEBOOKS] == ["7.1", "7.2", "7.3", "7.4", "7.5", "7.6"]


def test_badges_setup_cells_and_readmes_name_one_address():
    repository, branch = colab.REPOSITORY, colab.BRANCH
    assert (ROOT / "colab_badges.md").read_text(encoding="utf-8") == colab.badge_page(repository, branch)
    for path in colab.addressed_files():
        text = path.read_text(encoding="utf-8")
        assert text == colab.address(text, repository, branch), f"{path.name}: run `make badges`"
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        sources = ["".join(cell["source"]) for cell in cells]
        assert colab.badge(path.name, repository, branch) in sources[0], path.name
        assert f'REPOSITORY = "{repository}"' in sources[1] and f'BRANCH = "{branch}"' in sources[1], path.name
    for path in ROOT.glob("README*.md"):
        for notebook in NOTEBOOKS:
            assert colab.badge(notebook.name, repository, branch) in path.read_text(encoding="utf-8"), path.name


def test_badges_rewrites_all_places(tmp_path, monkeypatch):
    files = {}
    for path in colab.addressed_files():
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
        files[copy] = path
    monkeypatch.setattr(colab, "ROOT", tmp_path)
    monkeypatch.setattr(colab, "NOTEBOOKS", tmp_path / "notebooks")
    monkeypatch.setattr(colab, "addressed_files", lambda: list(files))
    colab.write_addresses("someone/course", "term-2")
    for copy in [*files, tmp_path / "colab_badges.md"]:
        text = copy.read_text(encoding="utf-8")
        assert f"{colab.REPOSITORY}/blob" not in text and f'"{colab.REPOSITORY}"' not in text, copy.name
        assert "someone/course" in text, copy.name
    with pytest.raises(ValueError, match="owner/name"):
        colab.write_addresses("nonsense", "main")


def test_ci_runs_the_test_command_of_the_readme():
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert "make test" in workflow
    for name in ("README.md", "README.zh-CN.md"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert "make course" in text and "make test" in text
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"pytest .*--nbval.* tests notebooks$", makefile, re.M) and "ruff check" in makefile


def test_constraints_pin_every_requirement():
    pinned = set(re.findall(r"^([A-Za-z0-9_.-]+)==", (ROOT / "constraints.txt").read_text(), re.M))
    pinned = {name.lower().replace("_", "-") for name in pinned}
    text = (ROOT / "requirements.txt").read_text() + (ROOT / "tests" / "requirements.txt").read_text()
    wanted = {n.lower().replace("_", "-") for n in re.findall(r"^([A-Za-z0-9_.-]+)", text, re.M)} - {"-r"}
    assert wanted <= pinned, wanted - pinned


def test_no_token_and_no_unsafe_loading_in_tracked_files():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    unsafe = re.compile(r"hf_[A-Za-z0-9]{20,}|trust_remote_code\s*=\s*True|import[ ]pickle")
    for name in files:
        path = ROOT / name
        if path.suffix in (".py", ".ipynb", ".md", ".yml") and path.is_file() and name != "tests/test_notebooks.py":
            found = unsafe.search(path.read_text(encoding="utf-8"))
            assert not found, f"{name}: {found[0]}"


def test_importing_helpers_loads_no_heavy_library():
    code = "import sys, helpers, helpers.colab, helpers.sizes, helpers.models, helpers.lora, helpers.formatting; " + (
        "print([m for m in ('torch', 'transformers', 'trl', 'peft', 'gradio', 'matplotlib') if m in sys.modules])"
    )
    import sys

    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
