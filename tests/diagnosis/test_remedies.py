"""Remedies: each helps where it should, and none is advised where nothing is wrong."""

import numpy as np
import pytest
import torch

from pmrl_cli.diagnosis.remedies import measure_remedies
from pmrl_cli.retrieval.batches import Batch, read_batch
from tests.simulate import dataset_of, simulate


def halves(n):
    return np.arange(n) % 2 == 0


def found(arrays, probability=None, present=None):
    data = dataset_of(arrays, present=present)
    batch = read_batch(data, slice(0, len(data)))
    results = measure_remedies(
        batch, data.names, halves(len(data)), np.arange(len(data)), probability=probability, seed=0
    )
    assert [one.delta.value for one in results] == sorted((one.delta.value for one in results), reverse=True)
    for one in results:
        assert one.delta.value == pytest.approx(one.after.value - one.before.value)
    return {(one.action, *one.subject, *one.metric.split()[:-1]): one for one in results}


def gaussian(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def arrays_of(*args, **kwargs):
    return {f.name: np.array(f.array) for f in simulate(*args, **kwargs).modalities}


def test_nothing_is_advised_where_nothing_is_wrong():
    for seed in range(5):
        results = found(arrays_of(400, 3, 32, noise=0.3, seed=seed))
        assert set(results) == {("centre",), ("centre", "mixed"), ("csls",), ("rotate",), ("linear",)} | {
            ("drop_modality", f"m{m}", "fused") for m in range(3)
        }
        for action, one in results.items():
            assert not (one.helps and one.delta.value > 0.01), action


def test_centring_removes_an_offset():
    results = found(arrays_of(600, 2, 32, noise=0.8, offset=25.0))
    centred = results["centre",]
    assert centred.helps
    assert centred.delta.value > 0.2
    assert centred.metric == "R@1@100"
    assert centred.before.chance == 0.01


def test_centring_repairs_retrieval_in_a_mixed_gallery_with_an_offset():
    results = found(arrays_of(400, 2, 32, noise=0.5, offset=12.0))
    mixed = results["centre", "mixed"]
    assert mixed.before.value < 0.5 < 0.95 < mixed.after.value
    assert mixed.delta.n == 2 * 400
    assert mixed.delta.value > results["centre",].delta.value + 0.3  # one gallery at a time loses less


def test_a_linear_adapter_undoes_a_rotation():
    z = gaussian(600, 16)
    turn = np.linalg.qr(gaussian(16, 16, seed=1))[0]
    results = found({"a": z, "b": (z + 0.3 * gaussian(600, 16, seed=2)) @ turn})
    assert results["linear",].delta.ci[0] > 0.5
    assert results["linear",].before.value == pytest.approx(0.01, abs=0.02)
    assert results["rotate",].delta.value == pytest.approx(results["linear",].delta.value, abs=0.05)
    assert not results["centre",].helps


def test_where_directions_are_only_weighed_wrongly_an_adapter_gains_and_a_rotation_does_not():
    scale = np.arange(1, 33) ** -1.0  # the leading columns drown the others
    z = gaussian(800, 32)
    x, y = ((z + 0.5 * gaussian(800, 32, seed=seed)) * scale for seed in (1, 2))
    results = found({"a": x, "b": y})
    assert results["linear",].delta.ci[0] > 0.2
    assert results["rotate",].delta.value < 0.05


def test_scaling_by_nearness_helps_against_hubs():
    z = gaussian(800, 16)
    # A few directions that many candidates share, and the queries too.
    hubs = np.zeros(16)
    hubs[:4] = 1
    sign_aware = np.abs(gaussian(800, 1, seed=5)) * 3
    x, y = z + 0.7 * gaussian(800, 16, seed=1), z + 0.7 * gaussian(800, 16, seed=2) + sign_aware * hubs
    results = found({"a": x, "b": y})
    assert results["csls",].helps
    assert results["csls",].before.value == pytest.approx(results["centre",].after.value)


def test_a_modality_of_noise_is_better_left_out_of_fused_queries():
    arrays = arrays_of(500, 4, 32, noise=1.0)
    arrays["m2"] = gaussian(500, 32, seed=9)
    results = found(arrays)
    dropped = results["drop_modality", "m2", "fused"]
    assert dropped.helps
    assert dropped.metric == "fused R@1@100"
    for name in ("m0", "m1", "m3"):
        assert results["drop_modality", name, "fused"].delta.ci[1] < 0


def test_leaving_suspects_out_of_the_fit_helps_all_queries():
    arrays = arrays_of(300, 2, 64, noise=0.6)
    wrong = np.arange(300) % 5 < 2
    arrays["m1"][wrong] = np.roll(arrays["m1"][wrong], 7, axis=0)
    results = found(arrays, probability=wrong.astype(float))
    assert results["drop_suspects",].helps
    assert results["drop_suspects",].before.value == pytest.approx(results["linear",].after.value)
    assert ("drop_suspects",) not in found(arrays, probability=np.zeros(300))


def test_remedies_use_the_modalities_that_are_present():
    arrays = arrays_of(500, 3, 32, noise=0.5)
    present = np.random.default_rng(0).random((500, 3)) > 0.3
    present[present.sum(1) < 2] = True
    results = found(arrays, present=present)
    pairs = sum(2 * present[:, [a, b]].all(1).sum() for a, b in ((0, 1), (0, 2), (1, 2)))
    assert results["centre",].delta.n == pairs
    rest = present[:, [0, 1]].all(1)  # an instance that lacks one of the others has no query left
    assert results["drop_modality", "m2", "fused"].delta.n == 2 * rest.sum()


def test_the_error_of_a_difference_is_its_spread_over_data_sets():
    results = [found(arrays_of(160, 3, 8, noise=0.6, seed=seed)) for seed in range(25)]
    for action in (("centre",), ("drop_modality", "m0", "fused")):
        deltas = [one[action].delta for one in results]
        # The gallery is held fixed: the spread may be a little more than the error says.
        assert np.mean([one.se for one in deltas]) == pytest.approx(np.std([one.value for one in deltas]), rel=0.35)


def test_too_few_instances_have_no_remedies():
    batch = Batch(np.arange(30), torch.nn.functional.normalize(torch.randn(30, 2, 4), dim=2), torch.ones(30, 2) > 0)
    assert measure_remedies(batch, ["a", "b"], halves(30), np.arange(30)) == []
