"""The setup cell does on Colab what it promises, for real: clone, uninstall, install, go on; elsewhere nothing at all.

Colab is played by a package `google.colab` that is imported before the first cell runs, GitHub by a bare repository
of this working tree, Colab's environment by a throw-away one that sees the packages of the tests and, like Colab, brings a
torchao that peft refuses.
"""

import json
import os
import re
import subprocess
import sys
import sysconfig
import venv

import pytest

from helpers import colab

# Runs the cells of argv one after the other in one namespace, as a kernel does.
KERNEL = """
import json, sys
cells = {"__name__": "__main__"}
for source in json.loads(sys.argv[1]):
    exec(compile(source, "cell", "exec"), cells)
"""
USERDATA = """
class SecretNotFoundError(Exception): pass
class NotebookAccessError(Exception): pass
class TimeoutException(Exception): pass
def get(name): return "of Colab's secrets"
"""


def code_cells(section):
    """Return the sources of a notebook's code cells."""
    path = next(colab.NOTEBOOKS.glob(f"{section}_*.ipynb"))
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture(scope="module")
def machine(tmp_path_factory):
    """Return (folder, Python of a throw-away environment with a stub of Colab, environment variables)."""
    folder = tmp_path_factory.mktemp("colab")
    venv.create(folder / "env", with_pip=False)  # pip, too, comes from the packages of the tests
    python = folder / "env" / "bin" / "python"
    site = folder / "env" / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    paths = sorted({sysconfig.get_paths()[kind] for kind in ("purelib", "platlib")})
    write(site / "stub.pth", "\n".join([*paths, "import google.colab"]))
    for name in ("__init__", "drive", "output"):
        write(site / "google" / "colab" / f"{name}.py", "")
    write(site / "google" / "colab" / "userdata.py", USERDATA)
    info = "torchao-0.10.0.dist-info"
    write(site / info / "METADATA", "Metadata-Version: 2.1\nName: torchao\nVersion: 0.10.0\n")
    write(site / info / "RECORD", f"{info}/METADATA,,\n{info}/RECORD,,\ntorchao/__init__.py,,\n")
    write(site / "torchao" / "__init__.py", "")

    # what a push of this working tree would put on GitHub, with a past that a shallow clone leaves out
    bare = folder / "github.git"
    git = ["git", f"--git-dir={bare}", f"--work-tree={colab.ROOT}", "-c", "user.name=t", "-c", "user.email=t@t"]
    subprocess.run(["git", "init", "-q", "--bare", "-b", colab.BRANCH, bare], check=True)
    for command in (["commit", "-q", "--allow-empty", "-m", "past"], ["add", "-A"], ["commit", "-q", "-m", "now"]):
        subprocess.run([*git, *command], cwd=colab.ROOT, check=True)

    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "HF_TOKEN", "VIRTUAL_ENV")}
    return (
        folder,
        python,
        {
            **environment,
            "GIT_CONFIG_COUNT": "1",
            "GIT_CONFIG_KEY_0": f"url.file://{bare}.insteadOf",
            "GIT_CONFIG_VALUE_0": f"https://github.com/{colab.REPOSITORY}.git",
            "PIP_NO_INDEX": "1",  # what is there already must do
            "PIP_LOG": str(folder / "pip.log"),
            "COURSE_SIZE": "smoke",
            "OMP_NUM_THREADS": "1",
        },
    )


def run(python, cells, folder, environment):
    return subprocess.run(
        [python, "-c", KERNEL, json.dumps(cells)], cwd=folder, env=environment, capture_output=True, text=True
    )


def test_on_colab_it_clones_and_installs_and_the_notebook_goes_on(machine):
    folder, python, environment = machine
    content = folder / "content"
    content.mkdir()
    where = "import os, helpers; print('FROM', os.path.dirname(helpers.__file__), 'IN', os.getcwd())"
    setup, token = code_cells("7.6")[:2]
    size = "from helpers.sizes import run_size; run_size('7.6')"
    result = run(python, [setup, token, size, where], content, environment)
    assert result.returncode == 0, result.stdout + result.stderr[-3000:]
    clone = content / "course"
    assert f"FROM {clone / 'helpers'} IN {clone / 'notebooks'}" in result.stdout
    assert "[FAIL]" not in result.stdout and "[OK]   transformers" in result.stdout  # check_environment
    assert "torchao" not in result.stdout  # was there, and peft would have refused it
    assert "HF_TOKEN： 有" in result.stdout and "of Colab's secrets" not in result.stdout + result.stderr
    assert "运行规模 smoke" in result.stdout  # run_size

    count = subprocess.run(["git", "-C", clone, "rev-list", "--count", "HEAD"], capture_output=True, text=True)
    assert count.stdout.strip() == "1"  # the newest state alone
    log = (folder / "pip.log").read_text(encoding="utf-8")
    assert "Successfully uninstalled torchao-0.10.0" in log
    for name in re.findall(r"^([\w-]+)", (clone / "requirements.txt").read_text(encoding="utf-8"), re.M):
        assert re.search(rf"Requirement already satisfied: {name}\W.*\(", log), name


def test_after_a_restart_of_the_kernel_it_goes_on_with_what_is_there(machine):
    folder, python, environment = machine
    result = run(python, [code_cells("7.6")[0]], folder / "content", environment)  # Colab begins in /content again
    assert result.returncode == 0 and "[FAIL]" not in result.stdout, result.stderr[-3000:]


REFUSE = """
import socket, subprocess

def refuse(*arguments, **_):
    raise AssertionError(f"called outside Colab: {arguments}")

subprocess.run = subprocess.Popen = socket.socket.connect = refuse
"""


@pytest.mark.parametrize("section", ["7.1", "7.6"])
def test_elsewhere_it_runs_nothing_and_asks_no_network(section, tmp_path):
    notebooks = tmp_path / "notebooks"
    notebooks.mkdir()
    (tmp_path / "helpers").symlink_to(colab.ROOT / "helpers")
    result = run(sys.executable, [REFUSE, code_cells(section)[0]], notebooks, os.environ)
    assert result.returncode == 0 and "[OK]   torch " in result.stdout, result.stderr[-3000:]
    assert list(notebooks.iterdir()) == []


def test_outside_colab_an_attempt_to_install_would_be_seen(tmp_path):
    stub = "import sys, types; sys.modules['google.colab'] = types.ModuleType('google.colab')"
    result = run(sys.executable, [REFUSE, stub, code_cells("7.1")[0]], tmp_path, os.environ)
    assert result.returncode != 0 and "called outside Colab: (['git', 'clone'" in result.stderr
