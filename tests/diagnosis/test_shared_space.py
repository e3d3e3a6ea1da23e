"""Intervals and closed forms of pairs and clouds, from a state."""

import numpy as np
import pytest

from pmrl_cli.diagnosis.evidence import Evidence
from pmrl_cli.diagnosis.run import StateSampling, state_of
from pmrl_cli.diagnosis.statistics.gap import offsets, shape_gap
from pmrl_cli.diagnosis.statistics.modality import cone, effective_dimensions, uniformity
from pmrl_cli.diagnosis.statistics.pairing import pairing
from tests.simulate import dataset_of


def clouds(seed, n=200, d=8, offset=0.0, pairs=1.0):
    """Evidence of two modalities whose partners share a direction."""
    generator = np.random.default_rng(seed)
    latent = generator.normal(size=(n, d))
    away = np.zeros(d)
    away[0] = offset
    first = latent + generator.normal(size=(n, d)) + away
    second = pairs * latent + generator.normal(size=(n, d))
    return Evidence(state_of(dataset_of({"a": first, "b": second})))


@pytest.fixture(scope="module")
def draws():
    """120 data sets with a gap, and a large one."""
    return [clouds(seed, offset=2.0) for seed in range(120)], clouds(999, n=60_000, offset=2.0)


@pytest.mark.parametrize(
    ("name", "statistic"),
    [
        ("gap share", lambda of: offsets(of, 0, 1)["gap_share"]),
        ("centroid", lambda of: offsets(of, 0, 1)["centroid"]),
        ("cone", lambda of: cone(of, 0)),
        ("dimension", lambda of: effective_dimensions(of, 0)),
        ("uniformity", lambda of: uniformity(of, 0)),
    ],
)
def test_intervals_cover_the_value_of_many_instances(name, statistic, draws):
    sets, large = draws
    truth = statistic(large).value
    intervals = [statistic(one).ci for one in sets]
    assert np.mean([low <= truth <= high for low, high in intervals]) >= 0.9, name


def test_the_interval_of_z_is_that_of_z_over_data_sets():
    found = [pairing(clouds(seed), 0, 1) for seed in range(120)]
    values = np.array([one.value for one in found])
    assert np.mean([one.se for one in found]) == pytest.approx(values.std(), rel=0.2)
    unpaired = [pairing(clouds(seed, pairs=0), 0, 1) for seed in range(120)]
    assert 0.01 <= np.mean([one.p < 0.05 for one in unpaired]) <= 0.1


def test_the_gap_of_shapes_from_the_joint_moments_is_that_of_all_instances():
    generator = np.random.default_rng(0)
    vectors = {"a": generator.normal(size=(4000, 6)), "b": generator.normal(size=(4000, 6)) * [4, 1, 1, 1, 1, 1]}
    data = dataset_of(vectors)
    whole, sampled = state_of(data), state_of(data, sampling=StateSampling(reservoir=500))

    one, other = (shape_gap(Evidence(state), 0, 1) for state in (whole, sampled))
    assert other.value == pytest.approx(one.value, rel=1e-9)
    assert other.n == 4000
    assert other.se == pytest.approx(one.se, rel=0.3)
    assert other.chance == pytest.approx(one.chance, rel=0.5)


@pytest.mark.parametrize("d", [2, 3, 64])
def test_uniformity_of_the_sphere_is_its_closed_form_and_that_of_a_point_zero(d):
    generator = np.random.default_rng(0)
    of = Evidence(state_of(dataset_of({"a": generator.normal(size=(3000, d)), "b": np.ones((3000, d))})))
    found = uniformity(of, 0)
    assert abs(found.value - found.chance) < 4 * found.se + 1e-3
    assert uniformity(of, 1).value == pytest.approx(0, abs=1e-6)
