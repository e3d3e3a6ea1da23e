"""Alignment of all modalities at once, from summaries of all instances and a null of shuffled ones."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pmrl_cli.diagnosis.state.summaries import BINS, Columns, Summaries
from pmrl_cli.stats.instances import COLLAPSED, InstanceStatistics
from pmrl_cli.stats.statistic import Statistic

__all__ = ["alignment_section", "summary_statistic"]

Array = npt.NDArray[np.float64]

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


def alignment_section(summaries: Summaries, null: InstanceStatistics, null_groups: int, k: int) -> dict[str, Any]:
    """Return the statistics of all modalities at once.

    rho of two modalities and rho of three do not compare: every instance is adjusted by the null of its number of
    modalities, a_i = (rho_i - rho0) / (1 - rho0), and A is their mean.

    Args:
        summaries: of all instances.
        null: of shuffled copies of the reservoir.
        null_groups: independent units in the reservoir.
        k: modalities.
    """
    columns = Columns(k)
    by_number = {
        str(column + 2): summary_statistic(summaries, column, null.rho[null.number == column + 2])
        for column in columns.rho
        if summaries.count[column]
    }
    rho_count = int(summaries.count[list(columns.rho)].sum())
    mean = float(summaries.sum[list(columns.rho)].sum() / rho_count)
    rho = Statistic.normal(
        mean,
        summaries.error(dict.fromkeys(columns.rho, (1.0, mean))),
        within=(1 / k, 1.0),
        chance=float(null.rho.mean()) if len(null.rho) else None,
        n=rho_count,
        null="shuffled",
    )
    bins = summaries.bins[list(columns.rho)].sum(0)
    edges = np.linspace(1 / k, 1, _PICTURE_BINS + 1)
    return {
        "A": _adjusted(summaries, null, null_groups, columns),
        "rho": rho,
        "signed": summary_statistic(summaries, columns.signed, null.signed),
        "mixed_sign": summary_statistic(summaries, columns.mixed, null.mixed),
        "quantiles": {
            "rho": [[q, summaries.quantile(list(columns.rho), q)] for q in _QUANTILES],
            "signed": [[q, summaries.quantile([columns.signed], q)] for q in _QUANTILES],
        },
        "rho_by_modalities": by_number,
        "histogram": {
            "edges": edges,
            "observed": bins.reshape(_PICTURE_BINS, BINS // _PICTURE_BINS).sum(1),
            "shuffled": np.histogram(np.clip(null.rho, edges[0], 1), edges)[0],
        },
    }


def _adjusted(summaries: Summaries, null: InstanceStatistics, null_groups: int, columns: Columns) -> Statistic:
    total, weighted, null_variance = 0, 0.0, 0.0
    rooms: dict[int, float] = {}
    collapsed = False
    everyone = int(summaries.count[list(columns.rho)].sum())
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
        null_variance += (count / everyone * missed / room**2 * of_number.std() / np.sqrt(share)) ** 2
    if total == 0:
        return Statistic.unknown("collapsed" if collapsed else "n_too_small", chance=0.0, null="shuffled")
    value = weighted / total
    error = summaries.error({column: (1 / room, 1 / room - 1 + value) for column, room in rooms.items()})
    if error is not None:
        error = float(np.hypot(error, np.sqrt(null_variance)))
    return Statistic.normal(value, error, within=(-np.inf, 1.0), chance=0.0, n=total, null="shuffled")
