"""How a modality agrees with the consensus of the others, and how many of its vectors belong to other instances."""

from __future__ import annotations

from typing import Any

import numpy as np

from pmrl_cli.diagnosis.evidence import Evidence
from pmrl_cli.diagnosis.mispair_rates import consensus_auc
from pmrl_cli.diagnosis.statistics.declared import detail, statistic
from pmrl_cli.stats.consensus import EDGES
from pmrl_cli.stats.statistic import Statistic

__all__: list[str] = []

_MERGED_BINS = 16  # of EDGES in one bin of a picture


@statistic(
    "consensus_auc",
    "modality",
    formula="P(its vector agrees better with the consensus of the others than a mispaired one), centred, CSLS",
    chance="1/2",
    range="[0, 1]",
    needs=["space"],
)
def _consensus_auc(evidence: Evidence, m: int) -> Statistic:
    mispairs = evidence.mispairs
    return consensus_auc(mispairs.found.score[:, m], mispairs.mispaired[0, m], evidence.sample.groups)


@statistic(
    "mispair_rate",
    "modality",
    formula="weight of mispaired scores, of swaps with any instance and with one like it, in a mixture of low "
    "agreement scores, beside noisy partners. With two modalities it is not known which of the two is wrong: it is "
    "then of the pair",
    chance="0",
    range="[0, 1]",
    needs=["space"],
)
def _mispair_rate(evidence: Evidence, m: int) -> Statistic:
    return evidence.mispairs.model.rates[m]


@statistic(
    "near_mispair_rate",
    "modality",
    formula="part of mispair_rate: swaps with an instance like it, whose scores are those with the quarter and the "
    "twentieth of the instances whose consensus is nearest",
    chance="0",
    range="[0, 1]",
    needs=["space"],
)
def _near_mispair_rate(evidence: Evidence, m: int) -> Statistic:
    return evidence.mispairs.model.near_rates[m]


@detail(
    "suspect_histogram",
    "modality",
    about="of agreement scores",
    schema={"$ref": "#/$defs/histogram"},
    needs=["space"],
)
def _suspect_histogram(evidence: Evidence, m: int) -> dict[str, Any]:
    mispairs, edges = evidence.mispairs, EDGES[::_MERGED_BINS]
    score = mispairs.found.score[:, m]
    return {
        "edges": edges,
        "observed": np.histogram(score[~np.isnan(score)], edges)[0],
        "shuffled": mispairs.mispaired[0, m].reshape(-1, _MERGED_BINS).sum(1),
    }
