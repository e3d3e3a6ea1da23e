"""Runs of consecutive rows whose vectors of one modality do not belong to their instances.

The rows of the reservoir are put in the order of the files. The scan is of how each vector agrees with the
consensus of the others: P(a mispaired one agrees less). The run of rows where it falls most is found by a scan over
starts and lengths (Kulldorff, Communications in Statistics 26, 1997, in one dimension); its null is the same scan of
permuted rows, jointly over all modalities. Rows that have no order are exchangeable, so that its p is exact;
docs/diagnose.md states the level that was measured. What is found is set aside, and the rest is scanned again. Rows
sorted by anything are not exchangeable: a run is reported only if its vectors agree about as mispaired ones do while
those of the other rows agree.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from pmrl_cli.array_types import Array
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.ids import rows_of
from pmrl_cli.data.repeats import hash_rows, repeats_among
from pmrl_cli.diagnosis.evidence import Evidence
from pmrl_cli.diagnosis.mispair_rates import places_of
from pmrl_cli.diagnosis.mispairing import RowRun
from pmrl_cli.diagnosis.statistics.declared import detail, statistic
from pmrl_cli.diagnosis.statistics.linear import Vectors, fit_linear, sides_of
from pmrl_cli.diagnosis.statistics.pairing import pairing_z
from pmrl_cli.diagnosis.statistics.probe import third_of
from pmrl_cli.retrieval.batches import Batch, read_batch
from pmrl_cli.stats.consensus import centre, modality_means, reference_of
from pmrl_cli.stats.statistic import Statistic

__all__ = ["RowRuns", "find_runs", "runs_of", "scan"]

Numbers = npt.NDArray[np.int64]

PERMUTATIONS = 199
ENOUGH = 10
SIGNIFICANT = 0.01
MOST_RUNS = 8
SHORTEST = 8
"""Rows of the reservoir in a run."""
MISPAIRED_PLACE, PAIRED_PLACE = 0.7, 0.8
"""Mispaired vectors have .5 on average: a run is reported below the first, the other rows being above the second."""
FURTHEST = 5
_GROWTH = 1.15  # from one length that is tried to the next
_AT_ONCE = 2**15  # values of permuted series: they stay in cache


@dataclass(frozen=True)
class RowRuns:
    """What the scan found.

    Args:
        p: probability of so deep a run, of any modality, where rows have no order.
        place: (K,) mean place of the deepest run of each modality, NaN where there is none.
        runs: those to report.
    """

    p: float | None
    place: Array
    runs: tuple[RowRun, ...]


def scan(values: Array) -> list[tuple[float, int, int]]:
    """Return the run of each series that lies deepest below the rest: its depth, start and end.

    The depth is (mean of the rest - mean of the run) in standard errors of that difference. Runs of 8 values up to
    nine tenths of them; lengths that grow by 15 %, every start, then the ends one by one.

    Args:
        values: (s, n), the same in another order in each of s series.
    """
    series, n = values.shape
    most = 9 * n // 10
    deviation = values.std(1, keepdims=True) if most >= SHORTEST else np.zeros((series, 1))
    if not (deviation > 0).all():
        return [(0.0, 0, 0)] * series
    sums = np.zeros((series, n + 1))
    np.cumsum((values.mean(1, keepdims=True) - values) / deviation, axis=1, out=sums[:, 1:])
    best = [(0.0, 0, 0)] * series
    each = np.arange(series)
    length = float(SHORTEST)
    while length <= most:
        size = int(length)
        fall = sums[:, size:] - sums[:, :-size]
        starts = fall.argmax(1)
        depth = fall[each, starts] * np.sqrt(n / (size * (n - size)))
        found = zip(depth.tolist(), starts.tolist(), strict=True)
        best = [max(one, (deep, start, start + size)) for one, (deep, start) in zip(best, found, strict=True)]
        length *= _GROWTH
    return [_refined(one, run, most) for one, run in zip(sums, best, strict=True)]


def _refined(sums: Array, best: tuple[float, int, int], most: int) -> tuple[float, int, int]:
    """Return the best run whose ends are near those found."""
    n, (_, start, stop) = len(sums) - 1, best
    reach = max(4, (stop - start) // 4)
    starts = np.arange(max(0, start - reach), min(n, start + reach) + 1)
    stops = np.arange(max(0, stop - reach), min(n, stop + reach) + 1)
    size = stops[None] - starts[:, None]
    inside = (size >= SHORTEST) & (size <= most)
    depth = np.where(inside, sums[stops][None] - sums[starts][:, None], -np.inf)
    depth *= np.sqrt(n / (np.where(inside, size, 1) * np.maximum(n - size, 1)))
    a, b = np.unravel_index(int(depth.argmax()), depth.shape)
    return max(best, (float(depth[a, b]), int(starts[a]), int(stops[b])))


def _deepest(places: Array) -> list[list[tuple[float, int, int]]]:
    """Return the scans of each modality over the rows that it has; starts and ends count those.

    Args:
        places: (s, n, K), the same rows in another order in each of s series.
    """
    series = len(places)
    return [scan(column[~np.isnan(column)].reshape(series, -1)) for column in np.moveaxis(places, 2, 0)]


def _p_value(places: Array, deepest: float, seed: int) -> float:
    """Return the probability of so deep a run of any modality among permutations of the rows.

    Where ``ENOUGH`` of them are as deep no more are drawn: that share of those drawn is a p as exact, and above any
    level that is asked for.

    Source: Besag and Clifford, "Sequential Monte Carlo p-values", Biometrika 78, 1991.
    """
    generator = np.random.default_rng(seed)
    at_once = max(1, _AT_ONCE // len(places))
    reached = 0
    for first in range(0, PERMUTATIONS, at_once):
        orders = [generator.permutation(len(places)) for _ in range(first, min(first + at_once, PERMUTATIONS))]
        found = _deepest(places[np.stack(orders)])
        for drawn, of_one in enumerate(zip(*found, strict=True), first + 1):
            reached += max(depth for depth, _, _ in of_one) >= deepest
            if reached == ENOUGH:
                return ENOUGH / drawn
    return (1 + reached) / (1 + PERMUTATIONS)


def find_runs(
    vectors: Vectors, present: npt.NDArray[np.bool_], units: Numbers, *, seed: int, places: Array | None = None
) -> RowRuns:
    """Look for runs of rows that do not belong to their instances.

    Args:
        vectors: (n, d_m) of each modality, unit length, in the order of the rows.
        present: (n, K).
        units: (n,) the independent units, groups or instances.
        seed: of the permutations and of the halves.
        places: (n, K) of the vectors, where they are known: P(a mispaired one agrees less).

    Returns: with starts and ends that count the n rows.
    """
    present = present.copy()
    places = _places(vectors, present, seed) if places is None else places
    p, runs = None, []
    first_place = np.full(present.shape[1], np.nan)
    for _ in range(MOST_RUNS):
        by_unit, rows = _by_unit(places, units)
        found = [of_one for (of_one,) in _deepest(by_unit[None])]
        m = int(np.argmax([depth for depth, _, _ in found]))
        depth, start, stop = found[m]
        if stop == start:
            break
        own = _p_value(by_unit, depth, seed)
        if p is None:
            p = own
            for other, (_, a, b) in enumerate(found):
                column = by_unit[:, other]
                first_place[other] = column[~np.isnan(column)][a:b].mean() if b > a else np.nan
        column = by_unit[:, m]
        known = np.flatnonzero(~np.isnan(column))
        inside, outside = column[known[start:stop]].mean(), np.delete(column[known], slice(start, stop)).mean()
        if own > SIGNIFICANT or inside > MISPAIRED_PLACE or outside < PAIRED_PLACE:
            break
        first, last = int(rows[known[start], 0]), int(rows[known[stop - 1], 1]) + 1
        runs.append(RowRun(m, first, last, float(inside), None))
        present[first:last, m] = False
        places = _places(vectors, present, seed)
    return RowRuns(p, first_place, tuple(runs))


def _by_unit(places: Array, units: Numbers) -> tuple[Array, Numbers]:
    """Return (u, K) mean places of the units in the order of their first rows, and (u, 2) first and last rows."""
    _, first, codes = np.unique(units, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    codes = order[codes]
    count = len(first)
    known = ~np.isnan(places)
    sums = np.stack([np.bincount(codes, np.nan_to_num(column), count) for column in places.T], 1)
    sizes = np.stack([np.bincount(codes, column, count) for column in known.T], 1)
    rows = np.zeros((count, 2), dtype=np.int64)
    rows[codes[::-1], 0] = np.arange(len(units))[::-1]
    rows[codes, 1] = np.arange(len(units))
    return np.where(sizes > 0, sums / np.maximum(sizes, 1), np.nan), rows


def _places(vectors: Vectors, present: npt.NDArray[np.bool_], seed: int) -> Array:
    """Return (n, K) P(a mispaired vector agrees less), NaN where a vector or all others are absent.

    Modalities of several widths are compared as a linear adapter of the other half of the rows puts them.
    """
    n = len(present)
    places = np.full(present.shape, np.nan)
    if len({one.shape[1] for one in vectors}) == 1:
        stacked = torch.from_numpy(np.stack(vectors, axis=1) * present[..., None])
        return _places_of(Batch(np.arange(n), stacked, torch.from_numpy(present)))
    half, sides = np.random.default_rng(seed).permutation(n) % 2 == 0, sides_of(vectors)
    for own in (half, ~half):
        fits = ~own & (present.sum(1) > 1)
        if fits.sum() < SHORTEST or not present[fits].any(0).all():
            return places
        inner = third_of(np.arange(int(fits.sum())), seed)
        adapter = fit_linear([one.those(fits) for one in sides], present[fits], inner)
        places[own] = _places_of(adapter.embed([one.those(own) for one in sides], present[own]))
    return places


def _places_of(batch: Batch) -> Array:
    reference = reference_of(batch)
    return places_of(reference.agreement().score, reference.mispaired(like=())[0])


def with_shifts(found: RowRuns, dataset: Dataset) -> RowRuns:
    """Return the runs with the shift that corrects each, if one of up to five rows does.

    Args:
        found: runs in rows of the data set.
        dataset: modalities of one width, as read.
    """
    return RowRuns(found.p, found.place, tuple(_with_shift(run, dataset) for run in found.runs))


def _with_shift(run: RowRun, dataset: Dataset) -> RowRun:
    if len(set(dataset.dims)) > 1:
        return run
    rows = np.arange(run.first, min(run.last, run.first + 2048))
    others = [m for m in range(len(dataset.names)) if m != run.modality]
    read = np.arange(max(0, rows[0] - FURTHEST), min(len(dataset), rows[-1] + FURTHEST + 1))
    batch = read_batch(dataset, read)
    centred = centre(batch, modality_means(batch))
    consensus = centred.embeddings[:, others].sum(1).double().numpy()
    vectors, there = centred.embeddings[:, run.modality].double().numpy(), batch.present.numpy()
    tried = []
    for shift in range(-FURTHEST, FURTHEST + 1):
        of_row, of_vector = rows - read[0], rows + shift - read[0]
        fine = (of_vector >= 0) & (of_vector < len(read))
        of_row, of_vector = of_row[fine], of_vector[fine]
        both = there[of_row][:, others].any(1) & there[of_vector, run.modality]
        z = pairing_z(consensus[of_row[both]], vectors[of_vector[both]])
        tried.append((-np.inf if z is None else z, shift))
    z, shift = max(tried)
    return run if shift == 0 or z <= 4 else RowRun(run.modality, run.first, run.last, run.place, shift)


def runs_of(evidence: Evidence) -> RowRuns:
    """Return the runs of the reservoir's rows in the order of the data set, in rows of that."""
    dataset, sample = evidence.dataset, evidence.sample
    assert dataset is not None
    rows = rows_of(dataset.ids, sample.ids.tolist())
    order = np.argsort(rows)
    rows = rows[order]
    vectors = [one[order] for one in sample.vectors]
    places = None
    if "space" in evidence.has:
        places = evidence.mispairs.places()[order]
    units, seed = sample.groups[order], evidence.state.header.seed
    found = find_runs(vectors, sample.present[order], units, seed=seed, places=places)
    inside = [replace(run, first=int(rows[run.first]), last=int(rows[run.last - 1]) + 1) for run in found.runs]
    return with_shifts(replace(found, runs=tuple(inside)), dataset)


@statistic(
    "row_order",
    "modality",
    formula="of the run of consecutive rows where its vectors agree least with the others: P(they agree better than "
    "mispaired ones). p is of so deep a run of any modality, by permuted rows",
    chance="that of the deepest run of permuted rows",
    range="[0, 1]",
    needs=["rows"],
)
def _row_order(evidence: Evidence, m: int) -> Statistic | None:
    found = evidence.once(runs_of)
    if found.p is None or np.isnan(found.place[m]):
        return None
    return Statistic(float(found.place[m]), p=found.p, n=len(evidence.sample), null="permutation")


@detail(
    "runs",
    "modality",
    about="runs of consecutive rows whose vectors do not belong to their ids",
    schema={
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "rows": {
                    "type": "array",
                    "items": {"type": "integer", "minimum": 0},
                    "minItems": 2,
                    "maxItems": 2,
                    "description": "the first, counted from 0, and the one after the last",
                },
                "ids": {
                    "type": "array",
                    "items": {"type": "string"},
                    "minItems": 2,
                    "maxItems": 2,
                    "description": "of the first and the last",
                },
                "fraction": {"type": "number", "minimum": 0, "maximum": 1, "description": "of all rows"},
                "agreement": {"type": "number", "description": "as row_order has it"},
                "shift": {
                    "type": ["integer", "null"],
                    "description": "row i of the others matches row i + shift of this modality",
                },
            },
            "required": ["rows", "ids", "fraction", "agreement", "shift"],
            "additionalProperties": False,
        },
    },
    needs=["rows"],
)
def _runs(evidence: Evidence, m: int) -> list[dict[str, Any]]:
    dataset = evidence.dataset
    assert dataset is not None
    return [
        {
            "rows": [run.first, run.last],
            "ids": [dataset.ids[run.first].as_py(), dataset.ids[run.last - 1].as_py()],
            "fraction": (run.last - run.first) / len(dataset),
            "agreement": run.place,
            "shift": run.shift,
        }
        for run in evidence.once(runs_of).runs
        if run.modality == m
    ]


@detail(
    "templates",
    "modality",
    about="vectors that many rows of the reservoir hold: a filler, a default",
    schema={
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "rows": {"type": "integer", "minimum": 0, "description": "of the reservoir that hold it"},
                "fraction": {
                    "type": "number",
                    "minimum": 0,
                    "maximum": 1,
                    "description": "of those with the modality",
                },
                "id": {"type": "string", "description": "one of them"},
            },
            "required": ["rows", "fraction", "id"],
            "additionalProperties": False,
        },
    },
)
def _templates(evidence: Evidence, m: int) -> list[dict[str, Any]]:
    sample = evidence.sample
    present = sample.present[:, m]
    found = repeats_among(hash_rows(np.ascontiguousarray(sample.vectors[m])), present)
    return [
        {"rows": one.rows, "fraction": one.rows / found.rows, "id": sample.ids[one.first]}
        for one in found.templates[:10]
    ]


@detail(
    "repeated",
    "modality",
    about="fraction of the rows of the reservoir whose vector another of them holds too, templates left out",
    schema={"type": "number", "minimum": 0, "maximum": 1},
)
def _repeated(evidence: Evidence, m: int) -> float | None:
    sample = evidence.sample
    items = sample.relevance.items[sample.present[:, m], m]
    if not len(items):
        return None
    _, inverse, counts = np.unique(items, return_inverse=True, return_counts=True)
    return float(np.mean(counts[inverse] > 1))
