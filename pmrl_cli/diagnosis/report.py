"""``diagnose``: one pass over the data, one reservoir, and every number beside its chance value.

Chance is shuffled pairs: the same vectors, mispaired, so that a gap, a cone or a collapse cannot pass for
alignment. Statistics of instances come from all of them; nulls, pairing statistics, dimensions and retrieval from
a reservoir chosen by the hash of the ids. Nothing needs more than one number per instance and statistic.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pmrl_cli.data.dataset import Dataset
from pmrl_cli.diagnosis.instances import InstanceStatistics, instance_statistics, pairs_of
from pmrl_cli.diagnosis.pairing import (
    adjusted_cosine_error,
    clustered_error,
    effective_dimension,
    group_means,
    mean_off_diagonal_cosine,
    pairing_z,
)
from pmrl_cli.diagnosis.retrieval import ReservoirRetrieval, centring, retrieve
from pmrl_cli.diagnosis.sample import choose_reservoir, shuffle_pairs
from pmrl_cli.diagnosis.verdict import Finding, judge, overall
from pmrl_cli.retrieval.batches import Batch, check_one_space, read_batch
from pmrl_cli.retrieval.columns import codes_of
from pmrl_cli.retrieval.evaluation import Measured, mean_over
from pmrl_cli.retrieval.intervals import interval
from pmrl_cli.retrieval.ranks import OTHERS

__all__ = ["Diagnosis", "diagnose"]

Array = npt.NDArray[np.float64]
Statistic = dict[str, Any]

_QUANTILES = (0.01, 0.05, 0.5, 0.95, 0.99)
_NORMAL_95 = 1.959964
_COLLAPSED = 1e-6  # room left above the null below which an adjusted value is noise
_DRAWS = 500


@dataclass(frozen=True)
class Diagnosis:
    """What ``diagnose`` found; every statistic is ``{"value", "chance", "ci", "n", "status"}``.

    Args:
        alignment: ``A``, ``rho``, ``signed``, ``mixed_sign``, quantiles of rho, and rho by number of modalities.
        pair: by ``a|b``: ``cos``, ``adj``, ``z``, ``gap_share`` and retrieval both ways; a pair that no instance
            has is absent.
        modality: by name: ``load``, ``cone``, ``dimension``.
        retrieval: means over directions, ``pairwise`` and ``fused``, the size of the standard gallery, and what
            ``centring`` every modality would do to R@1.
        findings: what the rules say, gravest first.
        facts: what was read and how.
    """

    alignment: Mapping[str, Any]
    pair: Mapping[str, Any]
    modality: Mapping[str, Any]
    retrieval: Mapping[str, Any]
    findings: Sequence[Finding]
    facts: Mapping[str, Any]

    def as_dict(self) -> dict[str, Any]:
        """Return the ``pmrl.diagnose/1`` object: JSON values only, null for what cannot be said."""
        return {
            "schema": "pmrl.diagnose/1",
            **self.facts,
            "alignment": self.alignment,
            "pair": self.pair,
            "modality": self.modality,
            "retrieval": self.retrieval,
            "verdict": overall(self.findings),
        }


def diagnose(
    dataset: Dataset,
    *,
    group: str | None = None,
    label: str | None = None,
    seed: int = 0,
    reservoir: int = 4096,
    shuffles: int = 8,
) -> Diagnosis:
    """Say whether the modalities of a data set are aligned, how well, and what is wrong.

    Args:
        dataset: modalities of one dim; vectors of any length (they are compared by cosine).
        group: side column of groups: independent units of the intervals, kept together in the reservoir, never
            shuffled into each other.
        label: side column of labels: adds label retrieval.
        seed: of the reservoir, the shuffles and the bootstrap.
        reservoir: instances in the reservoir.
        shuffles: shuffled copies of the reservoir.

    Raises: DataError if the modalities do not share a space or no instance has two; UsageError for an unknown
        column.
    """
    check_one_space(dataset)
    names = dataset.names
    rows = np.flatnonzero(dataset.present.sum(1) >= 2)
    groups = np.arange(len(dataset)) if group is None else codes_of(dataset, group, missing="apart")
    labels = None if label is None else codes_of(dataset, label, missing="none")
    statistics, sums, counts = _one_pass(dataset, rows)
    chosen = choose_reservoir(dataset, rows, None if group is None else groups, limit=reservoir, seed=seed)
    batch = read_batch(dataset, chosen)
    generator = np.random.default_rng(seed)
    shuffled = [shuffle_pairs(batch, groups[chosen], generator) for _ in range(shuffles)]
    null = InstanceStatistics.join([instance_statistics(one) for one in shuffled])
    retrieved = retrieve(batch, names, groups, labels, seed=seed, draws=_DRAWS)

    alignment = _alignment(statistics, null, groups[rows], len(np.unique(groups[chosen])))
    pair = {}
    for index, (a, b) in enumerate(pairs_of(len(names))):
        if counts[a, b]:
            cosine = statistics.cosine[:, index]
            means = sums[a, b] / counts[a, b], sums[b, a] / counts[a, b]
            pair[f"{names[a]}|{names[b]}"] = {
                **_pair(batch, (a, b), cosine, means, groups[rows], groups[chosen]),
                "retrieval": {
                    direction: _direction(retrieved, direction)
                    for direction in (f"{names[a]}->{names[b]}", f"{names[b]}->{names[a]}")
                    if direction in retrieved.measured
                },
            }
    modality = {
        name: _modality(batch, m, statistics, null, sums[m, m], int(counts[m, m]), groups[rows])
        for m, name in enumerate(names)
    }
    facts = {
        "modalities": list(names),
        "dim": dataset.dims[0],
        "instances": len(rows),
        "groups": len(np.unique(groups[rows])),
        "group": group,
        "label": label,
        "reservoir": len(chosen),
        "shuffles": shuffles,
        "seed": seed,
    }
    retrieval = _retrieval(retrieved)
    retrieval["centring"] = {
        name: _measured(one, len(chosen))
        for name, one in centring(batch, names, groups, seed=seed, draws=_DRAWS).items()
    }
    findings = judge(facts, pair, modality, retrieval)
    return Diagnosis(alignment, pair, modality, retrieval, findings, facts)


def _one_pass(
    dataset: Dataset, rows: npt.NDArray[np.int64]
) -> tuple[InstanceStatistics, npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Read the data once.

    Returns: the statistics of ``rows``; (K, K, d) sums of the vectors of a over the instances that have a and b;
        (K, K) how many have both.
    """
    modalities = len(dataset.names)
    sums = np.zeros((modalities, modalities, dataset.dims[0]))
    counts = np.zeros((modalities, modalities), dtype=np.int64)
    parts = []
    for block in dataset.blocks(rows):
        batch = read_batch(dataset, block)
        parts.append(instance_statistics(batch))
        present = batch.present.double()
        counts += (present.T @ present).long().numpy()
        for m in range(modalities):
            sums[m] += (present.T @ batch.embeddings[:, m].double()).numpy()
    return InstanceStatistics.join(parts), sums, counts


def _statistic(
    value: float | None,
    *,
    chance: float | None = None,
    error: float | None = None,
    ci: tuple[float, float] | None = None,
    n: int,
    status: str = "ok",
) -> Statistic:
    """Return a statistic; its interval is ``ci``, or that of a normal with standard error ``error``."""
    if value is not None and error is not None:
        ci = value - _NORMAL_95 * error, value + _NORMAL_95 * error
    if value is None and status == "ok":
        status = "n_too_small"
    return {
        "value": value,
        "chance": chance,
        "ci": None if ci is None else [float(ci[0]), float(ci[1])],
        "n": n,
        "status": status,
    }


def _mean_statistic(values: Array, null: Array, groups: npt.NDArray[np.int64]) -> Statistic:
    """Return the mean over instances beside that of the shuffled ones."""
    chance = float(null.mean()) if len(null) else None
    return _statistic(float(values.mean()), chance=chance, error=clustered_error(values, groups), n=len(values))


def _alignment(
    statistics: InstanceStatistics, null: InstanceStatistics, groups: npt.NDArray[np.int64], null_groups: int
) -> dict[str, Any]:
    """Return the statistics of all modalities at once.

    rho of two modalities and rho of three do not compare: every instance is adjusted by the null of its number of
    modalities, a_i = (rho_i - rho0) / (1 - rho0), and A is their mean.
    """
    adjusted = np.full(len(statistics.rho), np.nan)
    null_variance = 0.0
    by_number = {}
    collapsed = False
    for number in np.unique(statistics.number):
        of_number, null_of_number = statistics.number == number, null.rho[null.number == number]
        values = statistics.rho[of_number]
        by_number[str(number)] = _mean_statistic(values, null_of_number, groups[of_number])
        if len(null_of_number) == 0:
            continue
        room = 1 - null_of_number.mean()
        if room < _COLLAPSED:
            collapsed = True
            continue
        adjusted[of_number] = 1 - (1 - values) / room
        # The shuffles reuse the same vectors, so their error is that of one pass over the reservoir's groups.
        share = null_groups * len(null_of_number) / len(null.rho)
        error = null_of_number.std() / np.sqrt(share)
        null_variance += (of_number.mean() * (1 - values.mean()) / room**2 * error) ** 2
    known = ~np.isnan(adjusted)
    value, error_of_mean = None, None
    if known.any():
        value = float(adjusted[known].mean())
        error_of_mean = clustered_error(adjusted[known], groups[known])
    if error_of_mean is not None:
        error_of_mean = float(np.hypot(error_of_mean, np.sqrt(null_variance)))
    status = "collapsed" if value is None and collapsed else "ok"
    return {
        "A": _statistic(value, chance=0.0, error=error_of_mean, n=int(known.sum()), status=status),
        "rho": _mean_statistic(statistics.rho, null.rho, groups),
        "signed": _mean_statistic(statistics.signed, null.signed, groups),
        "mixed_sign": _mean_statistic(statistics.mixed, null.mixed, groups),
        "rho_quantiles": {f"{q:.2f}": float(np.quantile(statistics.rho, q)) for q in _QUANTILES},
        "rho_by_modalities": by_number,
    }


def _pair(
    batch: Batch,
    pair: tuple[int, int],
    cosine: Array,
    means: tuple[Array, Array],
    groups: npt.NDArray[np.int64],
    reservoir_groups: npt.NDArray[np.int64],
) -> dict[str, Statistic]:
    """Return the statistics of the instances that have both modalities of a pair."""
    both = ~np.isnan(cosine)
    count = int(both.sum())
    mean, null = float(cosine[both].mean()), float(means[0] @ means[1])
    kept = batch.present[:, pair].all(1).numpy()
    first, second = (batch.embeddings[kept, m].double().numpy() for m in pair)
    error = adjusted_cosine_error(first, second, reservoir_groups[kept])
    collapsed = 1 - null < _COLLAPSED
    # Groups are what is independent: the unit of the permutation is a group's mean vector.
    z = pairing_z(*(group_means(side, reservoir_groups[kept]) for side in (first, second)))
    distance = 2 - 2 * mean
    gap = float(((means[0] - means[1]) ** 2).sum())
    return {
        "cos": _statistic(mean, chance=null, error=clustered_error(cosine[both], groups[both]), n=count),
        "adj": _statistic(
            None if collapsed else 1 - (1 - mean) / (1 - null),
            chance=0.0,
            error=None if error is None else error * np.sqrt(len(first) / count),
            n=count,
            status="collapsed" if collapsed else "ok",
        ),
        "z": _statistic(z, chance=0.0, n=len(first)),
        "gap_share": _statistic(gap / distance if distance > _COLLAPSED else None, chance=1 / count, n=count),
    }


def _modality(
    batch: Batch,
    m: int,
    statistics: InstanceStatistics,
    null: InstanceStatistics,
    total: Array,
    count: int,
    groups: npt.NDArray[np.int64],
) -> dict[str, Statistic]:
    """Return the statistics of one modality."""
    if count == 0:
        absent = _statistic(None, n=0)
        return {"load": absent, "cone": absent, "dimension": absent}
    having, null_load = ~np.isnan(statistics.loading[:, m]), null.loading[:, m]
    vectors = batch.embeddings[batch.present[:, m], m].double().numpy()
    dimension = effective_dimension(vectors)
    return {
        "load": _mean_statistic(statistics.loading[having, m], null_load[~np.isnan(null_load)], groups[having]),
        "cone": _statistic(mean_off_diagonal_cosine(total, count), chance=0.0, n=count),
        "dimension": _statistic(dimension, chance=float(batch.embeddings.shape[2]), n=len(vectors)),
    }


def _measured(measured: Measured, n: int) -> Statistic:
    return _statistic(measured.value, chance=measured.chance, ci=interval(measured.draws), n=n)


def _direction(retrieved: ReservoirRetrieval, direction: str) -> dict[str, Any]:
    ranks = retrieved.ranks[direction]
    return {
        "gallery": ranks.gallery,
        "tie_spread": retrieved.tie_spread[direction],
        **{metric: _measured(one, len(ranks.rows)) for metric, one in retrieved.measured[direction].items()},
    }


def _retrieval(retrieved: ReservoirRetrieval) -> dict[str, Any]:
    """Return the means over directions, and how far the two directions of each pair differ in R@1."""
    fused = [name for name in retrieved.measured if name.startswith(f"{OTHERS}->")]
    kinds = {"pairwise": [name for name in retrieved.measured if name not in fused], "fused": fused}
    result: dict[str, Any] = {
        "standard_gallery": retrieved.standard_gallery,
        "tie_spread": max(retrieved.tie_spread.values()),
    }
    for kind, names in kinds.items():
        means = mean_over([retrieved.measured[name] for name in names])
        queries = sum(len(retrieved.ranks[name].rows) for name in names)
        result[kind] = None if means is None else {metric: _measured(one, queries) for metric, one in means.items()}
    return result
