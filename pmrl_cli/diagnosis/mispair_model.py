"""Which instances are mispaired, and which of their modalities is the wrong one.

The evidence of a low score is in proportion to how far the scores of the modality lie above mispaired ones: a
modality that hardly separates partners from other instances makes none suspect.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pmrl_cli.array_types import Array
from pmrl_cli.diagnosis.mispair_rates import Counts, mispair_rates
from pmrl_cli.stats.consensus import EDGES, Agreement
from pmrl_cli.stats.statistic import Statistic

__all__ = ["MispairModel", "Separation", "Suspicion", "mispair_model"]


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
class Separation:
    """How far the scores of partners lie above mispaired ones.

    Args:
        mean: (K,) of the mispaired scores of each modality.
        deviation: (K,) theirs.
        gap: (K,) deviations between that mean and the median of the instances, at least 0.
    """

    mean: Array
    deviation: Array
    gap: Array

    @classmethod
    def of(cls, score: Array, mispaired: Counts) -> Separation:
        """Return that of (B, K) scores, NaN where unusable, and (K, bins) counts of mispaired ones over ``EDGES``."""
        middles = (EDGES[1:] + EDGES[:-1]) / 2
        totals = np.maximum(mispaired.sum(1), 1)
        mean = mispaired @ middles / totals
        deviation = np.sqrt(np.maximum(mispaired @ middles**2 / totals - mean**2, 1e-12))
        gap = np.zeros(len(mean))
        for m in range(len(mean)):
            known = score[~np.isnan(score[:, m]), m]
            if len(known):
                gap[m] = max(0.0, (np.median(known) - mean[m]) / deviation[m])
        return cls(mean, deviation, gap)

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


@dataclass(frozen=True)
class MispairModel:
    """What is known of mispaired scores.

    Args:
        separation: how far the scores of partners lie above them.
        rates: estimated share of instances whose vector of a modality is another instance's; for two modalities
            each holds that of the pair. Status ``upper_bound`` where the scores of partners and of mispaired
            instances overlap too much.
        near_rates: the part of them that are swaps with an instance like it.
        steps: probability of being mispaired by the score of the suspect modality.
    """

    separation: Separation
    rates: tuple[Statistic, ...]
    near_rates: tuple[Statistic, ...]
    steps: tuple[Steps, ...]

    def suspicion(self, score: Array) -> Suspicion:
        """Return how suspect instances are.

        Args:
            score: (B, K) of ``agreement``.
        """
        evidence, suspect_modality = self.separation.evidence(score)
        probability = np.zeros(len(score))
        for m, steps in enumerate(self.steps):
            suspected = suspect_modality == m
            at = np.searchsorted(steps.score, score[suspected, m])
            probability[suspected] = np.append(steps.probability, 0.0)[at]
        return Suspicion(evidence, suspect_modality, probability)


def mispair_model(found: Agreement, mispaired: Counts, groups: npt.NDArray[np.int64]) -> MispairModel:
    """Learn what mispaired scores look like and how many instances of a reference have them.

    An instance counts for the modality with the most evidence against it, for a wrong vector spoils the consensus of
    the others too. The rates are those of ``mispair_rates``.

    Args:
        found: of the reference itself.
        mispaired: (nulls, K, bins) counts over ``EDGES``, of ``Reference.mispaired``.
        groups: (B,) group of each instance: instances of one group are not counted as independent.
    """
    score = found.score
    modalities = score.shape[1]
    totals, usable = np.maximum(mispaired.sum(2), 1), ~np.isnan(score)
    separation = Separation.of(score, mispaired[0])
    _, suspect_modality = separation.evidence(score)
    suspected = (suspect_modality[:, None] == np.arange(modalities)) | (modalities == 2)
    rates = mispair_rates(score, suspected, mispaired, groups)
    steps = []
    for m in range(modalities):
        # A rate that is only an upper bound makes no instance suspect.
        total, near = (one.value or 0.0 if one.status == "ok" else 0.0 for one in (rates[m].total, rates[m].near))
        of_null = np.append(max(0.0, total - near), near * rates[m].like)
        expected = (of_null * usable[:, m].sum() / totals[:, m]) @ mispaired[:, m]
        steps.append(_steps(np.sort(score[usable[:, m] & suspected[:, m], m]), expected))
    totals_of, near_of = tuple(one.total for one in rates), tuple(one.near for one in rates)
    return MispairModel(separation, totals_of, near_of, tuple(steps))


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
