"""Leading eigenvectors are those of the whole decomposition, however many are asked for."""

import numpy as np
import pytest

from pmrl_cli.closed_form.leading import leading_eigenvectors


@pytest.mark.parametrize("count", [1, 5, 20, 45, 60, 100])
def test_they_are_the_largest_in_descending_order(count):
    rng = np.random.default_rng(0)
    factors = rng.standard_normal((60, 80))
    matrix = factors @ factors.T
    values, vectors = leading_eigenvectors(matrix.copy(), count)
    expected = np.linalg.eigvalsh(matrix)[::-1][:count]
    np.testing.assert_allclose(values, expected, rtol=1e-10)
    np.testing.assert_allclose(matrix @ vectors, vectors * expected, atol=1e-9 * expected[0])
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(len(expected)), atol=1e-12)


@pytest.mark.parametrize("rank", [5, 12, 25])
@pytest.mark.parametrize("count", [1, 5, 12])
def test_a_matrix_of_low_rank_has_those_of_its_factor(rank, count):
    rng = np.random.default_rng(1)
    factors = rng.standard_normal((60, rank)) * 0.7 ** np.arange(rank)
    matrix = factors @ factors.T
    values, vectors = leading_eigenvectors(matrix.copy(), count, rank)
    expected = np.linalg.eigvalsh(matrix)[::-1][:count]
    np.testing.assert_allclose(values, expected, atol=1e-12 * expected[0])
    np.testing.assert_allclose(matrix @ vectors, vectors * values, atol=1e-10 * expected[0])
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(count), atol=1e-10)


def test_a_rank_that_the_matrix_falls_short_of_changes_nothing():
    rng = np.random.default_rng(2)
    factors = rng.standard_normal((60, 6))
    matrix = factors @ factors.T
    values, vectors = leading_eigenvectors(matrix.copy(), 12, 20)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(matrix)[::-1][:12], atol=1e-12 * values[0])
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(12), atol=1e-10)


def test_noise_above_the_rank_is_left_out():
    rng = np.random.default_rng(3)
    rows = rng.standard_normal((20, 90)).astype(np.float32)
    matrix = (rows.T @ rows).astype(np.float64)
    values, vectors = leading_eigenvectors(matrix.copy(), 8, 20)
    exact = rows.astype(np.float64)
    expected = np.linalg.svd(exact)[1][:8] ** 2
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    np.testing.assert_allclose(exact.T @ (exact @ vectors), vectors * expected, atol=1e-5 * expected[0])
