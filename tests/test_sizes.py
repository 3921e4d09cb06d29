"""Which size fits the machine, and what follows from it."""

from types import SimpleNamespace

import pytest
import torch
from trl import SFTConfig  # noqa: F401  (before a GPU is feigned: its import asks CUDA for more than can be feigned)

from helpers import sizes


def gpu(monkeypatch, name, capability, gib):
    """Pretend that torch sees one CUDA device with these properties."""
    properties = SimpleNamespace(name=name, major=capability[0], minor=capability[1], total_memory=int(gib * 2**30))
    monkeypatch.delenv("COURSE_SIZE", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda *_: properties)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda *_: name)


def test_t4_computes_in_fp16_although_torch_says_that_it_supports_bf16(monkeypatch):
    gpu(monkeypatch, "Tesla T4", (7, 5), 14.7)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda *_: True)
    assert sizes.detect_size() == "t4"
    assert sizes.compute_dtype() == torch.float16
    hardware = sizes.trainer_hardware()
    assert hardware["fp16"] and not hardware["bf16"] and not hardware["use_cpu"]


def test_large_gpu(monkeypatch):
    gpu(monkeypatch, "NVIDIA A100", (8, 0), 39.4)
    assert sizes.detect_size() == "gpu" and sizes.compute_dtype() == torch.bfloat16


def test_cpu_uses_bf16_only_where_the_processor_multiplies_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert sizes.compute_dtype() == torch.float32
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": True})
    assert sizes.compute_dtype() == torch.bfloat16


def test_unknown_size_is_refused_in_one_sentence(monkeypatch):
    monkeypatch.setenv("COURSE_SIZE", "huge")
    with pytest.raises(ValueError, match="'huge' is unknown: use one of smoke, cpu, t4, gpu"):
        sizes.run_size("7.3")


def test_gpu_size_without_gpu_is_refused(monkeypatch):
    monkeypatch.setenv("COURSE_SIZE", "t4")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="use COURSE_SIZE=cpu"):
        sizes.run_size("7.3")


@pytest.mark.parametrize("section", sizes.SECTIONS)
def test_every_size_defines_the_same_fields(monkeypatch, section):
    fields = {}
    for size in sizes.SIZES:
        if size in ("t4", "gpu"):
            gpu(monkeypatch, "Tesla T4", (7, 5), 14.7)
        monkeypatch.setenv("COURSE_SIZE", size)
        fields[size] = set(vars(sizes.run_size(section))) - {"fallback"}
    assert len(set(map(frozenset, fields.values()))) == 1, fields
