"""Closed forms are compared on leading components, and what that favours is made up for on all of them."""

import numpy as np
import pytest

from pmrl_cli import Aligner
from pmrl_cli.errors import UsageError
from pmrl_cli.fit import starts


def features(rows=240):
    rng = np.random.default_rng(0)
    latent = rng.standard_normal((rows, 6))
    mixing = rng.standard_normal((2, 6, 12))
    return {f"m{m}": latent @ mixing[m] + rng.standard_normal((rows, 12)) for m in range(2)}


def solved_ridges(monkeypatch):
    """The ridges at which all components were solved."""
    found, judged = [], starts._Search._ranked

    def watch(self, chosen, ridge, solution, data, validation, grid):
        if len(solution.whiten[0]) == 12:
            found.append(ridge)
        return judged(self, chosen, ridge, solution, data, validation, grid)

    monkeypatch.setattr(starts._Search, "_ranked", watch)
    Aligner(adapter="linear", steps=0, refit=False, device="cpu").fit(features())
    return found


def test_on_all_components_the_next_larger_ridge_is_solved_too(monkeypatch):
    monkeypatch.setattr(starts, "LEADING", 8)
    ridges = solved_ridges(monkeypatch)
    assert len(ridges) == 2
    assert starts.RIDGES.index(ridges[1]) == starts.RIDGES.index(ridges[0]) + 1


def test_where_the_leading_components_are_all_it_is_not(monkeypatch):
    *compared, last = solved_ridges(monkeypatch)
    assert last in compared


def test_linear_components_too_few_for_the_dimensions_asked_for_leave_the_kernels():
    vectors = features(120)
    aligner = Aligner(dim=30, fast=True, device="cpu").fit(vectors)
    assert {name: array.shape for name, array in aligner.transform(vectors).items()} == {
        "m0": (120, 30),
        "m1": (120, 30),
    }
    assert all(member.projections[0].kernel is not None for member in aligner.model.members)
    with pytest.raises(UsageError, match="--dim 30|dim=30"):
        Aligner(dim=30, fast=True, adapter="linear", device="cpu").fit(vectors)
    with pytest.raises(UsageError, match="larger than the features can fill"):
        Aligner(dim=3000, fast=True, device="cpu").fit(vectors)
