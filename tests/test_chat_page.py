"""The chat page in a real headless browser, served as `make bot` serves it, by the real SmolLM2-135M.

`python -m tests.test_chat_page` takes the README's screenshot of the page with the newest adapter instead.
"""

import json
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from contextlib import contextmanager
from pathlib import Path

import pytest

from helpers import consultation

ROOT = Path(__file__).resolve().parent.parent
SCREENSHOT = ROOT / "benchmarks" / "figures" / "chat_page.png"
BROWSER = next(filter(None, map(shutil.which, ("google-chrome", "chromium", "chromium-browser"))), None)
FLAGS = "--no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync --no-first-run"
QUESTION = "医生，我全身疼痛，发烧38.5，还有咳嗽，请问该咋办？"  # the slide's
LAST = ".bot.message"  # an answer in the chat
WAIT = 60_000  # milliseconds, for a busy machine


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(*options, log):
    """Run the Makefile's line of `make bot` on a free port; yield (process, address)."""
    line = re.search(r"^bot:.*\n\t\$\(RUN\) (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)[1]
    port = free_port()
    command = [sys.executable, *shlex.split(line), "--port", str(port), *map(str, options)]
    with open(log, "w", encoding="utf-8") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.STDOUT)
    try:
        address, limit = f"http://127.0.0.1:{port}", time.monotonic() + 120
        while address not in log.read_text(encoding="utf-8"):
            assert process.poll() is None and time.monotonic() < limit, log.read_text(encoding="utf-8")
            time.sleep(0.1)
        yield process, address
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def browsing():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=FLAGS.split())
        yield browser
        browser.close()


def ask(tab, text):
    tab.get_by_label("患者的话").fill(text)
    tab.get_by_role("button", name="发送").click()


def press(tab, name):
    tab.get_by_role("button", name=name, exact=True).click()


def used(tab):
    """Return the tokens that the budget shows as used."""
    return int(re.search(r"已用 (\d+) / 1024", tab.inner_text("body"))[1])


def answers(tab):
    return tab.locator(LAST).all_inner_texts()


def wait_for(condition, seconds=WAIT / 1000):
    """Wait until ``condition()`` is true and return it; raise AssertionError after ``seconds``."""
    limit = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < limit, f"{condition} stayed {value!r}"
        time.sleep(0.05)
    return value


def write_adapter(folder):
    """Write a LoRA checkpoint that changes what the model says: one layer, random numbers."""
    import numpy as np
    from safetensors.numpy import save_file

    from helpers.models import SMOLLM2

    folder.mkdir(parents=True)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": SMOLLM2, "r": 1}
    config |= {"lora_alpha": 1, "target_modules": r".*layers\.20\.mlp\.down_proj"}
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    draw = np.random.default_rng(0)
    weights = {"lora_A": draw.normal(size=(1, 1536)), "lora_B": draw.normal(size=(576, 1))}
    place = "base_model.model.model.layers.20.mlp.down_proj"
    tensors = {f"{place}.{name}.weight": (0.1 * value).astype("float32") for name, value in weights.items()}
    save_file(tensors, folder / "adapter_model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt"):
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr("data", "")
    (folder / "trainer_state.json").write_text('{"global_step": 7}', encoding="utf-8")


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    if BROWSER is None:
        pytest.skip("no google-chrome and no chromium is installed: the chat page is not tested in a browser")
    folder = tmp_path_factory.mktemp("bot")
    write_adapter(folder / "checkpoint-7")
    with serving("--checkpoints", folder, log=folder / "log.txt") as running:
        yield running


@pytest.fixture(scope="module")
def browser(server):
    with browsing() as browser:
        yield browser


@pytest.fixture
def tab(browser, server):
    """A new tab with the page; it may ask nobody but the server."""
    with browser.new_page(viewport={"width": 1200, "height": 900}) as tab:
        hosts = set()
        tab.on("request", lambda request: hosts.add(re.match(r"\w+:(//[^/:]*|)", request.url)[1]))
        tab.goto(server[1])
        tab.get_by_role("button", name="发送").wait_for(timeout=WAIT)
        yield tab
        assert hosts <= {"//127.0.0.1", ""}, hosts


def test_served_to_this_machine_alone_and_says_which_model(server, tab):
    import psutil

    process, address = server
    listening = {c.laddr.ip for c in psutil.Process(process.pid).net_connections("inet") if c.status == "LISTEN"}
    assert listening == {"127.0.0.1"}
    assert "7.6 的适配器 checkpoint-7" in tab.inner_text("body")
    tab.set_viewport_size({"width": 390, "height": 844})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 390


def test_ask_stream_stop_before_and_after_memory_clear(server, tab):
    import psutil

    ask(tab, QUESTION)
    first = wait_for(lambda: next((a for a in answers(tab) if "模型生成（微调后）" in a), None))
    longer = wait_for(lambda: next((a for a in answers(tab) if len(a) > len(first)), None))
    wait_for(lambda: len(answers(tab)[0]) > len(longer))
    press(tab, "停止")
    press(tab, "停止")
    wait_for(lambda: "停下了" in answers(tab)[0])
    stopped, budget = answers(tab)[0], used(tab)
    assert tab.inner_text("body").count("字面相似度") == 3 and "虚构" in tab.inner_text("body")
    clock = psutil.Process(server[0].pid)
    before = sum(clock.cpu_times()[:2])
    tab.wait_for_timeout(1000)
    assert sum(clock.cpu_times()[:2]) - before < 0.5, "the model goes on after stop"
    assert answers(tab) == [stopped] and budget < 1024 - 160

    tab.get_by_label("微调前").check()
    ask(tab, QUESTION)
    wait_for(lambda: len(answers(tab)) == 2 and "模型生成（微调前）" in answers(tab)[1])
    assert used(tab) > budget + 20  # the second prompt holds the first question and answer
    press(tab, "停止")
    wait_for(lambda: "停下了" in answers(tab)[1])
    assert tab.inner_text("body").count(consultation.DISCLAIMER) == 1

    press(tab, "清空")
    wait_for(lambda: not answers(tab) and used(tab) == 0)
    assert "字面相似度" not in tab.inner_text("body") and QUESTION not in tab.inner_text("body")


def test_an_emergency_does_not_wait_for_another_tab(browser, server, tab):
    ask(tab, QUESTION)
    wait_for(lambda: any("模型生成" in a for a in answers(tab)))
    with browser.new_page() as other:
        other.goto(server[1])
        other.get_by_role("button", name="发送").wait_for(timeout=WAIT)
        growing = answers(tab)[0]
        ask(other, "我爸突然胸口压着疼，出冷汗，喘不上气")
        other.get_by_role("alert").wait_for(timeout=5000)
        assert "120" in other.get_by_role("alert").inner_text()
        wait_for(lambda: answers(other), 5)
        assert consultation.EMERGENCY in answers(other)[0] and "模型生成" not in answers(other)[0]
        assert "字面相似度" not in other.inner_text("body") and used(other) == 0
        other.wait_for_timeout(500)
        assert len(answers(other)) == 1  # the model adds nothing and takes nothing away
        wait_for(lambda: len(answers(tab)[0]) > len(growing))
        ask(tab, "我爸突然胸口压着疼，出冷汗，喘不上气")  # in the tab whose reply still grows
        wait_for(lambda: len(answers(tab)) == 2 and consultation.EMERGENCY in answers(tab)[1], 5)
        assert "停下了" in answers(tab)[0] and "字面相似度" not in tab.inner_text("body")
        press(other, "清空")
        wait_for(lambda: not other.get_by_role("alert").count())


def test_empty_long_and_foreign_messages(tab):
    ask(tab, "   ")
    tab.wait_for_timeout(500)
    assert not answers(tab)
    ask(tab, "我" * 3000)
    tab.get_by_text("这段话太长").wait_for(timeout=WAIT)
    assert not answers(tab) and used(tab) == 0
    assert len(tab.get_by_label("患者的话").input_value()) == 3000  # to be shortened, not to be typed again
    ask(tab, "My chest hurts and I cannot breathe")
    wait_for(lambda: answers(tab))
    assert "Please write in Chinese" in answers(tab)[0] and "120" in answers(tab)[0]


def test_without_an_adapter_the_base_model_answers_and_says_so(tmp_path, monkeypatch):
    from helpers.bot import load_bot

    monkeypatch.setenv("COURSE_SIZE", "smoke")
    model, _, name = load_bot(tmp_path)
    assert "还没有微调" in name and not hasattr(model, "disable_adapter")


def take_screenshot():
    """Ask the slide's question on the page with the newest adapter and save what the browser shows."""
    log = ROOT / "outputs" / "bot.log"
    log.parent.mkdir(exist_ok=True)
    with serving(log=log) as (_, address), browsing() as browser:
        tab = browser.new_page(viewport={"width": 1200, "height": 900})
        tab.goto(address)
        tab.get_by_role("button", name="发送").wait_for(timeout=WAIT)
        ask(tab, QUESTION)
        wait_for(lambda: any("模型生成" in a for a in answers(tab)))
        last = ""
        while answers(tab)[0] != last:  # until it grows no more
            last = answers(tab)[0]
            tab.wait_for_timeout(3000)
        SCREENSHOT.parent.mkdir(parents=True, exist_ok=True)
        tab.screenshot(path=SCREENSHOT)
    print(
        f"{SCREENSHOT.relative_to(ROOT)}: {SCREENSHOT.stat().st_size / 1000:.0f} kB\n{log.read_text(encoding='utf-8')}"
    )


if __name__ == "__main__":
    take_screenshot()
