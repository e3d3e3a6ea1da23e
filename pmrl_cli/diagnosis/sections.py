"""The sections of a diagnosis: every statistic that is declared, in its place, and what goes with them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pmrl_cli.data.ids import rows_of
from pmrl_cli.diagnosis.compare import pack_outcomes
from pmrl_cli.diagnosis.evidence import Evidence
from pmrl_cli.diagnosis.mispairing import Mispairs
from pmrl_cli.diagnosis.remedies import measure_remedies
from pmrl_cli.diagnosis.statistics.declared import section
from pmrl_cli.diagnosis.statistics.plot_data import plot_section
from pmrl_cli.diagnosis.statistics.retrieval import means_section, retrieve_sample, ways
from pmrl_cli.diagnosis.statistics.row_runs import runs_of
from pmrl_cli.stats.instances import adjusted_shares, instance_statistics

__all__ = ["mispairs_of", "sections_of"]


def sections_of(evidence: Evidence) -> dict[str, Any]:
    """Return the sections of a diagnosis: of modalities of several widths, those that need no shared space."""
    space = "space" in evidence.has
    found: dict[str, Any] = {
        "alignment": section("alignment", evidence) if space else None,
        "pair": {evidence.pair_name(pair): _pair(evidence, pair) for pair in evidence.pairs},
        "modality": {name: section("modality", evidence, m) for m, name in enumerate(evidence.names)},
        "training": section("training", evidence) if "model" in evidence.has else None,
        "retrieval": None,
        "suspects": None,
        "remedies": [],
        "plot": {},
    }
    if space:
        found |= {
            "retrieval": evidence.once(means_section),
            "suspects": _suspects(evidence),
            "remedies": _remedies(evidence),
            "plot": plot_section(evidence),
            "outcomes": _outcomes(evidence),
        }
    return found


def _pair(evidence: Evidence, pair: tuple[int, int]) -> dict[str, Any]:
    """Return the section of a pair, and in it those of its two directions."""
    directions = {}
    if "space" in evidence.has:
        ranked = evidence.once(retrieve_sample).ranks
        directions = {
            way: section("direction", evidence, way)
            for way, of in ways(evidence.names).items()
            if way in ranked and set(of) == set(pair)
        }
    return {**section("pair", evidence, *pair), "retrieval": directions}


def mispairs_of(evidence: Evidence) -> Mispairs:
    """Return what mispaired instances look like here, with the runs of rows where the data set is there."""
    found = evidence.mispairs
    return replace(found, runs=evidence.once(runs_of).runs) if "rows" in evidence.has else found


def _suspects(evidence: Evidence) -> dict[str, Any]:
    ids, dataset = evidence.sample.ids.tolist(), evidence.dataset
    rows = None if dataset is None else rows_of(dataset.ids, ids)
    return mispairs_of(evidence).section(ids, rows, evidence.sample.present)


def _remedies(evidence: Evidence) -> list[dict[str, Any]]:
    mispairs, core = evidence.mispairs, evidence.core
    found = measure_remedies(
        evidence.core_batch,
        evidence.names,
        evidence.half[: len(core)],
        core.groups,
        probability=mispairs.model.suspicion(mispairs.found.score).probability[: len(core)],
        seed=evidence.state.header.seed,
    )
    return [one.as_dict() for one in found]


def _outcomes(evidence: Evidence) -> dict[str, Any]:
    sample = evidence.sample
    return pack_outcomes(
        sample.hashes,
        rows=evidence.batch.rows,
        groups=None if sample.alone else sample.groups,
        adjusted=adjusted_shares(instance_statistics(evidence.batch), evidence.null),
        ranks=evidence.once(retrieve_sample).ranks,
    )
