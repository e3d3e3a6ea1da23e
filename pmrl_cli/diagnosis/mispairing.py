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
import torch
from torch import Tensor

from pmrl_cli.data.dataset import Dataset
from pmrl_cli.retrieval.batches import Batch, read_batch
from pmrl_cli.stats.consensus import EDGES, Agreement, Reference, agreement, reference_of
from pmrl_cli.stats.instances import instance_statistics
from pmrl_cli.stats.statistic import Statistic, clustered_error

__all__ = [
    "FLAGGED",
    "NEAR_FLOOR",
    "InstanceBlock",
    "MispairModel",
    "Mispairs",
    "Suspicion",
    "consensus_auc",
    "mispair_model",
    "places_of",
    "poisson_interval",
]

Array = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

FLAGGED = 0.5
"""Probability from which an instance is listed as a suspect."""

IN_A_RUN = 0.95
"""Probability of an instance in a run of rows that do not belong to their ids."""

NEAR_FLOOR = 0.01
"""Lower end of the rate of swaps with like instances from which they are said, and instances accused of one."""

_NULL_SHARE = 0.25
"""Share of mispaired scores below the threshold that counts them: low enough that few partners lie below it."""

_TELLING_AUC, _TELLING_NEAR_AUC = 0.95, 0.98
"""Below it partners lie under the threshold too, and the rate is only what it is at most. Of swaps with like
instances more is asked: their scores come nearer to those of partners, and a few of these would make a rate."""

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
        near_rates: the same of swaps with an instance like it.
        steps: probability of being mispaired by the score of the modality to blame.
    """

    mean: Array
    deviation: Array
    gap: Array
    rates: tuple[Statistic, ...]
    near_rates: tuple[Statistic, ...]
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


def places_of(reference: Reference) -> Array:
    """Return (R, K) the probability that a mispaired vector agrees less than that of an instance; NaN where unusable.

    Its mean over instances is the consensus AUC; mispaired instances have 1/2.
    """
    score, mispaired = reference.agreement().score, reference.mispaired()[0]
    places = np.full(score.shape, np.nan)
    for m, counts in enumerate(mispaired):
        usable = ~np.isnan(score[:, m])
        if counts.sum():
            places[usable, m] = _places(score[usable, m], counts)
    return places


def _places(score: Array, mispaired: Counts) -> Array:
    below = (np.cumsum(mispaired) - mispaired / 2) / mispaired.sum()  # ties within a bin count half
    place: Array = below[np.clip(np.searchsorted(EDGES, score, "right") - 1, 0, len(mispaired) - 1)]
    return place


def consensus_auc(score: Array, mispaired: Counts, groups: npt.NDArray[np.int64]) -> Statistic:
    """Return the probability that an instance's score exceeds a mispaired one: 0.5 by chance, 1 if all are told.

    The interval is over the instances (or groups), the mispaired scores held fixed.

    Args:
        score: (B,) of one modality, NaN where unusable.
        mispaired: (bins,) counts over ``EDGES``.
        groups: (B,).
    """
    usable = ~np.isnan(score)
    if usable.sum() < 2 or mispaired.sum() == 0:
        return Statistic.unknown(chance=0.5, n=int(usable.sum()), null="closed_form")
    place = _places(score[usable], mispaired)
    error = clustered_error(place, groups[usable])
    n = int(usable.sum())
    return Statistic.normal(float(place.mean()), error, within=(0, 1), chance=0.5, n=n, null="closed_form")


def mispair_model(found: Agreement, mispaired: Counts, groups: npt.NDArray[np.int64]) -> MispairModel:
    """Learn what mispaired scores look like and how many instances of a reference have them.

    A quarter of the mispaired scores lie below a threshold; the instances below it, four times over, estimate the
    rate (Storey, JRSS-B 64, 2002, with the null known). There are two nulls, and two thresholds: of vectors swapped
    with those of any instance, and of an instance like theirs (one of their class, say), whose scores are higher. The
    two rates solve the two counts. An instance counts for the modality with the most evidence against it, for a wrong
    vector spoils the consensus of the others too.

    Args:
        found: of the reference itself.
        mispaired: (2, K, bins) counts over ``EDGES``, of ``Reference.mispaired``.
        groups: (B,) group of each instance: instances of one group are not counted as independent.
    """
    score = found.score
    modalities = score.shape[1]
    middles = (EDGES[1:] + EDGES[:-1]) / 2
    totals = np.maximum(mispaired.sum(2), 1)
    mean = mispaired[0] @ middles / totals[0]
    deviation = np.sqrt(np.maximum(mispaired[0] @ middles**2 / totals[0] - mean**2, 1e-12))
    usable = ~np.isnan(score)
    gap = np.zeros(modalities)
    for m in range(modalities):
        if usable[:, m].any():
            gap[m] = max(0.0, (np.median(score[usable[:, m], m]) - mean[m]) / deviation[m])
    model = MispairModel(mean, deviation, gap, (), (), ())
    _, suspect_modality = model.evidence(score)
    rates, near_rates, steps = [], [], []
    for m in range(modalities):
        own = score[usable[:, m], m]
        blamed = (suspect_modality[usable[:, m]] == m) | (modalities == 2)
        rate, near = _rates(own, blamed, mispaired[:, m], groups[usable[:, m]])
        rates.append(rate)
        near_rates.append(near)
        # What is only an upper bound accuses nobody.
        of_null = [one.value or 0.0 if one.status == "ok" else 0.0 for one in (rate, near)]
        expected = (np.array(of_null) * len(own) / totals[:, m]) @ mispaired[:, m]
        steps.append(_steps(np.sort(own[blamed]), expected))
    return replace(model, rates=tuple(rates), near_rates=tuple(near_rates), steps=tuple(steps))


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


def _rates(
    score: Array, blamed: npt.NDArray[np.bool_], mispaired: Counts, groups: npt.NDArray[np.int64]
) -> tuple[Statistic, Statistic]:
    """Return the rates of swaps with any instance and with one like it, of one modality.

    Args:
        score: (n,) of the instances.
        blamed: (n,) which count for this modality.
        mispaired: (2, bins) counts over ``EDGES``.
        groups: (n,).
    """
    n = len(score)
    if n < 2 or not mispaired.sum(1).all():
        return Statistic.unknown(n=n), Statistic.unknown(n=n)
    below = np.cumsum(mispaired, axis=1) / mispaired.sum(1, keepdims=True)
    edges = [int(np.searchsorted(one, _NULL_SHARE)) for one in below]
    shares = below[:, edges].T  # [threshold, null]: of the null below the threshold
    low = [blamed & (score < EDGES[edge + 1]) for edge in edges]
    counts = np.array([one.sum() for one in low]) / n
    apart = shares[0, 0] * shares[1, 1] - shares[0, 1] * shares[1, 0]
    found = np.array([counts[0] / shares[0, 0], 0.0])
    if apart > _NULL_SHARE**2 / 10:  # else the two nulls are one
        found = np.linalg.solve(shares, counts)
    if found[0] < 0:
        found = np.array([0.0, counts[1] / shares[1, 1]])
    aucs = [consensus_auc(score, one, groups).value or 0.0 for one in mispaired]
    density = mispaired / mispaired.sum(1, keepdims=True)
    # P(a near-missed score beats a mispaired one), and a mispaired one a near-missed.
    crossed = float(density[1] @ (below[0] - density[0] / 2))
    most = _count_interval(low[0], groups)[1] / n / shares[0, 0]
    near = _near_rate(found, most, aucs[1] - found[0] * (1 - crossed), low[1], shares[1], groups)
    others = (near.value or 0.0) if near.status == "ok" else 0.0
    rate = min(1.0, max(0.0, (counts[0] - others * shares[0, 1]) / shares[0, 0]))
    clean = 1 - rate - others
    told = (aucs[0] - rate / 2 - others * crossed) / clean if clean > 0 else 0.0
    bounds = _count_interval(low[0], groups)
    ci = tuple(min(1.0, max(0.0, (bound / n - others * shares[0, 1]) / shares[0, 0])) for bound in bounds)
    return _rate_statistic(rate, (ci[0], ci[1]), n, known=told >= _TELLING_AUC), near


def _near_rate(
    found: Array, most: float, auc: float, low: npt.NDArray[np.bool_], shares: Array, groups: npt.NDArray[np.int64]
) -> Statistic:
    """Return the rate of swaps with an instance like it.

    Args:
        found: both rates as the counts give them.
        most: upper end of the rate of swaps with any instance.
        auc: P(score > near-missed score), less what swaps with any instance add to it.
        low: (n,) which lie below the threshold.
        shares: of both nulls below it.
        groups: (n,).
    """
    n, rate = len(low), float(min(1.0, max(0.0, found[1])))
    clean = 1 - float(found[0]) - rate
    told = (auc - rate / 2) / clean if clean > 0 else 0.0
    bounds = _count_interval(low, groups)
    others = (most, float(found[0]))
    ci = tuple(
        min(1.0, max(0.0, (bound / n - one * shares[0]) / shares[1]))
        for bound, one in zip(bounds, others, strict=True)
    )
    # Few of them beside more of the other kind are the same instances, counted by the other null.
    known = told >= _TELLING_NEAR_AUC and ci[0] > NEAR_FLOOR and rate > found[0]
    return _rate_statistic(rate, (ci[0], ci[1]), n, known=bool(known))


def _count_interval(low: npt.NDArray[np.bool_], groups: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return the 95 % interval of a count; mispaired groups come as a whole: it is of a Poisson count of groups."""
    n, count = len(low), int(low.sum())
    design = 1.0
    error = clustered_error(low.astype(np.float64), groups)
    if error is not None and 0 < count < n:
        design = max(1.0, error**2 / (count / n * (1 - count / n) / n))
    bounds = poisson_interval(count / design)
    return bounds[0] * design, bounds[1] * design


def _rate_statistic(rate: float, ci: tuple[float, float], n: int, *, known: bool) -> Statistic:
    """Return a rate; an upper bound where partners lie under the threshold too."""
    ci = min(rate, ci[0]), max(rate, ci[1])
    if not known:
        return Statistic(rate, chance=0.0, ci=(0.0, ci[1]), ci_method="poisson", n=n, status="upper_bound")
    return Statistic(rate, chance=0.0, ci=ci, ci_method="poisson", n=n)


_TOP = 50


@dataclass(frozen=True)
class RowRun:
    """A run of rows that do not belong to their ids.

    Args:
        modality: whose vectors, by number.
        first: row of the data set.
        last: the row after its last.
        place: mean of P(a mispaired vector agrees less) over the run; .5 for mispaired ones.
        shift: row i of the modality belongs to row i - shift of the others, where a shift of up to five mends it.
    """

    modality: int
    first: int
    last: int
    place: float
    shift: int | None


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
        mispaired: (2, K, bins) counts of mispaired scores, and of those mispaired with an instance like them.
        model: what follows from both.
        first: what was learned before the suspects were left out of the consensus; None of two modalities.
        runs: of rows of the data set that do not belong to their ids: they are suspects, whatever their scores.
    """

    names: tuple[str, ...]
    reference: Reference
    found: Agreement
    mispaired: npt.NDArray[np.int64]
    model: MispairModel
    first: Mispairs | None = None
    runs: tuple[RowRun, ...] = ()

    @classmethod
    def of(cls, batch: Batch, names: tuple[str, ...], groups: npt.NDArray[np.int64]) -> Self:
        """Learn from the reservoir, twice: the second time the consensus leaves out what the first found suspect."""
        first = cls._of(batch, names, groups, None)
        return first if len(names) == 2 else cls._of(batch, names, groups, first)

    @classmethod
    def _of(cls, batch: Batch, names: tuple[str, ...], groups: npt.NDArray[np.int64], first: Self | None) -> Self:
        trusted = None if first is None else first.trusted(first.found.score)
        reference = reference_of(batch, trusted)
        found, mispaired = reference.agreement(), reference.mispaired()
        return cls(names, reference, found, mispaired, mispair_model(found, mispaired, groups), first)

    def trusted(self, score: Array) -> Tensor:
        """Return (B, K) which vectors may speak for their instance: not those more like a mispaired one."""
        evidence, suspect_modality = self.model.evidence(score)
        trusted = np.ones(score.shape, dtype=bool)
        accused = np.flatnonzero(evidence > 0)
        trusted[accused, suspect_modality[accused]] = False
        return torch.from_numpy(trusted)

    def agreement(self, batch: Batch) -> Agreement:
        """Return how the instances of a batch agree with themselves."""
        trusted = None if self.first is None else self.first.trusted(self.first.agreement(batch).score)
        return agreement(self.reference, batch, trusted)

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
            statistics, agreed = instance_statistics(batch), self.agreement(batch)
            suspicion = self.model.judge(agreed.score)
            for run in self.runs:
                inside = (batch.rows >= run.first) & (batch.rows < run.last)
                inside &= batch.present[:, run.modality].numpy()
                suspicion.suspect_modality[inside] = run.modality
                suspicion.probability[inside] = np.maximum(suspicion.probability[inside], IN_A_RUN)
            yield InstanceBlock(
                batch.rows,
                statistics.rho,
                statistics.signed,
                agreed.cosine,
                suspicion.evidence,
                suspicion.suspect_modality,
                suspicion.probability,
            )
