"""The sections of a diagnosis, from one state and the reservoir that it chose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from pmrl_cli.diagnosis.alignment import alignment_section
from pmrl_cli.diagnosis.clouds import cone, effective_dimensions, uniformity
from pmrl_cli.diagnosis.counterfactual import counterfactuals
from pmrl_cli.diagnosis.geometry import unit_loading
from pmrl_cli.diagnosis.joint import half_of
from pmrl_cli.diagnosis.mispairs import Mispairs
from pmrl_cli.diagnosis.outcomes import pack_outcomes
from pmrl_cli.diagnosis.pairs import pair_apart, pair_of_space
from pmrl_cli.diagnosis.pictures import eigenvalues, plot_section, singular_values
from pmrl_cli.diagnosis.reservoir import Chosen
from pmrl_cli.diagnosis.retrieval import retrieval_sections, retrieve
from pmrl_cli.diagnosis.saturation import training_section
from pmrl_cli.diagnosis.state import State
from pmrl_cli.diagnosis.sums import MomentTotals
from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.stats.gradients import gradient_shares
from pmrl_cli.stats.instances import InstanceStatistics, adjusted_shares, instance_statistics, pairs_of, shuffle_pairs
from pmrl_cli.stats.statistic import Statistic

__all__ = ["DRAWS", "SHUFFLES", "sections_apart", "sections_of_space"]

SHUFFLES = 8
"""Shuffled copies of the reservoir that the null is made of."""

DRAWS = 500
"""Of the bootstrap."""


def sections_of_space(
    state: State, chosen: Chosen, mispairs: Mispairs, training: Mapping[str, Any] | None
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
    # The published objective takes the plain spectrum, all others that have one the lifted.
    lifted = training is not None and training["objectives"] != ["pmrl-paper"]
    reached = () if training is None else gradient_shares(batch, chosen.groups, lifted=lifted)
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


def sections_apart(state: State, chosen: Chosen) -> dict[str, Any]:
    """Return the sections of modalities of different columns: nothing that needs a cosine between them."""
    header, totals = state.header, state.moments.totals()
    return {
        "pair": {
            f"{header.names[a]}|{header.names[b]}": pair_apart(chosen, (a, b), seed=header.seed)
            for a, b in pairs_of(len(header.names))
            if state.counts[a, b]
        },
        "modality": {
            name: {**_modality(state, chosen, totals, m), "load": Statistic.unknown("not_applicable")}
            for m, name in enumerate(header.names)
        },
    }


def _modality(state: State, chosen: Chosen, totals: MomentTotals, m: int) -> dict[str, Any]:
    """Return what a modality's own cloud says."""
    return {
        "meancos": cone(state, chosen, m),
        "pr_deb": effective_dimensions(chosen, m),
        "uniformity": uniformity(chosen, m),
        "eigenvalues": eigenvalues(totals, m),
    }


def _counterfactual(batch: Batch, state: State, chosen: Chosen, mispairs: Mispairs) -> list[dict[str, Any]]:
    probability = mispairs.model.judge(mispairs.found.score).probability
    found = counterfactuals(
        batch,
        state.header.names,
        half_of(chosen.keys) == 0,
        chosen.groups,
        probability=probability,
        seed=state.header.seed,
    )
    return [one.as_dict() for one in found]
