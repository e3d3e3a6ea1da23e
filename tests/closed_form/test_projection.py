"""Projections: standardised, tamed, rotated, and the kernel against its definition."""

import numpy as np
import pytest

from pmrl_cli.closed_form.moments import ColumnMoments, SecondMoment
from pmrl_cli.closed_form.projection import (
    CLIP,
    Projection,
    fit_kernel,
    fit_projection,
    inverse_deviation,
    standardise,
)


def scores_of(projection, rows, on):
    return on.fetch(projection.on(on).scores(on.send(rows.astype(np.float32))))


def test_projection_standardises_clips_and_rotates(on):
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(300, 5)) * [1, 5, 0, 2, 1] + [0, 3, 9, 0, 0]
    rows[0, 0] = 1e6
    columns = ColumnMoments(5, on)
    columns.add(on.send(rows))
    scale = inverse_deviation(columns)
    assert scale[2] == 0  # the constant column says nothing
    second = SecondMoment(5, on)
    second.add(standardise(on.send(rows), on.send(columns.mean), on.send(scale)))
    projection, variances = fit_projection(columns, second, 5)
    scores = scores_of(projection, rows, on)
    np.testing.assert_allclose(scores.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(np.cov(scores.T, bias=True), np.diag(variances), atol=1e-4)
    standard = (rows - rows.mean(0)) / np.where(rows.std(0) > 0, rows.std(0), np.inf)
    clipped = np.clip(standard, -CLIP, CLIP)
    np.testing.assert_allclose(scores, (clipped - clipped.mean(0)) @ projection.basis, atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 1.0, -1e30])
def test_constant_columns_get_no_weight_at_any_level(on, value):
    columns = ColumnMoments(1, on)
    columns.add(on.send(np.full((10, 1), value)))
    assert inverse_deviation(columns)[0] == 0


def linear_of(rows, *, squash=False):
    columns, second = ColumnMoments(rows.shape[1]), SecondMoment(rows.shape[1])
    columns.add(rows)
    second.add(standardise(rows, columns.mean, inverse_deviation(columns), squash=squash))
    return fit_projection(columns, second, rows.shape[1], squash=squash)[0]


def test_squashed_columns_are_the_inverse_hyperbolic_sine_of_the_standardised(on):
    rows = np.random.default_rng(0).standard_cauchy(size=(200, 4))
    projection = linear_of(rows, squash=True)
    squashed = np.arcsinh((rows - rows.mean(0)) / rows.std(0))
    expected = (squashed - squashed.mean(0)) @ projection.basis
    np.testing.assert_allclose(scores_of(projection, rows, on), expected, atol=1e-3)


def test_with_every_instance_a_landmark_the_kernel_is_kernel_pca(on):
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(40, 3))
    linear = linear_of(rows)
    scores = linear.scores(rows.astype(np.float32))
    projection = fit_kernel(linear, on.send(scores), on.send(scores), 39)
    # Reference: the centred Gram matrix of the Gaussian at its median heuristic, from loops over pairs.
    apart = np.array([[float(((a - b) ** 2).sum()) for b in scores.astype(float)] for a in scores.astype(float)])
    gram = np.exp(-0.3 * apart / np.median(apart[apart > 0]))
    centred = gram - gram.mean(0) - gram.mean(1)[:, None] + gram.mean()
    found = scores_of(projection, rows, on).astype(float)
    np.testing.assert_allclose(found @ found.T, centred, atol=2e-4)
    np.testing.assert_allclose(found.mean(0), 0, atol=3e-5)
    covariance = found.T @ found
    np.testing.assert_allclose(covariance - np.diag(np.diag(covariance)), 0, atol=1e-3)


def test_projections_times_factors_have_their_scores_times_them_and_survive_storage():
    rng = np.random.default_rng(2)
    rows = rng.normal(size=(60, 4)).astype(np.float32)
    linear = linear_of(rows, squash=True)
    kernel = fit_kernel(linear, linear.scores(rows[:20]), linear.scores(rows), 7)
    for projection in (linear, kernel):
        factors = rng.uniform(0.5, 2, projection.components).astype(np.float32)
        scaled = projection.times(factors)
        np.testing.assert_allclose(scaled.scores(rows), projection.scores(rows) * factors, atol=1e-5)
        arrays = scaled.arrays()
        assert set(arrays) == set(Projection.array_names(kernel=projection is kernel))
        np.testing.assert_array_equal(Projection.from_arrays(arrays, squash=True).scores(rows), scaled.scores(rows))


def test_a_kernel_between_rows_of_which_most_are_the_same_stays_finite(on):
    rows = np.zeros((50, 3), dtype=np.float32)
    rows[:5] = np.random.default_rng(3).normal(size=(5, 3))
    linear = linear_of(rows)
    scores = linear.scores(rows)
    found = scores_of(fit_kernel(linear, on.send(scores), on.send(scores), 20), rows, on)
    assert found.shape[1] <= 5
    assert np.isfinite(found).all()
