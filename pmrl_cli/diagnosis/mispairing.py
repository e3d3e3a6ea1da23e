"""Mispaired instances: which they are, which of their modalities is to blame, and how many there may be.

The scores of ``consensus`` have a known null: every vector beside the consensus of every other instance is a
mispaired instance. How far the scores of the instances lie above it says how much a modality can tell, and a low
score is evidence in that measure: a modality that hardly tells partners from strangers accuses nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from pmrl_cli.data.dataset import Dataset
from pmrl_cli.retrieval.batches import Batch, read_batch
from pmrl_cli.stats.consensus import EDGES, Agreement, Reference, agreement, reference_of
from pmrl_cli.stats.instances import instance_statistics
from pmrl_cli.stats.statistic import Statistic, clustered_error

__all__ = [
    "FLAGGED",
    "InstanceBlock",
    "MispairModel",
    "Mispairs",
    "Suspicion",
    "consensus_auc",
    "mispair_model",
    "poisson_interval",
]

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

FLAGGED = 0.5
"""Probability from which an instance is listed as a suspect."""

_NULL_SHARE = 0.25
"""Share of mispaired scores below the threshold that counts them: low enough that few partners lie below it."""

_TELLING_AUC = 0.95
"""Below it partners lie under the threshold too, and the rate is only what it is at most."""

_NORMAL_95 = 1.959964


class Suspicion(NamedTuple):
    """How suspect B instances are.

    Args:
        evidence: (B,) log of the mean likelihood ratio, over modalities, of being mispaired to being a partner: the
            higher, the more suspect. NaN with fewer than two modalities.
        suspect_modality: (B,) the modality with the most evidence against it; -1 with fewer than two. With two
            modalities in all it says nothing: either may be wrong.
        probability: (B,) in [0, 1], given the mispair rates; 0 where they are 0 or only upper bounds.
    """

    evidence: Array
    suspect_modality: npt.NDArray[np.int64]
    probability: Array


class Steps(NamedTuple):
    """A probability that falls in steps: that of the first of (s,) ascending scores not below; 0 above them all."""

    score: Array
    probability: Array


@dataclass(frozen=True)
class MispairModel:
    """What is known of mispaired scores.

    Args:
        mean: (K,) of the mispaired scores of each modality.
        deviation: (K,) theirs.
        gap: (K,) deviations between that mean and the median of the instances, at least 0.
        rates: estimated share of instances whose vector of a modality is another instance's; for two modalities
            each holds that of the pair. Status ``upper_bound`` where partners and strangers overlap too much.
        steps: probability of being mispaired by the score of the modality to blame.
    """

    mean: Array
    deviation: Array
    gap: Array
    rates: tuple[Statistic, ...]
    steps: tuple[Steps, ...]

    def evidence(self, score: Array) -> tuple[Array, npt.NDArray[np.int64]]:
        """Return (B,) evidence and (B,) suspect_modalities of (B, K) scores: see ``Suspicion``."""
        # Log likelihood ratios of two normals of one width, ``gap`` apart.
        ratios = self.gap * (self.gap / 2 - (score - self.mean) / self.deviation)
        known = ~np.isnan(ratios)
        some = known.any(1)
        filled = np.where(known, ratios, -np.inf)
        most = np.where(some, filled.max(1), 0)
        total = np.where(some, np.exp(filled - most[:, None]).sum(1), 1)
        evidence = most + np.log(total) - np.log(np.maximum(known.sum(1), 1))
        return np.where(some, evidence, np.nan), np.where(some, filled.argmax(1), -1)

    def judge(self, score: Array) -> Suspicion:
        """Say how suspect instances are.

        Args:
            score: (B, K) of ``agreement``.
        """
        evidence, suspect_modality = self.evidence(score)
        probability = np.zeros(len(score))
        for m, steps in enumerate(self.steps):
            blamed = suspect_modality == m
            at = np.searchsorted(steps.score, score[blamed, m])
            probability[blamed] = np.append(steps.probability, 0.0)[at]
        return Suspicion(evidence, suspect_modality, probability)


def poisson_interval(count: float) -> tuple[float, float]:
    """Return the 95 % interval of the mean of a Poisson count (Byar's approximation to the exact one).

    Source: Breslow and Day, "Statistical Methods in Cancer Research II", IARC 1987, p. 69; within 2 % of the exact
        interval from a count of 1 on (tested).
    """
    low = 0.0
    if count > 0:
        low = max(0.0, count * (1 - 1 / (9 * count) - _NORMAL_95 / (3 * np.sqrt(count))) ** 3)
    above = count + 1
    return float(low), float(above * (1 - 1 / (9 * above) + _NORMAL_95 / (3 * np.sqrt(above))) ** 3)


def consensus_auc(score: Array, mispaired: Counts, groups: npt.NDArray[np.int64]) -> Statistic:
    """Return the probability that an instance's score exceeds a mispaired one: 0.5 by chance, 1 if all are told.

    The interval is over the instances (or groups), the mispaired scores held fixed.

    Args:
        score: (B,) of one modality, NaN where unusable.
        mispaired: (bins,) counts over ``EDGES``.
        groups: (B,).
    """
    usable = ~np.isnan(score)
    total = mispaired.sum()
    if usable.sum() < 2 or total == 0:
        return Statistic.unknown(chance=0.5, n=int(usable.sum()), null="closed_form")
    below = (np.cumsum(mispaired) - mispaired / 2) / total  # ties within a bin count half
    place = below[np.clip(np.searchsorted(EDGES, score[usable], "right") - 1, 0, len(mispaired) - 1)]
    error = clustered_error(place, groups[usable])
    n = int(usable.sum())
    return Statistic.normal(float(place.mean()), error, within=(0, 1), chance=0.5, n=n, null="closed_form")


def mispair_model(found: Agreement, mispaired: Counts, groups: npt.NDArray[np.int64]) -> MispairModel:
    """Learn what mispaired scores look like and how many instances of a reference have them.

    A quarter of the mispaired scores lie below a threshold; the instances below it, four times over, estimate the
    rate (Storey, JRSS-B 64, 2002, with the null known). An instance counts for the modality with the most evidence
    against it, for a wrong vector spoils the consensus of the others too. Near misses (a vector swapped with one
    much like it) are not seen.

    Args:
        found: of the reference itself.
        mispaired: (K, bins) counts over ``EDGES``, of ``Reference.mispaired``.
        groups: (B,) group of each instance: instances of one group are not counted as independent.
    """
    score = found.score
    modalities = score.shape[1]
    middles = (EDGES[1:] + EDGES[:-1]) / 2
    totals = np.maximum(mispaired.sum(1), 1)
    mean = mispaired @ middles / totals
    deviation = np.sqrt(np.maximum(mispaired @ middles**2 / totals - mean**2, 1e-12))
    usable = ~np.isnan(score)
    gap = np.zeros(modalities)
    for m in range(modalities):
        if usable[:, m].any():
            gap[m] = max(0.0, (np.median(score[usable[:, m], m]) - mean[m]) / deviation[m])
    model = MispairModel(mean, deviation, gap, (), ())
    _, suspect_modality = model.evidence(score)
    rates, steps = [], []
    for m in range(modalities):
        own = score[usable[:, m], m]
        blamed = (suspect_modality[usable[:, m]] == m) | (modalities == 2)
        auc = consensus_auc(score[:, m], mispaired[m], groups).value
        rate = _rate(own, blamed, mispaired[m], auc, groups[usable[:, m]])
        rates.append(rate)
        # What is only an upper bound accuses nobody.
        expected = (rate.value or 0.0) * len(own) if rate.status == "ok" else 0.0
        steps.append(_steps(np.sort(own[blamed]), expected * mispaired[m] / totals[m]))
    return replace(model, rates=tuple(rates), steps=tuple(steps))


def _steps(score: Array, expected: Array) -> Steps:
    """Return, by score, how many mispaired instances are expected for each instance there is: at most 1, falling.

    The antitonic regression of expected counts on observed ones: neighbours that would rise are pooled.

    Args:
        score: (s,) ascending, of the instances.
        expected: (bins,) mispaired instances over ``EDGES``.
    """
    if len(score) == 0:
        return Steps(score, score)
    below = np.interp(score, EDGES, np.concatenate([[0.0], np.cumsum(expected)]))
    blocks: list[tuple[float, int]] = []  # expected, observed
    for gained in np.diff(below, prepend=0.0):
        mass, count = float(gained), 1
        while blocks and blocks[-1][0] * count < mass * blocks[-1][1]:
            mass, count = mass + blocks[-1][0], count + blocks[-1][1]
            blocks.pop()
        blocks.append((mass, count))
    masses, counts = np.array(blocks).T
    return Steps(score, np.repeat(np.minimum(masses / counts, 1), counts.astype(int)))


def _rate(
    score: Array, blamed: npt.NDArray[np.bool_], mispaired: Counts, auc: float | None, groups: npt.NDArray[np.int64]
) -> Statistic:
    n = len(score)
    if auc is None:
        return Statistic.unknown(n=n)
    share_below = np.cumsum(mispaired) / mispaired.sum()
    edge = int(np.searchsorted(share_below, _NULL_SHARE))
    share = float(share_below[edge])
    low = blamed & (score < EDGES[edge + 1])
    count = int(low.sum())
    # Mispaired groups come as a whole: their count has the spread of a Poisson count of groups.
    design = 1.0
    error = clustered_error(low.astype(np.float64), groups)
    if error is not None and 0 < count < n:
        design = max(1.0, error**2 / (count / n * (1 - count / n) / n))
    bounds = poisson_interval(count / design)
    rate = min(1.0, count / (share * n))
    ci = min(rate, bounds[0] * design / (share * n)), min(1.0, bounds[1] * design / (share * n))
    # The instances of the estimate are themselves part mispaired: take them out of the AUC.
    told = (auc - rate / 2) / (1 - rate) if rate < 1 else 0.0
    if told < _TELLING_AUC:
        return Statistic(rate, chance=0.0, ci=(0.0, ci[1]), ci_method="poisson", n=n, status="upper_bound")
    return Statistic(rate, chance=0.0, ci=ci, ci_method="poisson", n=n)


_TOP = 50


class InstanceBlock(NamedTuple):
    """What is known of B instances with two modalities or more.

    Args:
        rows: (B,) of the data set.
        rho: (B,) share of the leading eigenvalue.
        signed: (B,) squared length of the mean unit vector.
        agreement: (B, K) cosine of each vector with the consensus of the others, centred; NaN where absent.
        score: (B,) the higher, the more suspect.
        suspect_modality: (B,) modality with the most against it, -1 for none.
        probability: (B,) of being mispaired.
    """

    rows: npt.NDArray[np.int64]
    rho: Array
    signed: Array
    agreement: Array
    score: Array
    suspect_modality: npt.NDArray[np.int64]
    probability: Array


@dataclass(frozen=True)
class Mispairs:
    """What mispaired instances look like here.

    Args:
        names: of the modalities.
        reference: the reservoir.
        found: how its instances agree.
        mispaired: (K, bins) counts of mispaired scores.
        model: what follows from both.
    """

    names: tuple[str, ...]
    reference: Reference
    found: Agreement
    mispaired: npt.NDArray[np.int64]
    model: MispairModel

    @classmethod
    def of(cls, batch: Batch, names: tuple[str, ...], groups: npt.NDArray[np.int64]) -> Self:
        """Learn from the reservoir."""
        reference = reference_of(batch)
        found, mispaired = reference.agreement(), reference.mispaired()
        return cls(names, reference, found, mispaired, mispair_model(found, mispaired, groups))

    def suspect_name(self, suspect_modality: int) -> str:
        """Return a modality's name; of two modalities, the pair, for it cannot be said which of them is wrong."""
        return "|".join(self.names) if len(self.names) == 2 else self.names[suspect_modality]

    def section(self, ids: Sequence[str]) -> dict[str, Any]:
        """Return the ``suspects`` section."""
        suspicion = self.model.judge(self.found.score)
        known = np.flatnonzero(suspicion.suspect_modality >= 0)
        order = known[np.argsort(-suspicion.evidence[known], kind="stable")]
        flagged = int((suspicion.probability[known] >= FLAGGED).sum())
        return {"instances": len(known), "flagged": flagged, "top": self._top(suspicion, order[:_TOP], ids)}

    def _top(self, suspicion: Suspicion, rows: npt.NDArray[np.int64], ids: Sequence[str]) -> list[dict[str, Any]]:
        return [
            {
                "id": ids[row],
                "score": float(suspicion.evidence[row]),
                "suspect_modality": self.suspect_name(int(suspicion.suspect_modality[row])),
                "probability": float(suspicion.probability[row]),
            }
            for row in rows
        ]

    def judge(self, dataset: Dataset) -> Iterator[InstanceBlock]:
        """Yield what is known of every instance with two modalities or more: a second pass over the data.

        Args:
            dataset: the one the reservoir is from (or one of its space).
        """
        for rows in dataset.blocks(np.flatnonzero(dataset.present.sum(1) >= 2)):
            batch = read_batch(dataset, rows)
            statistics, agreed = instance_statistics(batch), agreement(self.reference, batch)
            suspicion = self.model.judge(agreed.score)
            yield InstanceBlock(
                batch.rows,
                statistics.rho,
                statistics.signed,
                agreed.cosine,
                suspicion.evidence,
                suspicion.suspect_modality,
                suspicion.probability,
            )
