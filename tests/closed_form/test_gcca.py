"""The closed form against MAXVAR's own definition over instances."""

import numpy as np
import pytest
from scipy import linalg

from pmrl_cli.closed_form.arithmetic import CPU
from pmrl_cli.closed_form.gcca import SOLVERS, gcca
from pmrl_cli.closed_form.moments import CrossMoments, SecondMoment


def solve(modalities, present, ridge, dim, on=CPU, **options):
    variances = []
    scores = []
    for m, modality in enumerate(modalities):
        second = SecondMoment(modality.shape[1], on)
        second.add(on.send(modality[present[:, m]]))
        axes, variance = second.principal_axes(modality.shape[1])
        scores.append((modality - second.mean) @ axes * present[:, [m]])
        variances.append(variance)
    cross = CrossMoments([s.shape[1] for s in scores], on)
    cross.add([on.send(s) for s in scores], present)
    return gcca(cross, variances, ridge=ridge, dim=dim, **options), scores, variances


def test_eigenvalues_are_those_of_the_sum_of_ridge_projections_over_instances(on):
    # MAXVAR: eigenvectors of sum_m X_m (X_m^T X_m + r I)^-1 X_m^T, an n x n matrix.
    rng = np.random.default_rng(0)
    modalities = [rng.normal(size=(40, d)) for d in (5, 7, 3)]
    ridge = 0.2
    solution, scores, variances = solve(modalities, np.ones((40, 3), dtype=bool), ridge, 6, on)
    total = np.zeros((40, 40))
    for x, v in zip(scores, variances, strict=True):
        total += x @ np.linalg.inv(x.T @ x + 40 * ridge * v.mean() * np.eye(len(v))) @ x.T
    expected = np.sort(np.linalg.eigvalsh(total))[::-1][:6]
    np.testing.assert_allclose(solution.correlations, np.clip((expected - 1) / 2, 0, 1), atol=1e-10)


@pytest.mark.parametrize("instances", [60, 400])
def test_in_single_precision_the_directions_are_the_same_to_its_rounding(on, instances):
    # Of 60 instances the covariance of 150 columns has low rank.
    rng = np.random.default_rng(4)
    shared = rng.normal(size=(instances, 50))
    modalities = [shared * 0.8 ** np.arange(50) + 0.3 * rng.normal(size=(instances, 50)) for _ in range(3)]
    everything = np.ones((instances, 3), dtype=bool)
    exact, *_ = solve(modalities, everything, 0.1, 8, on)
    single, *_ = solve(modalities, everything, 0.1, 8, on, single=True)
    np.testing.assert_allclose(single.correlations, exact.correlations, atol=1e-6)
    for one, other in zip(single.maps, exact.maps, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_modalities_that_are_rotations_of_one_another_agree_completely():
    rng = np.random.default_rng(1)
    shared = rng.normal(size=(200, 6))
    modalities = [shared @ np.linalg.qr(rng.normal(size=(6, 6)))[0] for _ in range(3)]
    solution, scores, _ = solve(modalities, np.ones((200, 3), dtype=bool), 1e-9, 6)
    np.testing.assert_allclose(solution.correlations, 1, atol=1e-6)
    outputs = [(s * w) @ m for s, w, m in zip(scores, solution.whiten, solution.maps, strict=True)]
    np.testing.assert_allclose(outputs[0], outputs[1], atol=1e-6)
    np.testing.assert_allclose(outputs[0], outputs[2], atol=1e-6)


def test_unrelated_modalities_have_no_correlation_beyond_sampling():
    rng = np.random.default_rng(2)
    modalities = [rng.normal(size=(5000, 4)) for _ in range(3)]
    solution, _, _ = solve(modalities, np.ones((5000, 3), dtype=bool), 1e-6, 4)
    assert solution.correlations.max() < 0.05


def test_unrelated_modalities_have_none_either_where_half_of_them_are_missing():
    rng = np.random.default_rng(5)
    modalities = [rng.normal(size=(20000, 3)) for _ in range(4)]
    present = np.array([[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 1]], dtype=bool)[np.arange(20000) % 4]
    solution, _, _ = solve([m * present[:, [i]] for i, m in enumerate(modalities)], present, 1e-6, 4)
    assert solution.correlations.max() < 0.03


def test_a_modality_missing_at_random_does_not_turn_the_shared_directions():
    rng = np.random.default_rng(3)
    shared = rng.normal(size=(4000, 2)) * [2.0, 1.0]
    modalities = [np.hstack([shared, rng.normal(size=(4000, 3))]) for _ in range(3)]
    present = np.ones((4000, 3), dtype=bool)
    present[rng.permutation(4000)[:2000], 2] = False
    solution, scores, _ = solve(modalities, present, 1e-6, 2)
    whole, _, _ = solve(modalities, np.ones((4000, 3), dtype=bool), 1e-6, 2)
    outputs = [(s * w) @ m for s, w, m in zip(scores, solution.whiten, solution.maps, strict=True)]
    rows = present[:, 2]
    for m in (0, 1, 2):
        explained = np.linalg.lstsq(shared[rows], outputs[m][rows], rcond=None)[1]
        assert explained.sum() < 0.05 * np.square(outputs[m][rows]).sum()
    assert (solution.correlations <= whole.correlations + 1e-9).all()


def test_mcca_is_the_generalised_eigenproblem_of_the_off_diagonal_blocks(on):
    # A w = lambda B w, A the covariance without its diagonal blocks, B those blocks with the ridge.
    rng = np.random.default_rng(7)
    modalities = [rng.normal(size=(60, d)) for d in (4, 5, 3)]
    ridge = 0.3
    scores, variances = [], []
    for x in modalities:
        second = SecondMoment(x.shape[1])
        second.add(x)
        axes, variance = second.principal_axes(x.shape[1])
        scores.append((x - second.mean) @ axes)
        variances.append(variance)
    cross = CrossMoments([4, 5, 3], on)
    cross.add([on.send(s) for s in scores], np.ones((60, 3), dtype=bool))
    solution = gcca(cross, variances, ridge=ridge, dim=3, solver="mcca")
    whole = np.concatenate(scores, axis=1)
    blocks = linalg.block_diag(*[s.T @ s / 60 for s in scores])
    inner = np.concatenate([v + ridge * v.mean() for v in variances])
    expected = linalg.eigh(whole.T @ whole / 60 - blocks, np.diag(inner), eigvals_only=True)[::-1][:3]
    np.testing.assert_allclose(solution.correlations, np.clip(expected / 2, 0, 1), atol=1e-10)


@pytest.mark.parametrize("modalities", [2, 3, 4, 5])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_device_has_the_solution_of_the_cpu_where_modalities_are_missing(torch_on, modalities, solver):
    rng = np.random.default_rng(8)
    shared = rng.normal(size=(70, 3))
    dims = range(4, 4 + modalities)
    blocks = [np.hstack([shared, rng.normal(size=(70, d - 3))]) @ rng.normal(size=(d, d)) for d in dims]
    present = rng.random((70, modalities)) < 0.7
    found = []
    for on in (CPU, torch_on):
        cross = CrossMoments(dims, on)
        cross.add([on.send(b) for b in blocks], present)
        found.append(gcca(cross, [b.var(0) for b in blocks], ridge=0.1, dim=5, solver=solver))
    np.testing.assert_allclose(found[1].correlations, found[0].correlations, atol=1e-12)
    for mine, wanted in zip(found[1].maps, found[0].maps, strict=True):
        np.testing.assert_allclose(mine, wanted, atol=1e-10)
