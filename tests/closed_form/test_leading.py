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
