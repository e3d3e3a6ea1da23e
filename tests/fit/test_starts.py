"""Closed forms are compared on leading components, and what that favours is made up for on all of them."""

import numpy as np

from pmrl_cli import Aligner
from pmrl_cli.fit import starts


def features(rows=240):
    rng = np.random.default_rng(0)
    latent = rng.standard_normal((rows, 6))
    mixing = rng.standard_normal((2, 6, 12))
    return {f"m{m}": latent @ mixing[m] + rng.standard_normal((rows, 12)) for m in range(2)}


def solved_ridges(monkeypatch):
    """The ridges at which all components were solved."""
    found, judged = [], starts._Search._judged

    def watch(self, chosen, ridge, solution, data, validation, grid):
        if len(solution.whiten[0]) == 12:
            found.append(ridge)
        return judged(self, chosen, ridge, solution, data, validation, grid)

    monkeypatch.setattr(starts._Search, "_judged", watch)
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
