"""Moments against float64 computations on all rows at once."""

import numpy as np
import pytest

from pmrl_cli.moments import ColumnMoments, CrossMoments, SecondMoment


def cut(rows, at):
    return np.split(rows, at)


@pytest.mark.parametrize("at", [[], [1], [3, 3, 10], [50]])
def test_column_moments_equal_numpy_however_the_rows_are_cut(at):
    rows = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32) * [1, 10, 0, 1e-3] + [0, 1e4, 7, 0]
    moments = ColumnMoments(4)
    for block in cut(rows, at):
        moments.add(block)
    assert moments.count == 60
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.deviation, rows.std(0), rtol=1e-9, atol=1e-12)


def test_column_moments_do_not_cancel_beside_a_large_mean():
    rows = np.random.default_rng(1).normal(size=(1000, 1)) + 1e8
    moments = ColumnMoments(1)
    for block in cut(rows, [300, 301, 900]):
        moments.add(block)
    np.testing.assert_allclose(moments.deviation, rows.std(0), rtol=1e-7)


def test_merged_accumulators_equal_one_that_saw_everything():
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(40, 6))
    whole, left, right = SecondMoment(6), SecondMoment(6), SecondMoment(6)
    whole.add(rows)
    left.add(rows[:3])  # still keeps rows
    right.add(rows[3:])  # folded
    left.merge(right)
    for a, b in zip(whole.principal_axes(6), left.principal_axes(6), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    present = rng.random((40, 2)) < 0.7
    blocks = [rows[:, :2], rows[:, 2:]]
    one, first, second = CrossMoments([2, 4]), CrossMoments([2, 4]), CrossMoments([2, 4])
    one.add(blocks, present)
    first.add([b[:17] for b in blocks], present[:17])
    second.add([b[17:] for b in blocks], present[17:])
    second.merge(first)
    np.testing.assert_allclose(one.products, second.products, atol=1e-12)
    np.testing.assert_allclose(one.weights, second.weights)


@pytest.mark.parametrize(("n", "d"), [(50, 8), (8, 50), (20, 20)])
def test_principal_axes_are_those_of_the_covariance(n, d):
    rows = np.random.default_rng(3).normal(size=(n, d)) * np.linspace(1, 3, d) + 0.1
    second = SecondMoment(d)
    for block in cut(rows, [n // 3, n // 2]):
        second.add(block)
    axes, variances = second.principal_axes(d)
    covariance = np.cov(rows.T, bias=True)
    rank = min(n - 1, d)
    assert axes.shape == (d, rank)
    np.testing.assert_allclose(axes.T @ axes, np.eye(rank), atol=1e-9)
    np.testing.assert_allclose(variances, np.sort(np.linalg.eigvalsh(covariance))[::-1][:rank], rtol=1e-8)
    np.testing.assert_allclose(covariance @ axes, axes * variances, atol=1e-9)


def test_cross_moments_are_the_weighted_sum_over_instances_with_both():
    rng = np.random.default_rng(4)
    blocks = [rng.normal(size=(30, d)) for d in (2, 3, 1)]
    present = rng.random((30, 3)) < 0.6
    cross = CrossMoments([2, 3, 1])
    cross.add(blocks, present)
    edges = [0, 2, 5, 6]
    for a in range(3):
        for b in range(3):
            expected = np.zeros((blocks[a].shape[1], blocks[b].shape[1]))
            for i in range(30):
                if present[i, a] and present[i, b]:
                    expected += 3 / present[i].sum() * np.outer(blocks[a][i], blocks[b][i])
            found = cross.products[edges[a] : edges[a + 1], edges[b] : edges[b + 1]]
            np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(cross.weights, (3 / np.maximum(present.sum(1), 1)) @ present)
