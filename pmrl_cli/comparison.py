"""Several objectives beside each other: one table of their runs, and a paired test against the first."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from pmrl_cli.array_types import Array
from pmrl_cli.data.columns import codes_of
from pmrl_cli.train.heldout import held_out_retrieval, reciprocal_ranks_by_instance

if TYPE_CHECKING:
    from pmrl_cli.aligner import Aligner
    from pmrl_cli.data.dataset import Dataset

__all__ = ["METRICS", "compared", "run_of", "to_csv", "to_latex", "to_markdown"]

METRICS = ("MRR", "R@1", "seconds")
"""Means over all ordered pairs of modalities, on instances that no fit of the run saw; and the seconds of the fit."""

DRAWS = 10_000

Run = Mapping[str, Any]


def run_of(aligner: Aligner, dataset: Dataset) -> dict[str, Any]:
    """Fit, and return what the test part says: JSON values.

    Args:
        aligner: with its settings, not yet fitted.
        dataset: that is fitted and evaluated.
    """
    settings = aligner.settings
    began = time.perf_counter()
    aligner.fit(dataset)
    seconds = time.perf_counter() - began
    rows, _ = aligner.rows(dataset, "test")
    embedded = aligner.embed_dataset(dataset, rows)
    vectors = torch.from_numpy(np.stack([one.read(slice(None)) for one in embedded.modalities], axis=1))
    present = torch.from_numpy(embedded.present)
    evaluated = embedded.present.sum(1) > 1
    ids = embedded.ids.to_pylist()
    units = ids if settings.group is None else [str(code) for code in codes_of(embedded, settings.group)]
    ranks = reciprocal_ranks_by_instance(vectors, present)
    quality = held_out_retrieval(vectors, present)
    stages = {row["stage"] for row in csv.DictReader(io.StringIO(aligner.texts["history.csv"]))}
    return {
        "objective": settings.objective,
        "seed": settings.seed,
        "MRR": quality.mrr,
        "R@1": quality.r1,
        "seconds": round(seconds, 2),
        "trained": sum(not stage.endswith("start") for stage in stages),
        "units": [unit for unit, one in zip(units, evaluated, strict=True) if one],
        "reciprocal_ranks": [float(value) for value in ranks[evaluated]],
    }


def compared(runs: Sequence[Run], objectives: Sequence[str]) -> list[dict[str, Any]]:
    """Return one row an objective, in the order given; the first is what others are tested against.

    ``mean`` and ``sd`` are over seeds. ``difference`` is in MRR, with a 95 % interval (units redrawn) and ``p``, the
    two-sided probability under flips of sign: both of the mean over units (instances, or their groups) of the mean
    difference over the seeds in whose test part a unit is.

    Args:
        runs: of every objective and seed.
        objectives: names.
    """
    rows = []
    for objective in objectives:
        own = [run for run in runs if run["objective"] == objective]
        row: dict[str, Any] = {"objective": objective, "seeds": len(own), "trained": sum(r["trained"] for r in own)}
        for metric in METRICS:
            values = np.array([run[metric] for run in own], dtype=float)
            row[metric] = {"mean": float(values.mean()), "sd": float(values.std(ddof=1)) if len(values) > 1 else None}
        row["difference"] = None if objective == objectives[0] else _difference(runs, objective, objectives[0])
        rows.append(row)
    return rows


def _by_unit(runs: Sequence[Run], objective: str) -> dict[tuple[int, str], float]:
    """Return the mean reciprocal rank of each unit under each seed."""
    found: dict[tuple[int, str], list[float]] = {}
    for run in runs:
        if run["objective"] == objective:
            for unit, value in zip(run["units"], run["reciprocal_ranks"], strict=True):
                found.setdefault((run["seed"], unit), []).append(value)
    return {key: float(np.mean(values)) for key, values in found.items()}


def _difference(runs: Sequence[Run], objective: str, base: str) -> dict[str, Any]:
    ours, theirs = _by_unit(runs, objective), _by_unit(runs, base)
    of_unit: dict[str, list[float]] = {}
    for key in sorted(ours.keys() & theirs.keys()):
        of_unit.setdefault(key[1], []).append(ours[key] - theirs[key])
    values: Array = np.array([np.mean(one) for one in of_unit.values()])
    if len(values) == 0:
        return {"mean": None, "ci": None, "p": None, "units": 0}
    rng = np.random.default_rng(0)
    redrawn, flipped = np.empty(DRAWS), np.empty(DRAWS)
    for first in range(0, DRAWS, 500):  # some at a time: units can be many
        part = slice(first, first + 500)
        redrawn[part] = values[rng.integers(len(values), size=(500, len(values)))].mean(1)
        flipped[part] = (rng.choice([-1.0, 1.0], size=(500, len(values))) * values).mean(1)
    low, high = np.quantile(redrawn, [0.025, 0.975])
    p = (1 + int((np.abs(flipped) >= abs(values.mean()) - 1e-15).sum())) / (1 + DRAWS)
    return {"mean": float(values.mean()), "ci": [float(low), float(high)], "p": p, "units": len(values)}


def _cells(row: Mapping[str, Any]) -> list[str]:
    cells = [row["objective"]]
    for metric in METRICS:
        mean, sd = row[metric]["mean"], row[metric]["sd"]
        digits = 1 if metric == "seconds" else 3
        cells.append(f"{mean:.{digits}f}" + ("" if sd is None else f" ± {sd:.{digits}f}"))
    change = row["difference"]
    if change is None or change["mean"] is None:
        cells += ["", ""]
    else:
        low, high = change["ci"]
        cells += [f"{change['mean']:+.3f} ({low:+.3f} to {high:+.3f})", f"{change['p']:.2g}"]
    return [*cells, str(row["seeds"]), str(row["trained"])]


def _head(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return ["objective", *METRICS, f"MRR - {rows[0]['objective']}", "p", "seeds", "runs trained"]


def to_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table as Markdown."""
    head = _head(rows)
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *(f"| {' | '.join(_cells(row))} |" for row in rows)]) + "\n"


def to_latex(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table as a LaTeX tabular."""
    head = _head(rows)

    def line(cells: Sequence[str]) -> str:
        escaped = (cell.replace("_", r"\_").replace("±", r"$\pm$") for cell in cells)
        return " & ".join(escaped) + r" \\"

    body = [line(head), r"\hline", *(line(_cells(row)) for row in rows)]
    return "\n".join([rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", *body, r"\end{tabular}"]) + "\n"


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the table as CSV, numbers in full."""
    flat = []
    for row in rows:
        one = {"objective": row["objective"], "seeds": row["seeds"], "trained": row["trained"]}
        for metric in METRICS:
            one |= {f"{metric}.{key}": value for key, value in row[metric].items()}
        change = row["difference"] or {"mean": None, "ci": None, "p": None, "units": None}
        low, high = change["ci"] or (None, None)
        one |= {"difference": change["mean"], "difference.low": low, "difference.high": high}
        flat.append(one | {"p": change["p"], "units": change["units"]})
    text = io.StringIO()
    writer = csv.DictWriter(text, list(flat[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return text.getvalue()


def fingerprint(settings: Mapping[str, object], dataset: Dataset, version: str) -> str:
    """Return what a kept run must have been made from to stand for one asked for."""
    digests = {one.name: one.digest for one in dataset.modalities}
    return json.dumps({"settings": settings, "data": digests, "version": version}, sort_keys=True, default=str)
