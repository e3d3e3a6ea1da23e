"""The torch arithmetic: beside NumPy's, on a device that cannot be read, and with TF32 allowed around it."""

import weakref
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from pmrl_cli.closed_form import arithmetic
from pmrl_cli.closed_form.arithmetic import CPU, _Torch, arithmetic_on
from pmrl_cli.closed_form.columns import ProjectionFitter
from pmrl_cli.closed_form.extension import extend
from pmrl_cli.closed_form.init import GccaConfig, solve_gcca_init, whiten
from pmrl_cli.closed_form.moments import ColumnMoments, CrossMoments, SecondMoment
from pmrl_cli.closed_form.projected import project
from pmrl_cli.closed_form.projection import FeatureMap
from pmrl_cli.data import dataset
from pmrl_cli.data.dataset import Features
from pmrl_cli.files.durable.scratch import Scratch
from pmrl_cli.fit import context
from pmrl_cli.fit.fit import fit
from pmrl_cli.model import members
from pmrl_cli.process_group import SINGLE_PROCESS
from tests.train.test_fit import settings_for, simulate

LINEAR, KERNEL = FeatureMap("linear", squash=False), FeatureMap("kernel", squash=True, landmarks=64)


def projected(data, features, on):
    """The projected data of a fit on four fifths of the instances."""
    train, everyone = np.flatnonzero(np.arange(len(data)) % 5), np.arange(len(data))
    projections = ProjectionFitter(data, train, seed=0, arithmetic=on).fit(features)
    return project(data, everyone, train, projections, cross=True, scratch=Scratch(), arithmetic=on)


def init_of(data, features):
    config = GccaConfig(features, 0.1, 1.0, 8)
    init = solve_gcca_init(data, config, "gcca")
    return init, whiten(data, init)


@pytest.mark.parametrize("features", [LINEAR, KERNEL], ids=str)
@pytest.mark.parametrize("rows", [300, 14])  # fewer rows than columns keep their rows
def test_a_start_on_a_device_is_that_of_the_cpu(monkeypatch, torch_on, features, rows):
    monkeypatch.setattr(dataset, "BLOCK_BYTES", 4 * 30 * 50)
    outputs = []
    for on in (CPU, torch_on):
        init, data = init_of(projected(simulate(rows, missing=0.4), features, on), features)
        outputs.append([c.numpy() @ m for c, m in zip(data.take(data.rows), init.maps, strict=True)])
        assert all(isinstance(array, np.ndarray) for p in data.projections for array in p.arrays().values())
        assert all((np.abs(c).sum(1) > 0).tolist() == data.present[:, m].tolist() for m, c in enumerate(outputs[-1]))
    # Axes may have other signs: what instances are to each other has not.
    for m, n in ((0, 0), (0, 1), (1, 2)):
        wanted, mine = (one[m] @ one[n].T for one in outputs)
        np.testing.assert_allclose(mine, wanted, atol=2e-3 * np.abs(wanted).max())


@pytest.mark.parametrize("stored", ["float32", "float16", "bfloat16", "read-only", "shared"])
def test_rows_are_read_as_float32_whatever_they_are_stored_as(tmp_path, on, stored):
    array = np.random.default_rng(0).normal(size=(9, 4)).astype("float16" if stored == "float16" else "float32")
    features = Features("a", array)
    if stored == "bfloat16":
        features = Features("a", (array.view(np.uint32) >> 16).astype(np.uint16), bfloat16=True)
    elif stored == "read-only":
        np.save(tmp_path / "a.npy", array)
        features = Features("a", np.load(tmp_path / "a.npy", mmap_mode="r"))
    elif stored == "shared":
        features = Features("a", array, rows=np.array([3, 3, 0, 8, 1]))
    for rows in (np.array([0, 2, 3]), slice(1, 4)):
        read = on.fetch(on.read(features, rows))
        assert read.dtype == np.float32
        np.testing.assert_array_equal(read, features.read(rows))


def test_empty_blocks_and_single_rows_are_taken(on):
    columns, second, cross = ColumnMoments(3, on), SecondMoment(3, on), CrossMoments([3, 3], on)
    for rows in (np.zeros((0, 3), np.float32), np.array([[1, 2, 3]], np.float32), np.zeros((0, 3), np.float32)):
        block = on.send(rows)
        columns.add(block)
        second.add(block)
        cross.add([block, block], np.ones((len(rows), 2), bool))
    np.testing.assert_array_equal(columns.mean, [1, 2, 3])
    np.testing.assert_array_equal(columns.deviation, 0)
    axes, variances = second.principal_axes(3)
    assert axes.shape == (3, 0)
    assert variances.shape == (0,)
    np.testing.assert_array_equal(on.fetch(cross.products), np.tile(np.outer([1, 2, 3], [1, 2, 3]), (2, 2)))
    assert SecondMoment(3, on).principal_axes(3)[0].shape == (3, 0)


class Unreadable:
    """The device ``meta``, which has shapes and no numbers: what is read from it but by ``fetch`` is an error."""

    def __init__(self, monkeypatch):
        self.fetched = []
        monkeypatch.setattr(_Torch, "fetch", self.fetch)
        self.arithmetic = _Torch(torch.device("meta"))

    def fetch(self, array):
        assert array.device.type == "meta"
        self.fetched.append(array.numel())
        return torch.ones(array.shape, dtype=array.dtype).numpy()


def test_nothing_that_grows_with_the_rows_leaves_the_device(monkeypatch):
    monkeypatch.setattr(dataset, "BLOCK_BYTES", 4 * 30 * 100)
    fetched = []
    for rows in (150, 300):
        device = Unreadable(monkeypatch)
        for features in (LINEAR, KERNEL):
            data = projected(simulate(rows), features, device.arithmetic)
            assert {c.device.type for c in data.components} == {"meta"}
            init, _ = init_of(data, features)
            assert init.maps[0].shape == (data.projections[0].components, 8)
        extend(
            data.projections[0],
            simulate(rows),
            0,
            data.rows,
            ridge=0.1,
            processes=SINGLE_PROCESS,
            arithmetic=device.arithmetic,
        )
        fetched.append(device.fetched)
    assert fetched[0] == fetched[1]


class Held(TorchDispatchMode):
    """Counts the bytes of the tensors that are alive, views among them."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self.known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(found):
            if isinstance(tensor, torch.Tensor) and tensor not in self.known:
                self.known[tensor] = True
                self.count(tensor.nbytes)
                weakref.finalize(tensor, self.count, -tensor.nbytes)
        return found

    def count(self, size):
        self.now += size
        self.most = max(self.most, self.now)


def test_a_device_holds_as_much_however_many_rows_pass(monkeypatch):
    monkeypatch.setattr(dataset, "BLOCK_BYTES", 4 * 30 * 50)
    monkeypatch.setattr(arithmetic, "has_room", lambda *_: False)  # else the components grow with the rows
    most = []
    for rows in (250, 1000):
        with Held() as held:
            projected(simulate(rows), LINEAR, _Torch(torch.device("cpu")))
        most.append(held.most)
    assert most[0] == most[1] > 4 * 30 * 50


class Precisions(TorchDispatchMode):
    """Takes down how products of matrices were allowed to round."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.name().removeprefix("aten::") in ("mm", "mv", "addmm", "bmm", "dot", "matmul"):
            self.seen.append(torch.get_float32_matmul_precision())
        return func(*args, **(kwargs or {}))


def test_no_product_is_rounded_to_tf32(torch_on):
    torch.set_float32_matmul_precision("high")
    try:
        with Precisions() as precisions:
            for features in (LINEAR, KERNEL):
                init_of(projected(simulate(80), features, torch_on), features)
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
    assert len(precisions.seen) > 20
    assert set(precisions.seen) == {"highest"}


def test_components_that_have_no_room_are_kept_here(monkeypatch, torch_on):
    data = simulate(60)
    there = projected(data, LINEAR, torch_on)
    monkeypatch.setattr(arithmetic, "has_room", lambda *_: False)
    here = projected(data, LINEAR, torch_on)
    for array, tensor in zip(here.components, there.components, strict=True):
        assert isinstance(array, np.ndarray)
        np.testing.assert_array_equal(array, torch_on.fetch(tensor))
    np.testing.assert_array_equal(here.cross.arrays()[0], there.cross.arrays()[0])


def test_a_part_of_the_memory_stays_free(monkeypatch):
    monkeypatch.setattr(
        arithmetic.torch,
        "cuda",
        SimpleNamespace(
            mem_get_info=lambda _: (50, 100), memory_reserved=lambda _: 20, memory_allocated=lambda _: 10
        ),
    )
    assert [arithmetic.has_room(torch.device("cuda"), size) for size in (20, 21)] == [True, False]


def test_the_cpu_computes_with_numpy():
    assert arithmetic_on(torch.device("cpu")) is CPU
    assert arithmetic_on(torch.device("cuda", 1)) == _Torch(torch.device("cuda", 1))


def test_a_fit_and_its_vectors_on_a_device_are_those_of_the_cpu(monkeypatch, torch_on):
    data = simulate(200)
    settings = settings_for(adapter="auto", refit=True, mispaired=0.1, steps=8, batch_size=32)
    present = torch.from_numpy(data.present)
    features = [f.read(slice(0, len(data))) for f in data.modalities]
    found, vectors = [], []
    for on in (CPU, torch_on):
        for module in (context, members):
            monkeypatch.setattr(module, "arithmetic_on", lambda _, on=on: on)
        fitted = fit(data, settings)
        found.append(fitted)
        with torch.inference_mode():
            mask = present.to(getattr(on, "device", "cpu"))
            for member in fitted.members:
                member.encoder.to(mask.device)
            embedded = [member.embed(range(3), features, mask).vectors.cpu() for member in fitted.members]
        vectors.append([one.numpy() * data.present[..., None] for one in embedded])
    mine, wanted = found[1], found[0]
    assert [r.name for r in mine.tried] == [r.name for r in wanted.tried]
    assert [r.closed_form.config for r in mine.tried] == [r.closed_form.config for r in wanted.tried]
    # A near tie among forty may fall otherwise.
    for one, other in zip(mine.tried, wanted.tried, strict=True):
        assert one.closed_form.held_out.mrr == pytest.approx(other.closed_form.held_out.mrr, abs=1e-3)
    assert mine.held_out.mrr == pytest.approx(wanted.held_out.mrr, abs=2e-3)
    assert [r.name for r in mine.recipes] == [r.name for r in wanted.recipes]
    for one, other in zip(*vectors, strict=True):
        cosines = [np.einsum("nad,nbd->nab", v, v) for v in (one, other)]
        np.testing.assert_allclose(*cosines, atol=5e-3)
