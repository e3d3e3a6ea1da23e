"""Alignment of all modalities at once, from summaries of all instances and a null of shuffled ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from pmrl_cli.array_types import Array
from pmrl_cli.diagnosis.evidence import Evidence
from pmrl_cli.diagnosis.state.summaries import BINS, Columns, Summaries
from pmrl_cli.diagnosis.statistics.declared import STATISTIC, detail, statistic
from pmrl_cli.spectrum import spectrum
from pmrl_cli.stats.instances import COLLAPSED
from pmrl_cli.stats.statistic import Statistic

__all__ = ["adjusted", "rho", "summary_statistic"]


_QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
_PICTURE_BINS = 64


def summary_statistic(summaries: Summaries, column: int, null: Array, high: float = 1.0) -> Statistic:
    """Return the mean of a summarised number, in [0, high], beside its mean over shuffled instances.

    Args:
        summaries: of the instances.
        column: of the number.
        null: the number of each shuffled instance, NaN where it has none.
        high: greatest value.
    """
    null = null[~np.isnan(null)]
    chance = float(null.mean()) if len(null) else None
    count = int(summaries.count[column])
    if count == 0:
        return Statistic.unknown(chance=chance, n=0, null="shuffled")
    return Statistic.normal(
        summaries.mean(column),
        summaries.mean_error(column),
        within=(0.0, high),
        chance=chance,
        n=count,
        null="shuffled",
    )


def _rho_counts(summaries: Summaries, columns: Columns) -> int:
    return int(summaries.count[list(columns.rho)].sum())


@statistic(
    "A",
    "alignment",
    formula="adjusted alignment: mean of (rho_i - rho_0) / (1 - rho_0), rho_0 the shuffled mean for as many "
    "modalities as instance i has. 1: identical up to sign. Instances with two and with three modalities become "
    "comparable",
    chance="0",
    range="up to 1",
    needs=["space"],
)
def adjusted(evidence: Evidence) -> Statistic:
    """Return A: rho of two modalities and rho of three do not compare, so each is adjusted by a null of its own."""
    summaries, null, columns = evidence.state.summaries, evidence.null, Columns(len(evidence.names))
    null_groups = len(np.unique(evidence.sample.groups))
    total, weighted, null_variance = 0, 0.0, 0.0
    rooms: dict[int, float] = {}
    collapsed = False
    instances_in_all = int(summaries.count[list(columns.rho)].sum())
    for column in columns.rho:
        count, of_number = int(summaries.count[column]), null.rho[null.number == column + 2]
        if count == 0 or len(of_number) == 0:
            continue
        room = 1 - float(of_number.mean())
        if room < COLLAPSED:
            collapsed = True
            continue
        rooms[column] = room
        total += count
        missed = 1 - summaries.mean(column)
        weighted += count * (1 - missed / room)
        # The shuffles reuse the same vectors, so their error is that of one pass over the reservoir's groups.
        share = null_groups * len(of_number) / len(null.rho)
        null_variance += (count / instances_in_all * missed / room**2 * of_number.std() / np.sqrt(share)) ** 2
    if total == 0:
        return Statistic.unknown("collapsed" if collapsed else "n_too_small", chance=0.0, null="shuffled")
    value = weighted / total
    error = summaries.error({column: (1 / room, 1 / room - 1 + value) for column, room in rooms.items()})
    if error is not None:
        error = float(np.hypot(error, np.sqrt(null_variance)))
    return Statistic.normal(value, error, within=(-np.inf, 1.0), chance=0.0, n=total, null="shuffled")


@statistic(
    "rho",
    "alignment",
    formula="sigma_1^2 / k of the d x k matrix of an instance's unit vectors, mean over instances. 1: all on one "
    "line; 1/k: orthogonal. Without chance it says little: .40 is chance for k = 3, d = 64",
    chance="shuffled pairs",
    range="[1/k, 1]",
    needs=["space"],
)
def rho(evidence: Evidence) -> Statistic:
    """Return the mean share of the leading eigenvalue."""
    summaries, null, k = evidence.state.summaries, evidence.null, len(evidence.names)
    columns = Columns(k)
    count = _rho_counts(summaries, columns)
    mean = float(summaries.sum[list(columns.rho)].sum() / count)
    return Statistic.normal(
        mean,
        summaries.error(dict.fromkeys(columns.rho, (1.0, mean))),
        within=(1 / k, 1.0),
        chance=float(null.rho.mean()) if len(null.rho) else None,
        n=count,
        null="shuffled",
    )


@statistic(
    "signed",
    "alignment",
    formula="squared length of the mean of an instance's unit vectors. Below rho: modalities share a line but not a "
    "direction, which sigma_1 cannot see",
    chance="shuffled pairs",
    range="[0, rho]",
    needs=["space"],
)
def _signed(evidence: Evidence) -> Statistic:
    column = Columns(len(evidence.names)).signed
    return summary_statistic(evidence.state.summaries, column, evidence.null.signed)


@statistic(
    "mixed_sign",
    "alignment",
    formula="fraction of instances whose leading direction has loadings of both signs beyond .1",
    chance="shuffled pairs",
    range="[0, 1]",
    needs=["space"],
)
def _mixed_sign(evidence: Evidence) -> Statistic:
    return summary_statistic(evidence.state.summaries, Columns(len(evidence.names)).mixed, evidence.null.mixed)


_PAIRS_OF_NUMBERS = {"type": "array", "items": {"type": "number"}, "minItems": 2, "maxItems": 2}


@detail(
    "quantiles",
    "alignment",
    about="[probability, value] by statistic",
    schema={"type": "object", "additionalProperties": {"type": "array", "items": _PAIRS_OF_NUMBERS}},
    needs=["space"],
)
def _quantiles(evidence: Evidence) -> dict[str, Any]:
    summaries, columns = evidence.state.summaries, Columns(len(evidence.names))
    of = {"rho": list(columns.rho), "signed": [columns.signed]}
    return {name: [[q, summaries.quantile(numbers, q)] for q in _QUANTILES] for name, numbers in of.items()}


@detail(
    "rho_by_modalities",
    "alignment",
    about="rho of the instances with 2, 3, ... modalities",
    schema={"type": "object", "additionalProperties": STATISTIC},
    needs=["space"],
)
def _by_number(evidence: Evidence) -> dict[str, Statistic]:
    summaries, null = evidence.state.summaries, evidence.null
    return {
        str(column + 2): summary_statistic(summaries, column, null.rho[null.number == column + 2])
        for column in Columns(len(evidence.names)).rho
        if summaries.count[column]
    }


@detail("histogram", "alignment", about="of rho", schema={"$ref": "#/$defs/histogram"}, needs=["space"])
def _histogram(evidence: Evidence) -> dict[str, Any]:
    k = len(evidence.names)
    bins = evidence.state.summaries.bins[list(Columns(k).rho)].sum(0)
    edges = np.linspace(1 / k, 1, _PICTURE_BINS + 1)
    return {
        "edges": edges,
        "observed": bins.reshape(_PICTURE_BINS, BINS // _PICTURE_BINS).sum(1),
        "shuffled": np.histogram(np.clip(evidence.null.rho, edges[0], 1), edges)[0],
    }


@detail(
    "singular_values",
    "alignment",
    about="quantiles of sigma_1 .. sigma_k over the instances with all modalities",
    schema={
        "type": "array",
        "items": {
            "type": "object",
            "properties": {name: {"type": "number"} for name in ("q05", "q50", "q95")},
            "required": ["q05", "q50", "q95"],
            "additionalProperties": False,
        },
    },
    needs=["space"],
)
def _singular_values(evidence: Evidence) -> list[dict[str, float]]:
    batch = evidence.batch
    complete = batch.present.all(1)
    if not complete.any():
        return []
    values = spectrum(batch.embeddings[complete]).singular_values.double().numpy()
    low, middle, high = np.quantile(values, [0.05, 0.5, 0.95], axis=0)
    return [{"q05": float(a), "q50": float(b), "q95": float(c)} for a, b, c in zip(low, middle, high, strict=True)]
