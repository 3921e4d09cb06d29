"""CI runs every test file and every notebook, on each Python and at both ends of the ranges.

The steps of ci.yml are followed through make to pytest, and pytest says which files those arguments collect; the files
themselves are not imported.
"""

import contextlib
import functools
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import outdated
import pytest
import yaml

ROOT = Path(__file__).resolve().parent.parent
WORKFLOW = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8"))
CHOOSES = {"-k", "-m", "--deselect", "--lf", "--last-failed", "--ff", "--sw", "--maxfail", "-x", "--co"}


def commands():
    """Return [(python, command)] of the run steps that every push executes, with the matrix filled in."""
    found = []
    for job in WORKFLOW["jobs"].values():
        if "if" in job:
            continue
        for values in job.get("strategy", {}).get("matrix", {}).get("include", [{}]):
            for step in job["steps"]:
                if "run" in step and "if" not in step:
                    assert not step.get("continue-on-error") and not job.get("continue-on-error")
                    text = re.sub(r"\$\{\{ matrix\.(\w+) \}\}", lambda m, values=values: values[m[1]], step["run"])
                    found.append((values.get("python"), text))
    return found


def recipe(command, root=ROOT):
    """Return the lines that ``command``, a make command, would execute in ``root``."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    assert command.startswith("make "), command
    run = subprocess.run([*shlex.split(command), "-n"], cwd=root, env=clean, capture_output=True, text=True, check=True)
    return run.stdout.splitlines()


def pytest_arguments(command, root=ROOT):
    """Return the arguments of the pytest that ``command`` starts, [] if it starts none."""
    for line in recipe(command, root):
        if " -m pytest " in line:
            assert not re.search(r"[|;&]", line), f"{line}: a failure would be hidden"
            return tuple(shlex.split(line.split(" -m pytest ")[1]))
    return ()


class Files:
    """pytest plugin: notes the files that are collected, and does not read what is in them."""

    def __init__(self):
        self.found = set()

    @pytest.hookimpl(tryfirst=True)
    def pytest_make_collect_report(self, collector):
        if isinstance(collector, pytest.File):
            self.found.add(collector.path)
            return pytest.CollectReport(collector.nodeid, "passed", None, [])


@functools.cache
def collected(arguments, root=ROOT):
    """Return the files, relative to ``root``, that pytest collects for ``arguments``."""
    assert not CHOOSES & {part.split("=")[0] for part in arguments}, f"{arguments}: a part of the tests is left out"
    files = Files()
    with contextlib.chdir(root):
        code = pytest.main([*arguments, "-n0", "--collect-only", "-p", "no:cacheprovider"], plugins=[files])
    assert code == pytest.ExitCode.NO_TESTS_COLLECTED, code  # an argument that is no file ends otherwise
    return {str(path.relative_to(root)) for path in files.found}


def on_disk(root=ROOT):
    """Return the test files and notebooks that git tracks or would add."""
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=root, capture_output=True, text=True, check=True).stdout.splitlines()
    wanted = re.compile(r"(^|/)(test_[^/]*\.py|[^/]*_test\.py|[^/]*\.ipynb)$")
    return {name for name in names if wanted.search(name) and (root / name).exists()}


@pytest.mark.parametrize("command", ["make test", "make test-oldest", "make test-newest"])
def test_every_test_file_and_notebook_is_run(command):
    assert command in [text for _, text in commands()]
    assert collected(pytest_arguments(command)) == on_disk()


def test_pythons_schedule_and_artifacts():
    assert {python for python, text in commands() if text == "make test"} == {"3.11", "3.12", "3.13"}
    assert {"push", "pull_request", "schedule"} <= set(WORKFLOW[True])  # YAML reads `on` as true
    assert {"make course COURSE_SIZE=smoke", "make html"} <= {text for _, text in commands()}
    assert recipe("make html") and recipe("make course COURSE_SIZE=smoke")
    used = {step.get("uses", "").split("@")[0] for job in WORKFLOW["jobs"].values() for step in job["steps"]}
    assert {"actions/cache", "actions/upload-artifact", "actions/upload-pages-artifact"} <= used


@pytest.fixture
def copy(tmp_path):
    """Return a repository with the Makefile, one test file and one notebook, all collected."""
    for name in ("tests/test_one.py", "notebooks/1.ipynb"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("{}")
    for name in ("Makefile", "requirements.txt", "constraints.txt", "tests/requirements.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    return tmp_path


def test_a_notebook_elsewhere_is_noticed(copy):
    (copy / "extra.ipynb").write_text("{}")
    assert on_disk(copy) - collected(pytest_arguments("make test", copy), copy) == {"extra.ipynb"}


def test_a_path_taken_from_the_makefile_is_noticed(copy):
    text = (copy / "Makefile").read_text(encoding="utf-8")
    (copy / "Makefile").write_text(text.replace("tests notebooks\n", "tests\n"), encoding="utf-8")
    assert on_disk(copy) - collected(pytest_arguments("make test", copy), copy) == {"notebooks/1.ipynb"}


def test_outdated_says_which_pin_can_move():
    allowed = outdated.resolved("nbval>=0.10,<0.11\n")["nbval"]
    newest = outdated.resolved("nbval", "--no-deps")["nbval"]
    assert allowed == "0.10.0" and tuple(map(int, newest.split("."))) >= (0, 11, 0)
    lines = outdated.table(
        {"nbval": "0.9.6", "pure": "1.0", "gone": "2.0"},
        {"nbval": allowed, "pure": "1.0"},
        {"nbval": newest, "pure": "1.0", "gone": "2.0"},
    )
    assert [line.split() for line in lines[1:]] == [
        ["gone", "2.0", "not", "needed", "2.0"],
        ["nbval", "0.9.6", allowed, newest],
    ]
