"""Statistics of instances, pairs and clouds against closed forms and enumeration."""

from itertools import permutations

import numpy as np
import pytest
import torch

from pmrl_cli.diagnosis.statistics.pairing import adjusted_cosine_error, pairing_moments, pairing_z
from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.stats.instances import instance_statistics, pairs_of
from pmrl_cli.stats.modality import effective_dimension, mean_off_diagonal_cosine
from pmrl_cli.stats.statistic import clustered_error, group_means


def batch_of(vectors, present=None):
    vectors = torch.nn.functional.normalize(torch.as_tensor(np.asarray(vectors), dtype=torch.float32), dim=-1)
    present = torch.ones(vectors.shape[:2], dtype=torch.bool) if present is None else torch.as_tensor(present)
    return Batch(np.arange(len(vectors)), vectors * present[..., None], present)


def gaussian(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def test_identical_modalities_are_fully_aligned_and_orthonormal_ones_not_at_all():
    z = gaussian(20, 1, 8)
    same = instance_statistics(batch_of(np.repeat(z, 3, axis=1)))
    np.testing.assert_allclose(same.rho, 1, atol=1e-6)
    np.testing.assert_allclose(same.signed, 1, atol=1e-6)
    np.testing.assert_allclose(same.loading, 1, atol=1e-3)
    basis = np.linalg.qr(gaussian(20, 8, 3))[0].transpose(0, 2, 1)
    orthonormal = instance_statistics(batch_of(basis))
    np.testing.assert_allclose(orthonormal.rho, 1 / 3, atol=1e-6)
    np.testing.assert_allclose(orthonormal.signed, 1 / 3, atol=1e-6)


def test_a_flipped_modality_keeps_rho_and_loses_the_sign():
    z = gaussian(20, 8)
    found = instance_statistics(batch_of(np.stack([z, z, -z], axis=1)))
    np.testing.assert_allclose(found.rho, 1, atol=1e-6)
    np.testing.assert_allclose(found.signed, 1 / 9, atol=1e-6)
    np.testing.assert_array_equal(found.mixed, 1)
    np.testing.assert_allclose(found.cosine, np.tile([1, -1, -1], (20, 1)), atol=1e-6)


@pytest.mark.parametrize("k", [2, 3, 5])
@pytest.mark.parametrize("c", [0.1, 0.5, 0.9])
def test_equicorrelated_modalities_have_the_closed_form(k, c):
    roots = np.linalg.cholesky((1 - c) * np.eye(k) + c)  # k vectors of R^k with every cosine c
    found = instance_statistics(batch_of(np.tile(roots, (4, 1, 1))))
    np.testing.assert_allclose(found.rho, (1 + (k - 1) * c) / k, rtol=1e-5)
    np.testing.assert_allclose(found.signed, (1 + (k - 1) * c) / k, rtol=1e-5)


def test_two_modalities_have_rho_of_the_absolute_cosine():
    found = instance_statistics(batch_of(gaussian(50, 2, 6)))
    np.testing.assert_allclose(found.rho, (1 + np.abs(found.cosine[:, 0])) / 2, rtol=1e-5)


@pytest.mark.parametrize(("k", "d", "expected"), [(2, 256, 0.525), (3, 256, 0.366), (4, 256, 0.285), (3, 64, 0.399)])
def test_unaligned_modalities_have_the_known_rho(k, d, expected):
    found = instance_statistics(batch_of(gaussian(4000, k, d)))
    assert found.rho.mean() == pytest.approx(expected, abs=0.002)


def test_a_missing_modality_counts_for_nothing():
    vectors, present = gaussian(30, 4, 8), np.ones((30, 4), bool)
    present[:, 2] = False
    found = instance_statistics(batch_of(vectors, present))
    without = instance_statistics(batch_of(np.delete(vectors, 2, axis=1)))
    np.testing.assert_array_equal(found.number, 3)
    np.testing.assert_allclose(found.rho, without.rho, rtol=1e-6)
    np.testing.assert_allclose(found.signed, without.signed, rtol=1e-6)
    np.testing.assert_allclose(np.delete(found.loading, 2, axis=1), without.loading, rtol=1e-5)
    assert np.isnan(found.loading[:, 2]).all()
    absent = [2 in pair for pair in pairs_of(4)]
    np.testing.assert_array_equal(np.isnan(found.cosine[0]), absent)


def test_permutation_moments_are_those_of_all_720_orders_of_six():
    first, second = gaussian(6, 4, seed=1) + 1, gaussian(6, 4, seed=2) - 0.5
    means = [(first * second[list(order)]).sum(1).mean() for order in permutations(range(6))]
    mean, variance = pairing_moments(first, second)
    assert mean == pytest.approx(np.mean(means), rel=1e-12)
    assert variance == pytest.approx(np.var(means), rel=1e-12)


@pytest.mark.parametrize(("n", "d"), [(60, 8), (40, 60)])
def test_pairing_z_of_unpaired_modalities_is_standard_normal(n, d):
    first, second = unit(gaussian(400, n, d) + 0.5), gaussian(400, n, d, seed=1)
    scores = np.array([pairing_z(x, y) for x, y in zip(first, second, strict=True)])
    assert 0.03 <= (scores > 1.645).mean() <= 0.07
    assert np.abs(scores).max() < 4


def test_pairing_z_says_nothing_of_a_point_or_of_two_pairs():
    assert pairing_z(np.ones((10, 3)), gaussian(10, 3)) is None
    assert pairing_z(gaussian(2, 3), gaussian(2, 3)) is None


def test_the_distance_of_pairs_is_the_gap_plus_the_distance_of_centred_pairs():
    x, y = unit(gaussian(200, 16) + 0.3), unit(gaussian(200, 16, seed=1) - 0.4)
    gap = ((x.mean(0) - y.mean(0)) ** 2).sum()
    centred = ((x - x.mean(0) - y + y.mean(0)) ** 2).sum(1).mean()
    assert gap + centred == pytest.approx(2 - 2 * (x * y).sum(1).mean(), rel=1e-12)


def test_the_mean_cosine_between_instances_is_the_mean_off_the_diagonal():
    x = unit(gaussian(40, 6) + 1)
    gram = x @ x.T
    expected = gram[~np.eye(40, dtype=bool)].mean()
    assert mean_off_diagonal_cosine(x.sum(0), 40) == pytest.approx(expected, rel=1e-12)
    assert mean_off_diagonal_cosine(x[0], 1) is None


def dimension_of(cloud):
    return effective_dimension(len(cloud), cloud.sum(0), cloud.T @ cloud)


@pytest.mark.parametrize("n", [64, 1000])
def test_effective_dimension_is_d_for_an_isotropic_cloud_even_below_d_vectors(n):
    found = [dimension_of(unit(gaussian(n, 128, seed=s))) for s in range(8)]
    assert np.mean(found) == pytest.approx(128, rel=0.05)


def test_effective_dimension_counts_the_dimensions_in_use_whatever_the_offset():
    cloud = np.zeros((3000, 64))
    cloud[:, :5] = gaussian(3000, 5)
    assert dimension_of(unit(cloud)) == pytest.approx(5, rel=0.03)
    away = np.zeros(64)
    away[60] = 20  # far enough that normalising hardly bends the cloud
    assert dimension_of(unit(cloud + away)) == pytest.approx(5, rel=0.05)


def test_effective_dimension_says_nothing_of_a_point_or_of_three_vectors():
    assert dimension_of(unit(np.ones((50, 4)))) is None
    assert dimension_of(unit(gaussian(3, 4))) is None


def test_the_clustered_error_is_that_of_group_means_and_of_instances_without_groups():
    values = gaussian(300)
    assert clustered_error(values, np.arange(300)) == pytest.approx(values.std(ddof=1) / np.sqrt(300))
    copies = np.repeat(values, 7)
    assert clustered_error(copies, np.repeat(np.arange(300), 7)) == pytest.approx(values.std(ddof=1) / np.sqrt(300))
    assert clustered_error(values, np.zeros(300, int)) is None


def test_the_error_of_the_adjusted_cosine_is_its_spread_over_data_sets():
    def one(seed):
        latent = gaussian(300, 8, seed=3 * seed)
        x = unit(latent + gaussian(300, 8, seed=3 * seed + 1) + 0.7)
        y = unit(latent + gaussian(300, 8, seed=3 * seed + 2) + 0.7)
        null = x.mean(0) @ y.mean(0)
        return ((x * y).sum(1).mean() - null) / (1 - null), adjusted_cosine_error(x, y, np.arange(300))

    values, errors = np.array([one(seed) for seed in range(300)]).T
    assert errors.mean() == pytest.approx(values.std(), rel=0.1)


def test_group_means_are_the_means_of_the_groups():
    vectors, groups = gaussian(10, 3), np.array([4, 4, 1, 1, 1, 9, 9, 9, 9, 4])
    expected = [vectors[groups == g].mean(0) for g in (1, 4, 9)]
    np.testing.assert_allclose(group_means(vectors, groups), expected)
