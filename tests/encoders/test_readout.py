"""Ridge regression whose strength is chosen on instances that were left out, against leaving them out one by one."""

import pytest
import torch

from pmrl_cli.encoders import readout
from pmrl_cli.encoders.readout import STRENGTHS, ridge_readout


def draw(rows=30, inputs=4, outputs=3, noise=0.5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, inputs, generator=generator, dtype=torch.float64) + 2
    y = x @ torch.randn(inputs, outputs, generator=generator, dtype=torch.float64) - 1
    return x, y + noise * torch.randn(rows, outputs, generator=generator, dtype=torch.float64)


def ridge_without(x, y, left, penalty):
    """Prediction of a row by a ridge regression on the others, by the normal equations with an intercept."""
    rows = [i for i in range(len(x)) if i != left]
    one = torch.cat([x[rows], torch.ones(len(rows), 1, dtype=x.dtype)], 1)
    gram = one.T @ one + penalty * torch.diag(torch.tensor([1.0] * x.shape[1] + [0.0], dtype=x.dtype))
    return torch.cat([x[left], x.new_ones(1)]) @ torch.linalg.solve(gram, one.T @ y[rows])


def test_variance_is_that_of_rows_left_out_one_by_one(monkeypatch):
    x, y = draw()
    centred = x - x.mean(0)
    for strength in (0.01, 1.0, 30.0):
        monkeypatch.setattr(readout, "STRENGTHS", (strength,))
        found = ridge_readout(x, y, torch.ones(3))
        penalty = strength * float(centred.square().sum()) / x.shape[1]
        left = torch.stack([y[i] - ridge_without(x, y, i, penalty) for i in range(len(x))])
        torch.testing.assert_close(found.variance, left.square().mean(0))


def test_the_strength_is_the_largest_within_a_standard_error_of_the_best():
    x, y = draw(rows=40, inputs=12, noise=3.0)
    importance = torch.tensor([1.0, 0.5, 0.0])
    centred = x - x.mean(0)
    means, standard = [], []
    for strength in STRENGTHS:
        penalty = strength * float(centred.square().sum()) / x.shape[1]
        errors = torch.stack(
            [(y[i] - ridge_without(x, y, i, penalty)).square() @ importance.double() for i in range(len(x))]
        )
        means.append(float(errors.mean()))
        standard.append(float(errors.std()) / len(x) ** 0.5)
    best = min(range(len(means)), key=means.__getitem__)
    wanted = max(i for i, mean in enumerate(means) if mean <= means[best] + standard[best])
    assert wanted > best
    found = ridge_readout(x, y, importance)
    penalty = STRENGTHS[wanted] * float(centred.square().sum()) / x.shape[1]
    gram = centred.T @ centred + penalty * torch.eye(12, dtype=torch.float64)
    torch.testing.assert_close(found.weights, torch.linalg.solve(gram, centred.T @ (y - y.mean(0))))
    torch.testing.assert_close(x.mean(0) @ found.weights + found.intercept, y.mean(0))


def test_inputs_that_say_nothing_leave_the_mean():
    x, _ = draw(rows=50)
    found = ridge_readout(x, torch.randn(50, 3, generator=torch.Generator().manual_seed(9)) + 5, torch.ones(3))
    assert found.weights.abs().max() < 0.01
    torch.testing.assert_close(found.intercept, torch.full((3,), 5.0, dtype=torch.float64), atol=0.5, rtol=0)


@pytest.mark.parametrize("rows", [0, 1, 2, 3])
def test_hardly_any_rows_are_finite(rows):
    x, y = draw(rows=rows)
    assert all(part.isfinite().all() for part in ridge_readout(x, y, torch.ones(3)))
    assert all(
        part.isfinite().all() for part in ridge_readout(torch.ones(rows, 4), torch.ones(rows, 3), torch.ones(3))
    )
