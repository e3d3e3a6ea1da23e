"""Moments against float64 computations on all rows at once."""

import numpy as np
import pytest

from pmrl_cli.closed_form.moments import ColumnMoments, CrossMoments, SecondMoment


def cut(rows, at):
    return np.split(rows, at)


@pytest.mark.parametrize("at", [[], [1], [3, 3, 10], [50]])
def test_column_moments_equal_numpy_however_the_rows_are_cut(on, at):
    rows = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float32) * [1, 10, 0, 1e-3] + [0, 1e4, 7, 0]
    moments = ColumnMoments(4, on)
    for block in cut(rows, at):
        moments.add(on.send(block))
    assert moments.count == 60
    np.testing.assert_allclose(moments.mean, rows.mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.deviation, rows.std(0), rtol=1e-9, atol=1e-12)


def test_column_moments_do_not_cancel_beside_a_large_mean(on):
    rows = np.random.default_rng(1).normal(size=(1000, 1)) + 1e8
    moments = ColumnMoments(1, on)
    for block in cut(rows, [300, 301, 900]):
        moments.add(on.send(block))
    np.testing.assert_allclose(moments.deviation, rows.std(0), rtol=1e-7)


def test_merged_accumulators_equal_one_that_saw_everything(on):
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(40, 6))
    whole, left, right = SecondMoment(6, on), SecondMoment(6, on), SecondMoment(6, on)
    whole.add(on.send(rows))
    left.add(on.send(rows[:3]))  # still keeps rows
    right.add(on.send(rows[3:]))  # folded
    left.merge(right)
    for a, b in zip(whole.principal_axes(6), left.principal_axes(6), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
    present = rng.random((40, 2)) < 0.7
    blocks = [rows[:, :2], rows[:, 2:]]
    one, first, second = CrossMoments([2, 4], on), CrossMoments([2, 4], on), CrossMoments([2, 4], on)
    one.add([on.send(b) for b in blocks], present)
    first.add([on.send(b[:17]) for b in blocks], present[:17])
    second.add([on.send(b[17:]) for b in blocks], present[17:])
    second.merge(first)
    np.testing.assert_allclose(on.fetch(one.products), on.fetch(second.products), atol=1e-12)
    np.testing.assert_allclose(one.weights, second.weights)


@pytest.mark.parametrize(("n", "d"), [(50, 8), (8, 50), (20, 20)])
def test_principal_axes_are_those_of_the_covariance(on, n, d):
    rows = np.random.default_rng(3).normal(size=(n, d)) * np.linspace(1, 3, d) + 0.1
    second = SecondMoment(d, on)
    for block in cut(rows, [n // 3, n // 2]):
        second.add(on.send(block))
    axes, variances = second.principal_axes(d)
    covariance = np.cov(rows.T, bias=True)
    rank = min(n - 1, d)
    assert axes.shape == (d, rank)
    np.testing.assert_allclose(axes.T @ axes, np.eye(rank), atol=1e-9)
    np.testing.assert_allclose(variances, np.sort(np.linalg.eigvalsh(covariance))[::-1][:rank], rtol=1e-8)
    np.testing.assert_allclose(covariance @ axes, axes * variances, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("n", [5, 9000])
def test_moments_of_parts_are_those_of_the_whole_through_their_arrays(on, n, dtype):
    # float32: a product of 4096 rows is off by some 1e-7 of what it sums
    tolerance = 1e-6 if dtype == np.float32 else 1e-12
    rng = np.random.default_rng(5)
    rows = (rng.normal(size=(n, 6)) * [1, 2, 3, 1, 1, 1]).astype(dtype)
    present = rng.random((n, 2)) < 0.8

    def saw(part):
        columns, second, cross = ColumnMoments(6, on), SecondMoment(6, on), CrossMoments([2, 4], on)
        columns.add(on.send(rows[part]))
        second.add(on.send(rows[part]))
        cross.add([on.send(rows[part, :2]), on.send(rows[part, 2:])], present[part])
        return columns, second, cross

    columns, second, cross = saw(slice(None))
    merged_columns, merged_second, summed = ColumnMoments(6, on), SecondMoment(6, on), 0
    for part in (slice(0, 0), slice(0, 3), slice(3, None)):
        of_columns, of_second, of_cross = (one.arrays() for one in saw(part))
        assert {a.dtype for a in (*of_columns, *of_second, *of_cross)} == {np.dtype(np.float64)}
        merged_columns.merge(ColumnMoments.from_arrays(of_columns, on))
        merged_second.merge(SecondMoment.from_arrays(of_second, on))
        summed = [a + b for a, b in zip(summed, of_cross, strict=True)] if summed else of_cross
    np.testing.assert_allclose(merged_columns.mean, columns.mean, atol=1e-12)
    np.testing.assert_allclose(merged_columns.deviation, columns.deviation, rtol=1e-12)
    for a, b in zip(merged_second.principal_axes(6), second.principal_axes(6), strict=True):
        np.testing.assert_allclose(a, b, atol=10 * tolerance)
    for a, b in zip(summed, cross.arrays(), strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * n)


@pytest.mark.parametrize("rows", [500, 20000])
def test_directions_of_no_variance_are_not_found_in_the_rounding_of_float32(on, rows):
    # rounding has left 7e-8 of the largest variance along them
    rng = np.random.default_rng(6)
    low_rank = rng.normal(size=(rows, 10)) @ rng.normal(size=(10, 64))
    second = SecondMoment(64, on)
    for block in cut((low_rank / low_rank.std(0)).astype(np.float32), range(300, rows, 300)):
        second.add(on.send(block))
    axes, variances = second.principal_axes(64)
    assert axes.shape == (64, 10)
    exact = np.linalg.eigvalsh(np.cov((low_rank / low_rank.std(0)).T, bias=True))[:-11:-1]
    np.testing.assert_allclose(variances, exact, rtol=2e-6)


def test_cross_moments_are_the_weighted_sum_over_instances_with_both(on):
    rng = np.random.default_rng(4)
    blocks = [rng.normal(size=(30, d)) for d in (2, 3, 1)]
    present = rng.random((30, 3)) < 0.6
    cross = CrossMoments([2, 3, 1], on)
    cross.add([on.send(b) for b in blocks], present)
    edges = [0, 2, 5, 6]
    for a in range(3):
        for b in range(3):
            expected = np.zeros((blocks[a].shape[1], blocks[b].shape[1]))
            for i in range(30):
                if present[i, a] and present[i, b]:
                    expected += 3 / present[i].sum() * np.outer(blocks[a][i], blocks[b][i])
            found = on.fetch(cross.products)[edges[a] : edges[a + 1], edges[b] : edges[b + 1]]
            np.testing.assert_allclose(found, expected, atol=1e-12)
    np.testing.assert_allclose(cross.weights, (3 / np.maximum(present.sum(1), 1)) @ present)
