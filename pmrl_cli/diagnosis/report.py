"""``diagnose``: from one state to every number beside its chance value, the findings and what to do.

Chance is shuffled pairs: the same vectors, mispaired, so that a gap, a cone or a collapse cannot pass for
alignment. Statistics of instances come from all of them; nulls, pairing statistics, dimensions and retrieval from
the reservoir.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.split import column_of
from pmrl_cli.diagnosis.alignment import adjusted_shares, alignment_section
from pmrl_cli.diagnosis.counterfactual import counterfactuals
from pmrl_cli.diagnosis.geometry import cone, effective_dimensions, unit_loading
from pmrl_cli.diagnosis.instances import InstanceStatistics, instance_statistics, pairs_of
from pmrl_cli.diagnosis.joint import MomentTotals, half_of
from pmrl_cli.diagnosis.mispairs import Mispairs
from pmrl_cli.diagnosis.outcomes import pack_outcomes
from pmrl_cli.diagnosis.pairs import pair_apart, pair_of_space
from pmrl_cli.diagnosis.pictures import eigenvalues, plot_section, singular_values
from pmrl_cli.diagnosis.reservoir import Chosen
from pmrl_cli.diagnosis.retrieval import retrieval_sections, retrieve
from pmrl_cli.diagnosis.sample import shuffle_pairs
from pmrl_cli.diagnosis.state import MOMENTS, RESERVOIR, Header, State, check_pairs
from pmrl_cli.diagnosis.statistic import Statistic, plain
from pmrl_cli.diagnosis.summaries import BINS
from pmrl_cli.diagnosis.verdict import judge
from pmrl_cli.retrieval.batches import Batch

__all__ = ["Diagnosis", "diagnose", "diagnose_state", "state_of"]

_SHUFFLES = 8
_DRAWS = 500


@dataclass(frozen=True)
class Diagnosis:
    """What ``diagnose`` found.

    Args:
        result: the ``pmrl.diagnose/1`` object of ``docs/diagnose.schema.json``: JSON values only.
        mispairs: judges single instances; None where the modalities do not share a space.
    """

    result: dict[str, Any]
    mispairs: Mispairs | None

    def as_dict(self) -> dict[str, Any]:
        """Return the result."""
        return self.result


def diagnose(dataset: Dataset, **options: Any) -> Diagnosis:  # noqa: ANN401 - those of state_of
    """Say whether the modalities of a data set are aligned, how well, and what is wrong.

    Args:
        dataset: modalities; vectors of any length (they are compared by cosine).
        **options: those of ``state_of``.

    Raises: DataError unless an instance has two modalities; UsageError for an unknown column.
    """
    return diagnose_state(state_of(dataset, **options))


def state_of(
    dataset: Dataset,
    *,
    group: str | None = None,
    label: str | None = None,
    seed: int = 0,
    reservoir: int = RESERVOIR,
    moments: int = MOMENTS,
    columns: Sequence[int] | None = None,
    model: str = "",
) -> State:
    """Read a data set once.

    Args:
        dataset: modalities, of one dim if they are to be compared by cosine.
        group: side column of groups: independent units of the intervals, kept together in the reservoir, never
            shuffled into each other.
        label: side column of labels: adds label retrieval.
        seed: of the reservoir, the shuffles and the bootstrap.
        reservoir: instances in the reservoir.
        moments: instances in the joint moments.
        columns: columns of each modality in its files, where a model has embedded them.
        model: digest of that model.

    Raises: DataError unless an instance has two modalities; UsageError for an unknown column.
    """
    check_pairs(dataset)
    for name in (group, label):
        if name is not None:
            column_of(dataset, name)
    header = Header(
        dataset.names,
        dataset.dims,
        tuple(columns or dataset.dims),
        group,
        label,
        seed,
        reservoir,
        moments,
        model,
    )
    return State.of(dataset, header)


def diagnose_state(state: State) -> Diagnosis:
    """Say what a state, of one pass or merged from several, has seen."""
    header, chosen = state.header, state.reservoir.chosen()
    sections: dict[str, Any] = {
        "schema": "pmrl.diagnose/1",
        "inputs": {
            "modalities": header.names,
            "dims": dict(zip(header.names, header.dims, strict=True)),
            "columns": dict(zip(header.names, header.columns, strict=True)),
            "counts": {name: int(state.counts[m, m]) for m, name in enumerate(header.names)},
            "instances": state.instances,
            "groups": state.groups,
            "group": header.group,
            "label": header.label,
            "stage": "post" if header.shared else "pre",
        },
        "config": {
            "seed": header.seed,
            "reservoir": len(chosen),
            "moments": state.moments.count,
            "shuffles": _SHUFFLES,
            "neighbours": 10,
            "bins": BINS,
            "bootstrap": _DRAWS,
            "ties": "expected",
        },
        "alignment": None,
        "retrieval": None,
        "suspects": None,
        "counterfactual": [],
        "training": None,
        "compare": None,
        "limits": _limits(state),
        "plot": {},
    }
    mispairs = Mispairs.of(chosen.batch(), header.names, chosen.groups) if header.shared else None
    sections |= _apart(state, chosen) if mispairs is None else _shared(state, chosen, mispairs)
    result = plain(sections)
    result["verdict"] = judge(result).as_dict()
    return Diagnosis(result, mispairs)


def _shared(state: State, chosen: Chosen, mispairs: Mispairs) -> dict[str, Any]:
    """Return the sections of modalities that share a space."""
    header, k = state.header, len(state.header.names)
    batch = chosen.batch()
    generator = np.random.default_rng(header.seed)
    shuffled = [shuffle_pairs(batch, chosen.groups, generator) for _ in range(_SHUFFLES)]
    null = InstanceStatistics.join([instance_statistics(one) for one in shuffled])
    labels = None if header.label is None else chosen.labels
    retrieved = retrieve(batch, header.names, chosen.groups, labels, seed=header.seed, draws=_DRAWS)
    directions, means = retrieval_sections(retrieved)
    totals = state.moments.totals(), state.moments.totals(0), state.moments.totals(1)
    alignment = alignment_section(state.summaries, null, len(np.unique(chosen.groups)), k)
    alignment["singular_values"] = singular_values(batch)
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
                "load": unit_loading(state, null, m),
            }
            for m, name in enumerate(header.names)
        },
        "retrieval": means,
        "suspects": mispairs.section(chosen.ids.tolist()),
        "counterfactual": _counterfactual(batch, state, chosen, mispairs),
        "plot": plot_section(chosen, header.names),
        "outcomes": pack_outcomes(
            chosen.hashes,
            rows=batch.rows,
            groups=None if header.group is None else chosen.groups,
            adjusted=adjusted_shares(instance_statistics(batch), null),
            ranks=retrieved.ranks,
        ),
    }


def _apart(state: State, chosen: Chosen) -> dict[str, Any]:
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


def _limits(state: State) -> list[str]:
    """Return what this diagnosis cannot say."""
    limits = ["mispaired instances that resemble each other are not seen", "nothing is known about data unlike these"]
    if len(state.header.names) == 2:
        limits.insert(0, "with two modalities it cannot be said which of them is wrong")
    if state.header.group is None:
        limits.append("instances are taken as independent: intervals are too narrow if they are not (--group)")
    if state.moments.projected:
        limits.append("second moments are of random projections: the modalities have too many columns together")
    return limits
