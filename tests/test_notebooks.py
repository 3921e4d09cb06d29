"""What every notebook promises: exercises that can be solved, clean outputs, one way to begin, short cells, plain prose.

Each rule is a function that returns the problems of one notebook; the last test breaks copies, so no rule is idle.
"""

import contextlib
import io
import json
import re

import pytest

from helpers import colab

NOTEBOOKS = sorted(colab.NOTEBOOKS.glob("7.*.ipynb"))
MACHINE_PATH = re.compile(r"(?<![\w.~/:-])/(?:root|home|tmp|work|Users|content|mnt|opt|var)/[\w.-]|[A-Z]:\\\\?Users\\")
QUOTED = re.compile(r"```.*?```|`[^`\n]*`|“[^”]*”|「[^」]*」|『[^』]*』|^>.*?$", re.S | re.M)


def cells_of(path):
    """Return the cells of ``path`` with their sources joined to strings."""
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [{**cell, "source": "".join(cell["source"])} for cell in cells]


def tagged(cell, tag):
    return tag in cell["metadata"].get("tags", [])


def printed(*sources):
    """Return what the sources print, executed one after the other in a fresh namespace."""
    namespace, out = {"__name__": "__main__"}, io.StringIO()
    with contextlib.redirect_stdout(out):
        for source in sources:
            exec(compile(source, "cell", "exec"), namespace)
    return out.getvalue()


def exercise_problems(path):
    """Return what is wrong with the exercises: the check must refuse the stub and accept the solution."""
    cells, problems = cells_of(path), []
    places = [i for i, cell in enumerate(cells) if tagged(cell, "exercise")]
    if len(places) < 3:
        problems.append(f"{len(places)} exercises are fewer than three")
    for number, place in enumerate(places, 1):
        end = places[number] if number < len(places) else len(cells)
        after = cells[place + 1 : end]
        checks = [cell["source"] for cell in after if tagged(cell, "check")]
        prose = "\n".join(cell["source"] for cell in after if cell["cell_type"] == "markdown")
        solution = re.search(r"<details>.*?```python\n(.*?)```.*?</details>", prose, re.S)
        if len(checks) != 1 or not solution:
            problems.append(f"exercise {number}: {len(checks)} checks, solution {'found' if solution else 'missing'}")
            continue
        for kind, source, good, bad in (
            ("stub", cells[place]["source"], "❌", ""),
            ("solution", solution[1], "✅", "❌"),
        ):
            try:
                text = printed(source, checks[0])
            except Exception as error:  # whatever it is, it is reported, not hidden
                problems.append(f"exercise {number}: the check raises on the {kind}: {error!r}")
                continue
            if good not in text or (bad and bad in text):
                problems.append(f"exercise {number}: on the {kind} the check prints {text!r}")
    return problems


def output_problems(path):
    """Return errors, widget state, machine paths and hub tokens in the committed file."""
    raw = path.read_text(encoding="utf-8")
    problems = ["metadata.widgets"] if "widgets" in json.loads(raw)["metadata"] else []
    problems += [f"hub token {token[:6]}…" for token in re.findall(r"hf_[A-Za-z0-9]{20,}", raw)]
    for number, cell in enumerate(cells_of(path)):
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                problems.append(f"cell {number}: {output['ename']}")
            texts = [output.get("text", "")]
            texts += [value for kind, value in output.get("data", {}).items() if not kind.startswith("image/")]
            for text in texts:
                found = MACHINE_PATH.search("".join(text) if isinstance(text, list) else str(text))
                if found:
                    problems.append(f"cell {number}: machine path {found[0]}…")
    return problems


def top_problems(path):
    """Return what is missing in the first two cells: title, badge, table; the setup cell of all notebooks."""
    first, setup = cells_of(path)[:2]
    wanted = [f"# {path.name[:3]} ", colab.badge(path.name)]
    wanted += [f"| {row} |" for row in ("本节目标", "用时", "硬件", "对应幻灯片")]
    problems = [f"first cell lacks {text!r}" for text in wanted if text not in first["source"]]
    if not first["source"].startswith(wanted[0]) or first["cell_type"] != "markdown":
        problems.append("first cell is not the title")
    if setup["cell_type"] != "code" or setup["source"] != cells_of(NOTEBOOKS[0])[1]["source"]:
        problems.append(f"setup cell differs from that of {NOTEBOOKS[0].name}")
    return problems


def code_problems(path):
    """Return code cells that are too long (the setup cell may be) or hold what the course never writes."""
    problems = []
    for number, cell in enumerate(cells_of(path)):
        if cell["cell_type"] == "code":
            lines = cell["source"].count("\n") + 1
            if lines > 40 and number != 1:
                problems.append(f"cell {number}: {lines} lines")
            found = re.search(r"trust_remote_code|\bpickle\b|\bif False\b", cell["source"])
            if found:
                problems.append(f"cell {number}: {found[0]}")
    return problems


def prose_problems(path):
    """Return prose that says 您 to the student; quotations, code and > boxes may."""
    prose = [(i, cell["source"]) for i, cell in enumerate(cells_of(path)) if cell["cell_type"] == "markdown"]
    return [f"cell {number}: 您" for number, text in prose if "您" in QUOTED.sub("", text)]


RULES = (exercise_problems, output_problems, top_problems, code_problems, prose_problems)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name[:3])
def test_notebook(path, rule, monkeypatch):
    monkeypatch.chdir(path.parent)  # where Jupyter runs it
    assert rule(path) == []


def first(notebook, tag):
    return next(cell for cell in notebook["cells"] if tagged(cell, tag))


def solution_of(notebook):
    return next(c for c in notebook["cells"] if "<details>" in "".join(c["source"]))


def stream(text):
    return {"output_type": "stream", "name": "stdout", "text": [text]}


BREAKS = {
    "a solution that is wrong": (
        exercise_problems,
        lambda n: solution_of(n).update(source="<details>\n```python\nx = 1\n```\n</details>"),
    ),
    "no solution": (exercise_problems, lambda n: solution_of(n).update(source="later")),
    "a check that accepts anything": (exercise_problems, lambda n: first(n, "check").update(source="print('✅')")),
    "a check that raises": (exercise_problems, lambda n: first(n, "check").update(source="1 / 0")),
    "too few exercises": (exercise_problems, lambda n: n["cells"].__delitem__(slice(8, None))),
    "an error output": (
        output_problems,
        lambda n: n["cells"][1].update(outputs=[{"output_type": "error", "ename": "E", "evalue": "", "traceback": []}]),
    ),
    "widget state": (output_problems, lambda n: n["metadata"].update(widgets={})),
    "a machine path": (output_problems, lambda n: n["cells"][1].update(outputs=[stream("saved in /home/me/model")])),
    "a token": (output_problems, lambda n: n["cells"][1].update(outputs=[stream("hf_" + "a" * 30)])),
    "no badge": (top_problems, lambda n: n["cells"][0].update(source=f"# {n['section']} x")),
    "another setup cell": (top_problems, lambda n: n["cells"][1].update(source="import os")),
    "a long cell": (code_problems, lambda n: first(n, "check").update(source="x = 1\n" * 41)),
    "remote code": (code_problems, lambda n: first(n, "check").update(source="f(trust_remote_code=True)")),
    "dead code": (code_problems, lambda n: first(n, "check").update(source="if False:\n    pass")),
    "a distant tone": (prose_problems, lambda n: n["cells"][0].update(source="请您运行“你好”")),
}


@pytest.mark.parametrize("name", BREAKS)
def test_rules_can_fail(tmp_path, name):
    rule, damage = BREAKS[name]
    original = NOTEBOOKS[2]
    notebook = json.loads(original.read_text(encoding="utf-8"))
    damage({**notebook, "section": original.name[:3]})
    copy = tmp_path / original.name
    copy.write_text(json.dumps(notebook, ensure_ascii=False), encoding="utf-8")
    assert set(rule(copy)) - set(rule(original)), f"{rule.__name__} does not notice {name}"


def test_quotations_may_say_nin(tmp_path):
    path = tmp_path / "7.9.ipynb"
    cell = {"cell_type": "markdown", "metadata": {}, "source": "数据里写“您好”，代码 `您`。\n\n> 幻灯片：您"}
    path.write_text(json.dumps({"cells": [cell]}, ensure_ascii=False), encoding="utf-8")
    assert prose_problems(path) == []
