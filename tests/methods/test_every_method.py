"""What holds for every method: edges, masks, orders of those whose loss is one of the embeddings; the settings."""

import itertools

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch.nn.functional import normalize

from pmrl_cli.aligner import Aligner
from pmrl_cli.data.dataset import Dataset, Features
from pmrl_cli.errors import UsageError
from pmrl_cli.fit.context import Hooks
from pmrl_cli.methods import REGISTRY, make_method, method_class, settings_of
from pmrl_cli.train.loop import Interrupted
from tests.reference.agreement import ON_VECTORS, draw, make_objective

EVERY = pytest.mark.parametrize("name", ON_VECTORS)

# These draw shuffles or subsets by place, and so depend on the order of the instances and modalities.
DRAWING = {"pmrl", "symile"}


def value_and_gradient(name, vectors, present, settings=None):
    vectors = vectors.clone().requires_grad_()
    torch.manual_seed(0)
    objective = make_objective(name, settings or {})
    value = objective(vectors, present).value
    value.backward()
    learned = [parameter.grad for parameter in objective.parameters()]
    assert all(gradient is not None and gradient.isfinite().all() for gradient in learned)
    assert value.isfinite()
    return value.detach(), vectors.grad, learned


@EVERY
@pytest.mark.parametrize("case", ["identical", "collapsed", "orthonormal", "opposite", "cancelling", "two the same"])
def test_degenerate_batches_have_finite_gradients(name, case):
    one = normalize(torch.ones(1, 6), dim=-1)
    different = normalize(torch.randn(4, 1, 6, generator=torch.Generator().manual_seed(0)), dim=-1)
    vectors = {
        "identical": different.expand(4, 3, 6),
        "collapsed": one.expand(4, 3, 6),
        "orthonormal": torch.eye(6)[:3].expand(4, 3, 6),
        "opposite": different * torch.tensor([1.0, 1.0, -1.0])[:, None],
        "cancelling": torch.tensor([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]]).expand(4, 3, 2),
        "two the same": torch.cat([different, different, different.flip(0)], 1),
    }[case]
    _, gradient, _ = value_and_gradient(name, vectors, torch.ones(4, 3, dtype=torch.bool))
    assert gradient.isfinite().all()
    assert gradient.norm(dim=-1).max() < 1000


@EVERY
@pytest.mark.parametrize("case", ["empty", "nothing present", "no instance has two"])
def test_loss_is_a_differentiable_zero_when_no_instance_contributes(name, case):
    embeddings, _ = draw(5, 3, 4)
    present = torch.zeros(5, 3, dtype=torch.bool)
    if case == "no instance has two" and name != "pmrl-paper":  # whose instance part contrasts single modalities too
        present[torch.arange(5), torch.arange(5) % 3] = True
    rows = slice(0, 0) if case == "empty" else slice(None)
    value, gradient, learned = value_and_gradient(name, embeddings[rows], present[rows])
    assert value == 0
    assert (gradient == 0).all()
    assert all((g == 0).all() for g in learned)


@pytest.mark.parametrize("name", [name for name in ON_VECTORS if name not in ("pmrl-paper", "triangle")])
def test_one_modality_is_a_zero_of_the_graph(name):
    embeddings, _ = draw(5, 1, 4)
    value, gradient, learned = value_and_gradient(name, embeddings, torch.ones(5, 1, dtype=torch.bool))
    assert value == 0
    assert (gradient == 0).all()
    assert all((g == 0).all() for g in learned)


@EVERY
def test_one_instance_has_a_finite_loss_and_gradient(name):
    embeddings, _ = draw(1, 3, 8)
    _, gradient, _ = value_and_gradient(name, embeddings, torch.ones(1, 3, dtype=torch.bool))
    assert gradient.isfinite().all()


@EVERY
@pytest.mark.parametrize("garbage", [0.0, 1e6])
def test_absent_modalities_are_neither_seen_nor_moved(name, garbage):
    embeddings, present = draw(12, 3, 8)
    present[:4] = True
    wanted, wanted_gradient, _ = value_and_gradient(name, embeddings, present)
    found, gradient, _ = value_and_gradient(name, embeddings.masked_fill(~present[..., None], garbage), present)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(gradient, wanted_gradient)
    assert (gradient[~present] == 0).all()
    assert gradient[present].abs().max() > 0


@EVERY
def test_an_instance_with_nothing_changes_nothing(name):
    embeddings, present = draw(12, 3, 8)
    present[:4] = True
    present[9:] = False
    wanted, _, _ = value_and_gradient(name, embeddings[:9], present[:9])
    found, _, _ = value_and_gradient(name, embeddings, present)
    torch.testing.assert_close(found, wanted)


@EVERY
def test_orders_and_rotations_change_nothing(name):
    embeddings, present = draw(10, 3, 8)
    present[:4] = True
    value, _, _ = value_and_gradient(name, embeddings, present)
    if name not in ("symile", "vicreg"):  # these are written in coordinates
        q, _ = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64))
        torch.testing.assert_close(value_and_gradient(name, embeddings @ q, present)[0], value)
    if name not in DRAWING:
        order = torch.randperm(10, generator=torch.Generator().manual_seed(4))
        torch.testing.assert_close(value_and_gradient(name, embeddings[order], present[order])[0], value)
        anchored = {"anchor": 2.0} if "anchor" in settings_of(name) else {}
        flipped = value_and_gradient(name, embeddings.flip(1), present.flip(1), anchored)[0]
        torch.testing.assert_close(flipped, value)


@pytest.mark.parametrize("name", [name for name in ON_VECTORS if name != "symile"])  # see test_symile.py
def test_aligned_instances_that_differ_cost_less_than_unrelated_ones(name):
    unrelated, _ = draw(32, 3, 16, shared=0.0)
    aligned = unrelated[:, :1].expand(32, 3, 16)
    present = torch.ones(32, 3, dtype=torch.bool)
    assert value_and_gradient(name, aligned, present)[0] < value_and_gradient(name, unrelated, present)[0]


@EVERY
def test_single_precision_agrees_with_double(name):
    embeddings, present = draw(24, 3, 16)
    present[:8] = True
    double, double_gradient, _ = value_and_gradient(name, embeddings, present)
    single, gradient, _ = value_and_gradient(name, embeddings.float(), present)
    torch.testing.assert_close(single, double.float(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        gradient, double_gradient.float(), rtol=1e-3, atol=1e-4 * double_gradient.abs().max().item()
    )


@pytest.mark.parametrize("name", [name for name in REGISTRY if "anchor" in settings_of(name)])
@pytest.mark.parametrize(("anchor", "words"), [(3, "anchor=3 with 3"), (-1, "anchor=-1"), (0.5, "anchor=0.5")])
def test_an_anchor_that_is_not_there_is_refused(name, anchor, words):
    with pytest.raises(UsageError, match=words):
        make_method(name, {"anchor": anchor}).check(3)


@pytest.fixture(scope="module")
def instances():
    """Instances of three modalities, a third of them without the last, with classes that some lack."""
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(90, 4))
    present = np.ones((90, 3), dtype=bool)
    present[::3, 2] = False
    arrays = [np.tanh(latent @ rng.normal(size=(4, 6))) + 0.2 * rng.normal(size=(90, 6)) for _ in range(3)]
    features = tuple(
        Features(f"m{m}", (a * present[:, [m]]).astype(np.float32), digest=f"digest {m}")
        for m, a in enumerate(arrays)
    )
    classes = np.where(latent[:, 0] > 0, "yes", "no").astype(object)
    classes[::5] = None
    ids = pa.array([f"i{i}" for i in range(90)], pa.large_string())
    return Dataset(ids, features, present, {"class": pa.array(classes)})


ALL = pytest.mark.parametrize("name", [name for name in REGISTRY if "base_model" not in method_class(name).needs])


def fitted(name, instances, checkpoint=None, hooks=Hooks()):
    target = "class" if "labels" in method_class(name).needs else None
    settings = {"steps": 4, "batch_size": 24, "adapter": "linear", "dropout": 0.2, "refit": False, "seed": 3}
    aligner = Aligner(objective=name, target=target, device="cpu", **settings)
    return aligner.fit(instances, checkpoint=checkpoint, hooks=hooks)


@ALL
def test_it_trains_and_is_read_back_and_continues_bit_for_bit(name, instances, tmp_path):
    whole = fitted(name, instances)
    calls = itertools.count()
    middle = 3 + method_class(name).closed_form_stands_in  # of the run that trains, after the start if there is one
    with pytest.raises(Interrupted):
        fitted(name, instances, tmp_path / "state", Hooks(should_stop=lambda: next(calls) == middle))
    resumed = fitted(name, instances, tmp_path / "state")
    assert resumed.texts["history.csv"] == whole.texts["history.csv"]
    again = Aligner.load(whole.save(tmp_path / "model"), device="cpu")
    for expected, same, read in zip(*(one.embed(instances) for one in (whole, resumed, again)), strict=True):
        assert expected.extra.keys() == same.extra.keys() == read.extra.keys()
        for found in (same, read):
            np.testing.assert_array_equal(found.embeddings, expected.embeddings)
            np.testing.assert_array_equal(found.fused, expected.fused)
            for output, values in expected.extra.items():
                np.testing.assert_array_equal(found.extra[output], values)
        lengths = np.linalg.norm(expected.embeddings[expected.present], axis=1)
        np.testing.assert_allclose(lengths, 1, atol=1e-5)
    some = Dataset(instances.ids, instances.modalities[1:], instances.present[:, 1:])
    vectors = whole.transform(some)
    assert vectors.keys() == {"m1", "m2"}
    assert np.isfinite(vectors["m1"]).all()
