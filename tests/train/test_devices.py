"""How this CPU multiplies: never with less than float32, and with oneDNN only where that is faster. Memory, seeds."""

from types import SimpleNamespace

import pytest
import torch

from pmrl_cli.train import devices
from pmrl_cli.train.devices import PRODUCT_ERROR, choose_matmul
from pmrl_cli.train.draws import seed_torch


@pytest.fixture(autouse=True)
def _unchanged():
    yield
    torch.set_float32_matmul_precision("highest")


def test_products_are_float32_whatever_is_chosen():
    chosen = choose_matmul()
    assert torch.get_float32_matmul_precision() == {"default": "highest", "onednn": "medium"}[chosen]
    a, b = (torch.randn(700, 700, generator=torch.Generator().manual_seed(seed)) for seed in (5, 6))
    exact = a.double() @ b.double()
    assert float(((a @ b).double() - exact).norm() / exact.norm()) <= PRODUCT_ERROR


@pytest.mark.parametrize(
    ("error", "ratio", "chosen"), [(2e-3, 4.0, "default"), (0.0, 2.0, "onednn"), (0.0, 1.1, "default")]
)
def test_faster_products_are_taken_only_if_they_are_float32(monkeypatch, error, ratio, chosen):
    # A processor whose other products have this error and are so many times faster.
    clock, matmul = [0.0], torch.Tensor.__matmul__

    def timed(a, b):
        fast = torch.get_float32_matmul_precision() == "medium"
        clock[0] += 1 / ratio if fast else 1.0
        return matmul(a, b) * (1 + error if fast else 1)

    monkeypatch.setattr(torch.Tensor, "__matmul__", timed)
    monkeypatch.setattr(devices.time, "thread_time", lambda: clock[0])
    torch.set_float32_matmul_precision("highest")
    monkeypatch.setattr(torch, "set_float32_matmul_precision", lambda word: state.__setitem__(0, word))
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: state[0])
    state = ["highest"]
    assert choose_matmul() == chosen
    assert state[0] == {"default": "highest", "onednn": "medium"}[chosen]


def test_freed_memory_is_kept_by_glibc_and_other_libraries_are_left_alone(monkeypatch):
    asked = []
    glibc = SimpleNamespace(gnu_get_libc_version=None, mallopt=lambda *what: asked.append(what))
    for libc, wanted in ((glibc, [(-3, 2**25), (-1, 2**30)]), (SimpleNamespace(), [])):
        asked.clear()
        monkeypatch.setattr(devices.ctypes, "CDLL", lambda _, libc=libc: libc)
        devices.tune_malloc()
        assert asked == wanted


def test_generators_of_all_devices_in_use_start_at_the_same_number(monkeypatch):
    seeds = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    for in_use in (False, True):
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda in_use=in_use: in_use)
        with torch.random.fork_rng(devices=[]):
            seed_torch(3, "instances", 7)
            assert len(seeds) == in_use
            assert not seeds or seeds[0] == torch.default_generator.initial_seed()
