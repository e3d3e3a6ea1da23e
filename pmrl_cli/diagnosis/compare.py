"""Two diagnoses of the same instances: which is better, beyond the luck of the queries.

Every query is asked twice, so differences are taken query by query; what is independent, a group or an instance, is
what the tests flip and the intervals draw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from pmrl_cli.diagnosis.outcomes import Outcomes, read_outcomes
from pmrl_cli.errors import DataError, StateError
from pmrl_cli.retrieval.intervals import Sample, interval, resample
from pmrl_cli.retrieval.metrics import expected_rank, hits, hits_in_gallery, reciprocal_ranks
from pmrl_cli.retrieval.ranks import OTHERS, Ranks
from pmrl_cli.stats.statistic import Statistic

__all__ = ["compare", "sign_flip"]

Array = npt.NDArray[np.float64]

_FLIPS = 9999
_FLIPS_AT_ONCE = 512
_DRAWS = 1000
_GALLERIES = (1000, 100, 10)


def compare(result: Mapping[str, Any], baseline: Mapping[str, Any], *, name: str, seed: int = 0) -> dict[str, Any]:
    """Return paired differences, ``result`` less ``baseline``.

    Args:
        result: a diagnosis as JSON values.
        baseline: another of the same instances.
        name: of the baseline.
        seed: of the flips and the bootstrap.

    Returns: ``baseline``, ``standard_gallery`` and ``delta``: by number (``A``, means over directions, R@1 of each
        direction) a statistic of the difference with ``before``, ``after`` and ``test``: ``mcnemar`` (exact)
        where each unit wins, loses or draws by one step, else ``sign_flip``.

    Raises: StateError if the instances differ; DataError if one of the two is no diagnosis that can be compared.
    """
    for one in (result, baseline):
        if not one.get("outcomes"):
            what = "diagnosis cannot be compared"
            raise DataError(
                what,
                found=f"no outcomes of queries in {name if one is baseline else 'this one'}",
                expected="two diagnoses of modalities that share a space",
                next_step="Compare with what pmrl diagnose --json wrote of aligned modalities.",
            )
    after, before = read_outcomes(result["outcomes"]), read_outcomes(baseline["outcomes"])
    if after.ids != before.ids:
        what = "diagnoses are of different instances"
        raise StateError(
            what,
            found=f"{len(before.groups):,} in {name}, {len(after.groups):,} here, not the same ids",
            expected="the same instances: paired tests ask every query twice",
            next_step="Diagnose both with the same files, --split and --seed.",
        )
    shared = [
        direction
        for direction, ranks in after.ranks.items()
        if direction in before.ranks and np.array_equal(ranks.rows, before.ranks[direction].rows)
    ]
    smallest = min((after.ranks[direction].gallery for direction in shared), default=0)
    standard = next((size for size in _GALLERIES if size <= smallest), None)
    fused = [direction for direction in shared if direction.startswith(f"{OTHERS}->")]
    pairwise = [direction for direction in shared if direction not in fused]
    delta: dict[str, dict[str, Any]] = {}
    if result["inputs"]["modalities"] == baseline["inputs"]["modalities"]:
        known = np.flatnonzero(~np.isnan(after.adjusted) & ~np.isnan(before.adjusted))
        if len(known):
            change = {"": (known, before.adjusted[known], after.adjusted[known])}
            delta["A"] = _difference(change, after.groups, seed)

    def difference(metric: str, directions: list[str]) -> dict[str, Any]:
        change = {
            d: (after.ranks[d].rows, _values(metric, before, d, standard), _values(metric, after, d, standard))
            for d in directions
        }
        return _difference(change, after.groups, seed)

    if pairwise:
        delta |= {
            metric: difference(metric, pairwise)
            for metric in ("R@1", "R@1_standard", "MRR", "AUC")
            if metric != "R@1_standard" or standard
        }
        delta |= {direction: difference("R@1", [direction]) for direction in pairwise}
    if fused:
        delta["fused.MRR"] = difference("MRR", fused)
    return {"baseline": name, "standard_gallery": standard, "delta": delta}


def _values(metric: str, outcomes: Outcomes, direction: str, standard: int | None) -> Array:
    ranks: Ranks = outcomes.ranks[direction]
    if metric == "R@1":
        return hits(ranks, 1)
    if metric == "R@1_standard":
        assert standard is not None
        return hits_in_gallery(ranks, 1, standard)
    if metric == "MRR":
        return reciprocal_ranks(ranks)
    return 1 - (expected_rank(ranks) - 1) / max(ranks.gallery - 1, 1)


def _difference(
    change: Mapping[str, tuple[npt.NDArray[np.int64], Array, Array]], groups: npt.NDArray[np.int64], seed: int
) -> dict[str, Any]:
    """Return the difference of a mean over directions.

    Args:
        change: by direction: positions of the queries, their values before and after.
        groups: (n,) of all positions.
        seed: of flips and bootstrap.
    """
    count = int(groups.max(initial=-1)) + 1
    units = np.zeros(count)
    samples = {}
    for direction, (places, before, after) in change.items():
        gained = after - before
        units += np.bincount(groups[places], gained, count) / (len(places) * len(change))
        samples[direction] = Sample(groups[places], {"gain": gained})
    drawn = resample(samples, count, draws=_DRAWS if count > 1 else 0, seed=seed)
    draws = np.mean([drawn[direction, "gain"] for direction in samples], axis=0)
    p, test = sign_flip(units, seed=seed)
    ci = interval(draws)
    found = Statistic(
        float(units.sum()),
        chance=0.0,
        ci=ci,
        ci_method=None if ci is None else "group_bootstrap",
        se=float(draws.std()) if ci is not None else None,
        p=p,
        n=sum(len(places) for places, _, _ in change.values()),
        null="permutation",
    )
    means = [[float(values.mean()) for values in pair] for _, *pair in change.values()]
    was, now = np.mean(means, axis=0)
    return {**found.as_dict(), "before": float(was), "after": float(now), "test": test}


def sign_flip(units: Array, *, seed: int) -> tuple[float, str]:
    """Return the two-sided probability of so large a sum if every sign were a coin's, and the name of the test.

    Where all units that differ differ by the same amount this is McNemar's test and exact, from the binomial
    distribution; else from 9,999 flips, itself counted among them.

    Args:
        units: (g,) what each independent unit adds to the difference.
        seed: of the flips.
    """
    moved = units[units != 0]
    if len(moved) == 0:
        return 1.0, "mcnemar"
    sizes = np.abs(moved)
    if np.allclose(sizes, sizes[0], rtol=1e-9, atol=0):
        fewer = min(int((moved > 0).sum()), int((moved < 0).sum()))
        ways = sum(math.comb(len(moved), losses) for losses in range(fewer + 1))
        return min(1.0, 2 * ways / 2 ** len(moved)), "mcnemar"
    generator = np.random.default_rng(seed)
    reached = abs(moved.sum()) * (1 - 1e-12)
    larger = 0
    for start in range(0, _FLIPS, _FLIPS_AT_ONCE):
        size = min(_FLIPS_AT_ONCE, _FLIPS - start)
        signs = generator.integers(2, size=(size, len(moved)), dtype=np.int8) * 2.0 - 1
        larger += int((np.abs(signs @ moved) >= reached).sum())
    return (1 + larger) / (1 + _FLIPS), "sign_flip"
