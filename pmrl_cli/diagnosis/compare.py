"""Two diagnoses of the same instances: which is better, beyond the variation of the queries.

Both answer the same queries, so differences are taken query by query. Tests flip the signs of independent units,
which are groups or instances, and intervals resample them.
"""

from __future__ import annotations

import base64
import hashlib
import math
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pmrl_cli.array_types import Array
from pmrl_cli.errors import DataError, StateError
from pmrl_cli.retrieval.intervals import DRAWS, Sample, interval, resample
from pmrl_cli.retrieval.metrics import hits, hits_in_gallery, reciprocal_ranks, standard_gallery, wins
from pmrl_cli.retrieval.ranks import OTHERS, Answers, Ranks
from pmrl_cli.stats.statistic import Statistic

__all__ = ["Outcomes", "compare", "pack_outcomes", "read_outcomes", "sign_flip"]

_WHOLE = np.dtype("<i4")
_REAL = np.dtype("<f4")


class Outcomes(NamedTuple):
    """What happened to the instances of the reservoir.

    Args:
        ids: SHA-256 of their ids' hashes in ascending order.
        groups: (n,) int64, counted from 0: the independent units; each instance its own without groups.
        adjusted: (n,) (rho_i - rho_0) / (1 - rho_0), NaN where it is not known.
        ranks: by direction; ``rows`` are positions in the order of the hashes.
    """

    ids: str
    groups: npt.NDArray[np.int64]
    adjusted: npt.NDArray[np.float64]
    ranks: Mapping[str, Ranks]


def pack_outcomes(
    hashes: npt.NDArray[np.uint64],
    *,
    rows: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64] | None,
    adjusted: npt.NDArray[np.float64],
    ranks: Mapping[str, Ranks],
) -> dict[str, Any]:
    """Return the outcomes as JSON values.

    Args:
        hashes: (n,) of the ids of the reservoir.
        rows: (n,) ascending: the numbers by which ``ranks`` know the same instances.
        groups: (n,) any integers, or None where each instance stands for itself.
        adjusted: (n,), NaN where not known.
        ranks: by direction.
    """
    order = np.argsort(hashes, kind="stable")
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    directions = {}
    for name, found in ranks.items():
        columns = np.full((2, len(order)), -1, dtype=np.int64)
        columns[:, place[np.searchsorted(rows, found.rows)]] = found.greater, found.tied
        better, tied = (_pack(column, _WHOLE) for column in columns)
        directions[name] = {"gallery": found.gallery, "better": better, "tied": tied}
        if found.answers is not None:
            several = np.zeros((2, len(order)), dtype=np.int64)
            several[:, place[np.searchsorted(rows, found.rows)]] = found.answers.right, found.answers.best
            directions[name] |= {key: _pack(one, _WHOLE) for key, one in zip(_SEVERAL, several, strict=True)}
    codes = None if groups is None else np.unique(groups[order], return_inverse=True)[1]
    return {
        "instances": len(order),
        "ids_sha256": hashlib.sha256(hashes[order].astype("<u8").tobytes()).hexdigest(),
        "groups": None if codes is None else _pack(codes, _WHOLE),
        "adjusted": _pack(adjusted[order], _REAL),
        "directions": directions,
    }


def read_outcomes(packed: Mapping[str, Any]) -> Outcomes:
    """Return what ``pack_outcomes`` packed.

    Raises: DataError if it is not that.
    """
    try:
        count = int(packed["instances"])
        adjusted = _unpack(packed["adjusted"], _REAL, count).astype(np.float64)
        groups = np.arange(count) if packed["groups"] is None else _unpack(packed["groups"], _WHOLE, count)
        _check(((groups >= 0) & (groups < count)).all(), "groups beyond the instances")
        ranks = {}
        for name, found in packed["directions"].items():
            better, tied = (_unpack(found[key], _WHOLE, count).astype(np.int64) for key in ("better", "tied"))
            rows = np.flatnonzero(better >= 0)
            gallery = int(found["gallery"])
            inside = (tied[rows] >= 0) & (better[rows] + tied[rows] < gallery) & (gallery <= count)
            _check(len(rows) and inside.all(), f"ranks of {name} beyond the gallery")
            ranks[name] = Ranks(rows, better[rows], tied[rows], gallery, _answers(found, rows, count))
        return Outcomes(str(packed["ids_sha256"]), groups.astype(np.int64), adjusted, ranks)
    except (KeyError, TypeError, ValueError, AttributeError, zlib.error) as error:
        raise DataError(
            what="outcomes of a diagnosis cannot be read",
            found=f"{type(error).__name__}: {error}",
            expected="what pmrl diagnose --json writes",
            next_step="Run that diagnosis again with --json.",
        ) from None


_SEVERAL = ("right", "best")
"""Right answers of a query, and those that tie with the best: where some query has several."""


def _answers(found: Mapping[str, Any], rows: npt.NDArray[np.int64], count: int) -> Answers | None:
    if _SEVERAL[0] not in found:
        return None
    right, best = (_unpack(found[key], _WHOLE, count).astype(np.int64)[rows] for key in _SEVERAL)
    _check(((best >= 1) & (best <= right) & (right <= found["gallery"])).all(), "right answers beyond the gallery")
    unknown = np.full(len(rows), np.nan)  # of all right answers: what is compared asks for the best
    return Answers(right, best, unknown, unknown)


def _check(fine: object, message: str) -> None:
    if not fine:
        raise ValueError(message)


def _pack(values: npt.NDArray[Any], kind: np.dtype[Any]) -> str:
    return base64.b64encode(zlib.compress(values.astype(kind).tobytes(), 9)).decode("ascii")


def _unpack(text: str, kind: np.dtype[Any], count: int) -> npt.NDArray[Any]:
    size = count * kind.itemsize
    inflate = zlib.decompressobj()
    content = inflate.decompress(base64.b64decode(text, validate=True), size + 1)  # no further, whatever it holds
    _check(len(content) == size, f"{len(content)} bytes for {count} instances")
    return np.frombuffer(content, dtype=kind)


Change = Mapping[str, tuple[npt.NDArray[np.int64], Array, Array]]
"""By direction: positions of the queries, their values before and after."""

_FLIPS = 9999
_FLIPS_AT_ONCE = 512


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
    after, before = _same_instances(result, baseline, name)
    shared = [
        direction
        for direction, ranks in after.ranks.items()
        if direction in before.ranks and np.array_equal(ranks.rows, before.ranks[direction].rows)
    ]
    smallest = min((after.ranks[direction].gallery for direction in shared), default=0)
    standard = standard_gallery(smallest)
    fused = [direction for direction in shared if direction.startswith(f"{OTHERS}->")]
    pairwise = [direction for direction in shared if direction not in fused]
    changes: dict[str, Change] = {}
    if result["inputs"]["modalities"] == baseline["inputs"]["modalities"]:
        known = np.flatnonzero(~np.isnan(after.adjusted) & ~np.isnan(before.adjusted))
        if len(known):
            changes["A"] = {"": (known, before.adjusted[known], after.adjusted[known])}

    def change(metric: str, directions: list[str]) -> Change:
        return {
            d: (after.ranks[d].rows, _values(metric, before, d, standard), _values(metric, after, d, standard))
            for d in directions
        }

    if pairwise:
        metrics = ("R@1", "R@1_standard", "MRR", "AUC") if standard else ("R@1", "MRR", "AUC")
        changes |= {metric: change(metric, pairwise) for metric in metrics}
        changes |= {direction: change("R@1", [direction]) for direction in pairwise}
    if fused:
        changes["fused.MRR"] = change("MRR", fused)
    delta = {number: _difference(found, after.groups, seed) for number, found in changes.items()}
    return {"baseline": name, "standard_gallery": standard, "delta": delta}


def _same_instances(result: Mapping[str, Any], baseline: Mapping[str, Any], name: str) -> tuple[Outcomes, Outcomes]:
    """Return the outcomes of both, or raise if they are not those of the same instances."""
    for one in (result, baseline):
        if not one.get("outcomes"):
            raise DataError(
                what="diagnosis cannot be compared",
                found=f"no outcomes of queries in {name if one is baseline else 'this one'}",
                expected="two diagnoses of modalities that share a space",
                next_step="Compare with what pmrl diagnose --json wrote of aligned modalities.",
            )
    after, before = read_outcomes(result["outcomes"]), read_outcomes(baseline["outcomes"])
    if after.ids != before.ids:
        raise StateError(
            what="diagnoses are of different instances",
            found=f"{len(before.groups):,} in {name}, {len(after.groups):,} here, not the same ids",
            expected="the same instances: tests are paired by query",
            next_step="Diagnose both with the same files, --split and --seed.",
        )
    return after, before


def _values(metric: str, outcomes: Outcomes, direction: str, standard: int | None) -> Array:
    ranks: Ranks = outcomes.ranks[direction]
    if metric == "R@1":
        return hits(ranks, 1)
    if metric == "R@1_standard":
        assert standard is not None
        return hits_in_gallery(ranks, 1, standard)
    if metric == "MRR":
        return reciprocal_ranks(ranks)
    return wins(ranks)


def _difference(change: Change, groups: npt.NDArray[np.int64], seed: int) -> dict[str, Any]:
    """Return the difference of a mean over directions.

    Args:
        change: of the number.
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
    drawn = resample(samples, count, draws=DRAWS if count > 1 else 0, seed=seed)
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
    """Return the two-sided p-value of the sum under random signs, and the name of the test.

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
