"""Alignability: what a linear adapter of two modalities reaches on instances it has not seen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pmrl_cli.array_types import Array, Mask
from pmrl_cli.diagnosis.evidence import Evidence
from pmrl_cli.diagnosis.statistics.declared import detail, part_of, statistic
from pmrl_cli.diagnosis.statistics.linear import Side, fit_linear, sides_of
from pmrl_cli.retrieval.metrics import harmonic, hits_in_gallery, reciprocal_ranks
from pmrl_cli.retrieval.partners import partner_ranks
from pmrl_cli.stats.statistic import Statistic, clustered_error

__all__ = ["Probe", "probe", "third_of"]


_GALLERY = 200
_FEWEST = 20
_PERFECT = 1 - 1e-9  # a canonical correlation of 1 would be infinitely many bits


@dataclass(frozen=True)
class Probe:
    """What cross-fitted ridge-CCA reaches: fitted on each half, measured on the other.

    Args:
        hits: R@1 in a gallery of ``gallery``, the mean over both directions.
        reciprocal: the mean reciprocal rank in the whole half.
        gallery: candidates.
        shared_dimensions: sum over directions of h |h|, h the held-out canonical correlation: 0 on average by chance.
        bits: Gaussian bound of the mutual information, -1/2 sum sign(h) log2(1 - h^2).
        held_out: canonical correlations on the other half, the mean over the halves, in the order of the fit.
        fitted: the same where they were fitted.
    """

    hits: Statistic
    reciprocal: Statistic
    gallery: int
    shared_dimensions: Statistic
    bits: Statistic
    held_out: Array
    fitted: Array


def third_of(groups: npt.NDArray[np.int64], seed: int) -> Mask:
    """Return which of (n,) instances make up a random third of the groups."""
    _, codes = np.unique(groups, return_inverse=True)
    third: Mask = np.random.default_rng(seed).permutation(int(codes.max(initial=-1)) + 1)[codes] % 3 == 0
    return third


def probe(sides: Sequence[Side], half: Mask, groups: npt.NDArray[np.int64], *, seed: int = 0) -> Probe | None:
    """Fit a linear adapter on each half of the instances and measure it on the other.

    Args:
        sides: n rows of two modalities, of instances that have both.
        half: (n,) which instances are in the first half; no group in both.
        groups: (n,) independent units of the intervals.
        seed: of the choice of the ridge.

    Returns: None with fewer than 20 instances in a half.

    Source: ridge canonical correlation analysis (Vinod, Journal of Econometrics 4, 1976), cross-fitted.
    """
    sizes = int(half.sum()), int((~half).sum())
    if min(sizes) < _FEWEST:
        return None
    gallery = min(_GALLERY, *sizes)
    hits, reciprocal = np.zeros(len(half)), np.zeros(len(half))
    dims, bits, held_out, fitted = [], [], [], []
    for own in (half, ~half):
        both = np.ones((len(half), 2), dtype=bool)
        seen = [one.those(~own) for one in sides]
        adapter = fit_linear(seen, both[~own], third_of(groups[~own], seed))
        unseen = [one.those(own) for one in sides]
        directions = adapter.directions(unseen)
        for ranks in partner_ranks(adapter.embed_directions(directions, both[own])).values():
            hits[own] += hits_in_gallery(ranks, 1, gallery) / 2
            reciprocal[own] += reciprocal_ranks(ranks) / 2
        first, second = _standardised(directions)
        product, squares = first * second, first**2 + second**2
        correlations = product.mean(0)
        held_out.append(correlations)
        fitted.append(np.multiply(*_standardised(adapter.directions(seen))).mean(0))

        def influence(
            slope: Array, product: Array = product, squares: Array = squares, h: Array = correlations
        ) -> Array:
            """Return (n,) of each instance on a sum over directions, from its slope in the correlations h."""
            of_each: Array = product @ slope - squares @ (h * slope) / 2
            return of_each

        # A correlation h of standardised x and y moves by x y - h (x^2 + y^2) / 2 with an instance.
        size = np.abs(correlations)
        dims.append(_sum(correlations * size, product @ (2 * size) - squares @ (correlations * size), groups[own]))
        # Bits are infinite at 1; what a finite sample shows of them is not.
        square = np.minimum(correlations**2, _PERFECT)
        information = -np.sign(correlations) * np.log2(1 - square) / 2
        slope = size / (1 - square) / np.log(2)
        bits.append(_sum(information, product @ slope - squares @ (correlations * slope / 2), groups[own]))
    mrr_chance = float(np.mean([harmonic(size)[-1] / size for size in sizes]))
    shortest = min(map(len, held_out))
    return Probe(
        Statistic.mean(hits, groups, within=(0, 1), chance=1 / gallery),
        Statistic.mean(reciprocal, groups, within=(0, 1), chance=mrr_chance),
        gallery,
        _over_halves(dims, len(half)),
        _over_halves(bits, len(half)),
        np.mean([h[:shortest] for h in held_out], axis=0),
        np.mean([h[:shortest] for h in fitted], axis=0),
    )


def _standardised(directions: Sequence[npt.NDArray[np.float32]]) -> list[Array]:
    """Return (n, D) directions of each modality with mean 0 and variance 1; 0 where they do not vary."""
    sides = []
    for one in directions:
        centred = one.astype(np.float64)
        centred -= one.mean(0, dtype=np.float64)
        deviation = np.sqrt((centred**2).mean(0))
        sides.append(np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 0))
    return sides


def _sum(values: Array, influence: Array, groups: npt.NDArray[np.int64]) -> tuple[float, float | None]:
    return float(values.sum()), clustered_error(influence, groups)


def _over_halves(found: list[tuple[float, float | None]], n: int) -> Statistic:
    """Return the mean of two halves, each with its error."""
    values, errors = zip(*found, strict=True)
    error = None if None in errors else float(np.hypot(*errors) / 2)
    return Statistic.normal(float(np.mean(values)), error, chance=0.0, n=n, null="closed_form")


def probe_of(evidence: Evidence, a: int, b: int) -> Probe | None:
    """Return what a linear adapter of two modalities of the reservoir reaches."""
    sample = evidence.sample
    both: Mask = np.asarray(sample.present[:, [a, b]].all(1))
    # All pairs of modalities that every instance has ask for the same rows.
    sides = evidence.once(sample_sides) if both.all() else sides_of(sample.vectors)
    of_pair = [sides[m].those(both) for m in (a, b)]
    return probe(of_pair, evidence.half[both], sample.groups[both], seed=evidence.state.header.seed)


def sample_sides(evidence: Evidence) -> list[Side]:
    """Return the rows of the reservoir."""
    return sides_of(evidence.sample.vectors)


statistic(
    "probe.R@1",
    "pair",
    formula="ridge-CCA fitted on one half and measured on the other, and back: held-out R@1 in probe.gallery",
    chance="1 / gallery",
    range="[0, 1]",
)(part_of(probe_of, "hits"))


statistic("probe.MRR", "pair", formula="the same, mean reciprocal rank", chance="H_N / N", range="[0, 1]")(
    part_of(probe_of, "reciprocal")
)


statistic(
    "probe.shared_dimensions",
    "pair",
    formula="sum of h |h| of the held-out canonical correlations h",
    chance="0",
    range="real",
)(part_of(probe_of, "shared_dimensions"))


statistic(
    "probe.information_bits",
    "pair",
    formula="Gaussian bound of the mutual information, -1/2 sum sign(h) log2(1 - h^2), in bits",
    chance="0",
    range="real",
)(part_of(probe_of, "bits"))


detail("probe.gallery", "pair", about="candidates of the probe", schema={"type": "integer", "minimum": 0})(
    part_of(probe_of, "gallery")
)


_NUMBERS = {"type": "array", "items": {"type": "number"}}


@detail("probe.correlations", "pair", about="held-out canonical correlations", schema=_NUMBERS)
def _held_out(evidence: Evidence, a: int, b: int) -> list[float] | None:
    found = evidence.once(probe_of, a, b)
    return None if found is None else [round(float(h), 4) for h in found.held_out]


@detail("probe.correlations_fitted", "pair", about="the same where they were fitted", schema=_NUMBERS)
def _fitted(evidence: Evidence, a: int, b: int) -> list[float] | None:
    found = evidence.once(probe_of, a, b)
    return None if found is None else [round(float(h), 4) for h in found.fitted]
