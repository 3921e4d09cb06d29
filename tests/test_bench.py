"""The benchmark: one evaluation for all, the course's own cells as contestant, tables made from the results alone."""

import importlib
import json
import os
import time

import pytest

from benchmarks import common, race, report
from benchmarks.contestants import course


def run_of(name, seed, losses, peak):
    points = [[10.0 * i, loss] for i, loss in enumerate(losses)]
    return dict(
        contestant=name,
        seed=seed,
        seconds=points[-1][0],
        peak_mib=peak,
        loop_seconds=points[-1][0] / 2,
        tokens_per_second=100.0,
        supervised_per_second=50.0,
        points=points,
    )


@pytest.fixture
def result():
    runs = [
        run_of("slides", 0, [3.5, 3.2, 3.0], 4000.0),
        run_of("trl", 0, [3.5, 3.4, 3.3], 3000.0),
        run_of("course", 0, [3.5, 2.9, 2.8], 1000.0),
        run_of("course", 1, [3.5, 3.1, 3.05], 1200.0),
        run_of("slides", 1, [3.5, 3.3, 3.1], 4200.0),
        run_of("trl", 1, [3.5, 3.4, 3.1], 3000.0),
    ]
    return dict(
        date="2000-01-02",
        machine=dict(cpu="a processor", cores=2, threads=2),
        settings=dict(rows=8, held_out=2, tokens=1600, supervised=800),
        runs=runs,
        summary=race.summary(runs),
    )


def test_summary_takes_each_rounds_own_target(result):
    summary = result["summary"]
    assert summary["slides"]["to_target"] == [20.0, 20.0, 20.0]
    assert summary["course"]["to_target"] == [10.0, 10.0, 10.0]
    assert summary["trl"]["to_target"] is None  # missed in round 1, though reached in round 2
    assert summary["course"]["peak_mib"] == [1100.0, 1000.0, 1200.0]
    ratios = report.ratios(result)
    assert ratios["slides"]["to_target"] == 0.5 and "to_target" not in ratios["trl"]


def test_one_contestant_measured_again_keeps_the_others_of_the_same_settings_and_machine(result):
    result["libraries"] = {name: {"torch": name} for name in ("slides", "trl", "course")}
    runs, libraries = race.kept(result, ["course"], result["settings"], result["machine"], 2)
    assert [run["contestant"] for run in runs] == ["slides", "trl", "slides", "trl"]
    assert {run["date"] for run in runs} == {"2000-01-02"} and libraries.keys() == {"slides", "trl"}
    with pytest.raises(ValueError, match="another settings"):
        race.kept(result, ["course"], result["settings"] | dict(rows=9), result["machine"], 2)
    with pytest.raises(ValueError, match="another machine"):
        race.kept(result, ["course"], result["settings"], result["machine"] | dict(cores=4), 2)
    with pytest.raises(ValueError, match="another rounds"):
        race.kept(result, ["course"], result["settings"], result["machine"], 3)


def test_tables_hold_the_figures_of_the_json_in_both_readmes(result):
    own = dict(loss="7.6", step_seconds=[2.0, 3.0], tokens=[400, 420], matrix_share=0.65, limit_seconds=0.8)
    profile = dict(results=[own | dict(gflops=dict(float32=90.0, bfloat16=180.0))])
    speeds = [dict(peak_mib=1803.0, tokens_per_second=250.0), dict(peak_mib=1238.0, tokens_per_second=164.0)]
    ablation = dict(base="7.6", results=dict(zip(("7.6", "activation checkpointing on"), speeds, strict=True)))
    for readme in report.HEADS:
        text = report.table(result, profile, ablation, readme)
        assert "0.50 (" in text and " ≤ 0.2)" in text and "65%" in text and "2.50 " in text and "0.40 " in text
        assert report.GOAL_HEADS[readme][-1] in text and "1238" in text and "1803 MiB" in text and "164" in text
        assert "10 [10, 10]" in text and "1100 [1000, 1200]" in text and "2.925 [2.800, 3.050]" in text
        assert report.HEADS[readme][-1] in text and "a processor" in text and "2000-01-02" in text
        again = report.table(result | dict(afterwards=["course"]), profile, ablation, readme)
        sentence = report.LATER[readme].split("{")[0]
        assert sentence in again and sentence not in text
        page = (report.ROOT / readme).read_text(encoding="utf-8")
        once = report.insert(page, text, readme)
        assert report.insert(once, text, readme) == once and text in once
    with pytest.raises(ValueError, match="README"):
        report.insert("no marks here", "text", "README")


def test_readmes_show_the_committed_results():
    found = report.read("race")
    for readme in report.HEADS:
        page = (report.ROOT / readme).read_text(encoding="utf-8")
        inside = page.split(report.START)[1].split(report.END)[0]
        assert inside.strip() == (
            "" if found is None else report.table(found, report.read("profile"), report.read("ablation"), readme)
        ), f"{readme}: python -m benchmarks.report"


def test_figure_is_drawn(result, tmp_path):
    steps = dict(tokens_per_second=100.0, settings={})
    ablation = dict(base="7.6", results={"7.6": steps, "lr": steps | dict(settings=dict(learn=4))})
    report.figure(result, ablation, tmp_path / "bench.png")
    assert (tmp_path / "bench.png").read_bytes()[:4] == b"\x89PNG"


def test_every_contestant_gets_the_same_rows_and_no_evaluation_code_of_its_own():
    shared = dict(model="model", data="data")
    for name in race.LABELS:
        command = race.command(name, dict.fromkeys(race.LABELS, "bin/python"), shared, "out", 3)
        joined = " ".join(map(str, command))
        assert "model" in joined and "out" in joined and "3" in joined and "data" in joined
        script = next((race.HERE / part for part in map(str, command) if part.endswith((".py", ".yaml"))), None)
        source = script.read_text(encoding="utf-8") if script else (race.HERE / "course.py").read_text(encoding="utf-8")
        assert "token_losses" not in source and "benchmarks.evaluate" not in source
        assert "save_steps=0.1" in source or "save_steps: 0.1" in source


def test_the_course_runs_the_cells_of_the_notebook():
    cells = "\n".join(course.recipe_cells())
    for part in (
        "class DoctorTrainer",
        "trainer = trainer_class(",
        "peft_config = lora_config(",
        "assistant_only_loss=True",
    ):
        assert part in cells


def test_saved_adapters_in_order_of_their_time(tmp_path):
    now = time.time()
    for step, age in ((20, 5), (10, 15)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "adapter_model.safetensors").touch()
        os.utime(folder / "adapter_model.safetensors", (now - age, now - age))
    found = race.saved_adapters(tmp_path, now - 20)
    assert [folder.name for _, folder in found] == ["checkpoint-10", "checkpoint-20"]
    assert [round(seconds) for seconds, _ in found] == [5, 15]


def test_measured_child_process(tmp_path):
    import sys

    grandchild = "import time; x = b'x' * (80 << 20); time.sleep(1)"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {grandchild!r}])"
    measured = common.run_measured([sys.executable, "-c", code], tmp_path / "log")
    assert measured["peak_mib"] > 85 and measured["seconds"] > 1  # the grandchild's memory counts
    with pytest.raises(RuntimeError, match="broken here"):
        common.run_measured([sys.executable, "-c", "raise SystemExit('broken here')"], tmp_path / "log")


def test_results_carry_date_machine_and_versions(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(common, "ROOT", tmp_path)
    saved = json.loads(common.save("x", dict(results=[1])).read_text(encoding="utf-8"))
    assert saved["results"] == [1] and len(saved["date"]) == 10
    assert saved["machine"]["cores"] >= 1 and saved["machine"]["memory_gib"] > 0 and "torch" in saved["versions"]


def test_loss_of_the_supervised_positions_is_the_full_loss_with_its_gradients():
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=97)
    model = LlamaForCausalLM(LlamaConfig(**sizes))
    ids = torch.randint(0, 97, (3, 12))
    mask = torch.ones_like(ids)
    mask[1, 9:] = 0  # padding
    labels = ids.masked_fill((mask == 0) | (torch.arange(12) < 6), -100)
    names = dict(torch=torch, SFTTrainer=object)
    exec(next(cell for cell in course.recipe_cells() if "class DoctorTrainer" in cell), names)
    compute_loss = names["DoctorTrainer"].compute_loss

    def loss_and_gradients(loss):
        model.zero_grad()
        loss.backward()
        return loss.item(), torch.cat([p.grad.flatten() for p in model.parameters()])

    inputs = dict(input_ids=ids, attention_mask=mask)
    expected, gradients = loss_and_gradients(model(**inputs, labels=labels).loss)
    loss, own = loss_and_gradients(compute_loss(None, model, {**inputs, "labels": labels.clone()}))
    assert abs(loss - expected) < 1e-5 and torch.allclose(own, gradients, atol=1e-5) and gradients.abs().max() > 1e-3
    count = torch.tensor(2 * int((labels[:, 1:] != -100).sum()))  # twice as many tokens: gradient accumulation
    halved = compute_loss(None, model, {**inputs, "labels": labels.clone()}, num_items_in_batch=count)
    assert abs(halved.item() - expected / 2) < 1e-5


@pytest.mark.parametrize("path", sorted((report.ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_every_benchmark_can_be_loaded(path):
    importlib.import_module(f"benchmarks.{path.stem}")  # its work begins under __main__


def test_more_chats_than_there_are_is_an_error():
    from benchmarks.mixing import chats
    from helpers.formatting import encode_chat, set_chat_template
    from helpers.models import load_tokenizer
    from helpers.sizes import SMOLLM2

    tokenizer = set_chat_template(load_tokenizer(SMOLLM2))
    found = chats(3, tokenizer, 256)
    assert len(found) == 3 and all(messages[-1]["role"] == "assistant" for messages in found)
    assert all(len(encode_chat(tokenizer, messages)["input_ids"]) <= 256 for messages in found)
    with pytest.raises(ValueError, match="10000 were asked for"):
        chats(10_000, tokenizer, 256)
