"""The section of a pair of modalities."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pmrl_cli.diagnosis.dependence import dependence
from pmrl_cli.diagnosis.gap import mixed_gallery_penalty
from pmrl_cli.diagnosis.geometry import gap_share, paired_cosines, pairing, shape_gap
from pmrl_cli.diagnosis.hubness import hubness
from pmrl_cli.diagnosis.joint import half_of
from pmrl_cli.diagnosis.probe import probe
from pmrl_cli.diagnosis.reservoir import Chosen
from pmrl_cli.diagnosis.state import State
from pmrl_cli.diagnosis.sums import MomentTotals
from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.stats.statistic import Statistic

__all__ = ["pair_apart", "pair_of_space"]


def pair_of_space(
    state: State,
    chosen: Chosen,
    batch: Batch,
    totals: tuple[MomentTotals, ...],
    directions: Mapping[str, Any],
    pair: tuple[int, int],
    *,
    standard_gallery: int | None,
) -> dict[str, Any]:
    """Return the statistics of two modalities that share a space.

    Args:
        state: of all instances.
        chosen: the reservoir.
        batch: the same.
        totals: joint moments of both halves together, of the first and of the second.
        directions: retrieval by direction.
        pair: the two modalities.
        standard_gallery: candidates of the standard gallery, or None.
    """
    a, b = pair
    names = state.header.names
    forth, back = f"{names[a]}->{names[b]}", f"{names[b]}->{names[a]}"
    both = batch.present[:, [a, b]].all(1)
    first, second = batch.embeddings[both, a], batch.embeddings[both, b]
    groups = chosen.groups[both.numpy()]
    hubs = {forth: hubness(first, second, groups), back: hubness(second, first, groups)}
    gap = {**gap_share(state, chosen, a, b), "cov_gap": shape_gap(state, chosen, totals, a, b)}
    if standard_gallery is not None and standard_gallery <= len(first):
        gap["mixed_penalty"] = mixed_gallery_penalty(first, second, groups, gallery=standard_gallery)
    return {
        **paired_cosines(state, chosen, a, b),
        "z": pairing(chosen, a, b),
        **_coordinate_free(chosen, pair, seed=state.header.seed),
        "gap": gap,
        "retrieval": {way: directions[way] for way in (forth, back) if way in directions},
        "hubness": {way: found.as_dict() for way, found in hubs.items() if found is not None},
    }


def pair_apart(chosen: Chosen, pair: tuple[int, int], *, seed: int) -> dict[str, Any]:
    """Return the statistics of two modalities of different columns: those that need no cosine between them."""
    absent = Statistic.unknown("not_applicable")
    return {
        "cos": absent,
        "adj": absent,
        "z": absent,
        **_coordinate_free(chosen, pair, seed=seed),
        "gap": {},
        "retrieval": {},
        "hubness": {},
    }


def _coordinate_free(chosen: Chosen, pair: tuple[int, int], *, seed: int) -> dict[str, Any]:
    """Return what two modalities have to do with each other in whatever coordinates."""
    both = chosen.present[:, list(pair)].all(1)
    vectors = [chosen.vectors[m][both] for m in pair]
    groups = chosen.groups[both]
    first, second = (one.astype(np.float64) for one in vectors)
    found = dependence(first, second, groups)
    reached = probe(vectors, half_of(chosen.keys[both]) == 0, groups, seed=seed)
    return {
        "cka_adj": found.cka_adj,
        "cka_z": found.cka_z,
        "mknn_adj": found.mknn_adj,
        "probe": None if reached is None else reached.as_dict(),
    }
