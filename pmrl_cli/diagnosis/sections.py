"""The sections of a diagnosis, from one state and the reservoir that it chose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pmrl_cli.diagnosis.compare import pack_outcomes
from pmrl_cli.diagnosis.mispairing import Mispairs
from pmrl_cli.diagnosis.remedies import measure_remedies
from pmrl_cli.diagnosis.state.accumulate import State
from pmrl_cli.diagnosis.state.reservoir import ReservoirSample
from pmrl_cli.diagnosis.state.second_moments import MomentTotals, half_of
from pmrl_cli.diagnosis.statistics.alignment import alignment_section
from pmrl_cli.diagnosis.statistics.dependence import dependence
from pmrl_cli.diagnosis.statistics.gap import gap_share, mixed_gallery_penalty, shape_gap
from pmrl_cli.diagnosis.statistics.hubness import hubness
from pmrl_cli.diagnosis.statistics.modality import cone, effective_dimensions, uniformity, unit_loading
from pmrl_cli.diagnosis.statistics.pairing import paired_cosines, pairing
from pmrl_cli.diagnosis.statistics.plot_data import eigenvalues, plot_section, singular_values
from pmrl_cli.diagnosis.statistics.probe import probe
from pmrl_cli.diagnosis.statistics.retrieval import retrieval_sections, retrieve
from pmrl_cli.diagnosis.statistics.training import training_section
from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.stats.gradients import gradient_shares
from pmrl_cli.stats.instances import InstanceStatistics, adjusted_shares, instance_statistics, pairs_of, shuffle_pairs
from pmrl_cli.stats.statistic import Statistic

__all__ = [
    "DRAWS",
    "SHUFFLES",
    "pair_of_space",
    "pair_without_shared_space",
    "sections_of_shared_space",
    "sections_without_shared_space",
]


def pair_of_space(
    state: State,
    chosen: ReservoirSample,
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
    gap = {**gap_share(state, chosen, a, b), "cov_gap": shape_gap(chosen, totals, a, b)}
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


def pair_without_shared_space(chosen: ReservoirSample, pair: tuple[int, int], *, seed: int) -> dict[str, Any]:
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


def _coordinate_free(chosen: ReservoirSample, pair: tuple[int, int], *, seed: int) -> dict[str, Any]:
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


SHUFFLES = 8
"""Shuffled copies of the reservoir that the null is made of."""

DRAWS = 500
"""Of the bootstrap."""


def sections_of_shared_space(
    state: State, chosen: ReservoirSample, mispairs: Mispairs, training: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the sections of modalities that share a space.

    Args:
        state: of all instances.
        chosen: the reservoir.
        mispairs: learned from it.
        training: ``pmrl.training/1`` of the model, if one made the vectors.
    """
    header, k = state.header, len(state.header.names)
    batch = chosen.batch()
    generator = np.random.default_rng(header.seed)
    shuffled = [shuffle_pairs(batch, chosen.groups, generator) for _ in range(SHUFFLES)]
    null = InstanceStatistics.join([instance_statistics(one) for one in shuffled])
    labels = None if header.label is None else chosen.labels
    retrieved = retrieve(batch, header.names, chosen.groups, labels, seed=header.seed, draws=DRAWS)
    directions, means = retrieval_sections(retrieved)
    totals = state.moments.totals(), state.moments.totals(0), state.moments.totals(1)
    alignment = alignment_section(state.summaries, null, len(np.unique(chosen.groups)), k)
    alignment["singular_values"] = singular_values(batch)
    reached = () if training is None else gradient_shares(batch, chosen.groups, lifted=training["sign_aware"])
    return {
        "alignment": alignment,
        "pair": {
            f"{header.names[a]}|{header.names[b]}": pair_of_space(
                state, chosen, batch, totals, directions, (a, b), standard_gallery=means["standard_gallery"]
            )
            for a, b in pairs_of(k)
            if state.counts[a, b]
        },
        "modality": {
            name: {
                **_modality(state, chosen, totals[0], m),
                **mispairs.modality(m, chosen.groups),
                **({"grad_share": reached[m]} if reached else {}),
                "load": unit_loading(state, null, m),
            }
            for m, name in enumerate(header.names)
        },
        "retrieval": means,
        "suspects": mispairs.section(chosen.ids.tolist()),
        "counterfactual": _counterfactual(batch, state, chosen, mispairs),
        "training": None if training is None else training_section(batch, chosen.groups, training),
        "plot": plot_section(chosen, header.names),
        "outcomes": pack_outcomes(
            chosen.hashes,
            rows=batch.rows,
            groups=None if header.group is None else chosen.groups,
            adjusted=adjusted_shares(instance_statistics(batch), null),
            ranks=retrieved.ranks,
        ),
    }


def sections_without_shared_space(state: State, chosen: ReservoirSample) -> dict[str, Any]:
    """Return the sections of modalities of different columns: nothing that needs a cosine between them."""
    header, totals = state.header, state.moments.totals()
    return {
        "pair": {
            f"{header.names[a]}|{header.names[b]}": pair_without_shared_space(chosen, (a, b), seed=header.seed)
            for a, b in pairs_of(len(header.names))
            if state.counts[a, b]
        },
        "modality": {
            name: {**_modality(state, chosen, totals, m), "load": Statistic.unknown("not_applicable")}
            for m, name in enumerate(header.names)
        },
    }


def _modality(state: State, chosen: ReservoirSample, totals: MomentTotals, m: int) -> dict[str, Any]:
    """Return what a modality's own cloud says."""
    return {
        "meancos": cone(state, chosen, m),
        "pr_deb": effective_dimensions(chosen, m),
        "uniformity": uniformity(chosen, m),
        "eigenvalues": eigenvalues(totals, m),
    }


def _counterfactual(batch: Batch, state: State, chosen: ReservoirSample, mispairs: Mispairs) -> list[dict[str, Any]]:
    probability = mispairs.model.judge(mispairs.found.score).probability
    found = measure_remedies(
        batch,
        state.header.names,
        half_of(chosen.keys) == 0,
        chosen.groups,
        probability=probability,
        seed=state.header.seed,
    )
    return [one.as_dict() for one in found]
