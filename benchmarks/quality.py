"""Held-out retrieval of every method on the feature sets it is pointed at, by one protocol.

    python benchmarks/quality.py SET [SET ...] [--seeds 3] [--methods pmrl,infonce] [--refit] [--steps N]
                                 [--runs RUNS.jsonl]

A SET is a folder of feature files with a labels.parquet. Instances are dealt 60/20/20 to train, validation and test
by hash of their id, or of their group where rows share an object or a video; every method sees the same, has the
same starts, steps and patience, and is chosen on validation alone. Without --refit no method is fitted again with
the validation instances. Figures are means over all ordered pairs of modalities, gallery = test, ties by expected
rank; equal vectors of a modality are one query and one candidate, as in ``pmrl evaluate``; fused = the leading
direction of the other modalities asks. A run is trained where a member's weights are not those of its closed form.

After the table: mean ranks, and for every method its ratio to the first one named, with a paired bootstrap interval
(10,000 draws of test instances, or of their groups, in which every method and seed is drawn alike).

A method is a file in benchmarks/methods: one line that says what it is, and SETTINGS, those of ``Aligner`` that
differ from default. --steps is the most that a run takes; seconds are CPU time. With --runs, runs are kept in that
file and not done again.
"""

from __future__ import annotations

import argparse
import json
import runpy
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pmrl_cli import Aligner, read_dataset
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.errors import UsageError
from pmrl_cli.retrieval.metrics import hits, reciprocal_ranks
from pmrl_cli.retrieval.ranks import OTHERS, Ranks, rank_dataset
from pmrl_cli.retrieval.relevance import Relevance

FOLDER = Path(__file__).with_name("methods")

GROUPS = {"cy101": "object", "mosi": "video", "flickr8k_clip": "label"}
"""Side columns whose rows must not be parted, by name of the set's folder; others are dealt row by row."""

DRAWS = 10_000

Array = npt.NDArray[np.float64]


def settings_of(method: str) -> dict[str, object]:
    """Return the settings that a method's file holds."""
    settings: dict[str, object] = runpy.run_path(str(FOLDER / f"{method}.py"))["SETTINGS"]
    return settings


def _per_query(ranks: Mapping[str, Ranks], count: int, *, fused: bool) -> list[float | None]:
    # Each instance's share of the mean over directions of their means, so that these add up to it.
    sums, weights = np.zeros(count), np.zeros(count)
    for direction, found in ranks.items():
        if direction.startswith(f"{OTHERS}->") == fused and found.gallery > 1:
            share = 1 / len(found.rows)  # every direction weighs the same
            sums[found.rows] += reciprocal_ranks(found) * share
            weights[found.rows] += share
    return [s if w else None for s, w in zip(sums.tolist(), weights.tolist(), strict=True)]


def run(
    folder: Path, dataset: Dataset, method: str, seed: int, *, refit: bool, steps: int | None = None
) -> dict[str, Any]:
    """Fit on train and validation, and return what test says of every query."""
    group = GROUPS.get(folder.name)
    aligner = Aligner(
        **{"refit": refit, "steps": steps, **settings_of(method)},
        seed=seed,
        validation=0.2,
        test=0.2,
        group=group,  # type: ignore[arg-type]
    )
    started = time.process_time()
    aligner.fit(dataset)
    seconds = time.process_time() - started
    members = json.loads(aligner.texts["config.json"])["members"]
    rows, _ = aligner.rows(dataset, "test")
    embedded = aligner.embed_dataset(dataset, rows)
    queries = np.flatnonzero(embedded.present.sum(axis=1) > 1)
    ranks = rank_dataset(embedded, queries, relevance=Relevance.of(embedded))
    directions = {d: r for d, r in ranks.items() if r.gallery > 1}
    pairs = [r for d, r in directions.items() if not d.startswith(OTHERS)]
    fused = [r for d, r in directions.items() if d.startswith(OTHERS)]

    def mean(found: list[Ranks], cutoff: int | None) -> float | None:
        each = [reciprocal_ranks(r).mean() if cutoff is None else hits(r, cutoff).mean() for r in found]
        return float(np.mean(each)) if each else None

    groups = embedded.ids.to_pylist() if group is None else embedded.columns[group].to_pylist()
    return {
        "set": folder.name,
        "method": method,
        "seed": seed,
        "refit": refit,
        "seconds": round(seconds, 1),
        "members": len(members),
        "trained": any(member["best_step"] for member in members),
        "MRR": mean(pairs, None),
        "R@1": mean(pairs, 1),
        "R@10": mean(pairs, 10),
        "fused MRR": mean(fused, None),
        "groups": [str(g) for g in groups],
        "pairwise": _per_query(ranks, len(rows), fused=False),
        "fused": _per_query(ranks, len(rows), fused=True),
    }


def _trained(run: Mapping[str, Any]) -> bool:
    return bool(run["trained"])


def ratio(runs: list[dict[str, Any]], base: list[dict[str, Any]], key: str) -> tuple[float, float, float]:
    """Return the ratio of two methods' MRR on one set and its 95 % interval, test instances (or groups) redrawn.

    Args:
        runs: of one method, one a seed.
        base: of the other, the same seeds.
        key: ``pairwise`` or ``fused``.
    """
    rng = np.random.default_rng(0)
    top, bottom = np.zeros((2, DRAWS + 1))
    for one, other in zip(runs, base, strict=True):
        _, index = np.unique(one["groups"], return_inverse=True)
        weights = rng.multinomial(index.max() + 1, np.full(index.max() + 1, 1 / (index.max() + 1)), DRAWS)
        weights = np.concatenate([np.ones((1, index.max() + 1)), weights])
        for record, total in ((one, top), (other, bottom)):
            values = np.array([0.0 if v is None else v for v in record[key]])
            total += weights @ np.bincount(index, weights=values)
    ratios = top / bottom
    low, high = np.quantile(ratios[1:], [0.025, 0.975])
    return float(ratios[0]), float(low), float(high)


def report(runs: list[dict[str, Any]], methods: list[str], sets: list[str]) -> None:
    """Print the table, the mean ranks and the paired comparison."""

    def of(name: str, method: str) -> list[dict[str, Any]]:
        return sorted((r for r in runs if r["set"] == name and r["method"] == method), key=lambda r: int(r["seed"]))

    def figure(name: str, method: str, key: str) -> float:
        values = [r[key] for r in of(name, method)]
        return float(np.mean(values)) if values and values[0] is not None else np.nan

    for key in ("MRR", "R@1", "fused MRR", "seconds"):
        digits = 1 if key == "seconds" else 4
        print(f"\n{key}\n\n| method | {' | '.join(sets)} | mean rank |\n|{'---|' * (len(sets) + 2)}")
        values = np.array([[figure(name, method, key) for name in sets] for method in methods])
        complete = ~np.isnan(values).all(axis=0)
        ranks = np.full(values.shape, np.nan)
        for column in np.flatnonzero(complete):
            known = ~np.isnan(values[:, column])
            below = values[known, column][:, None] < values[known, column][None, :]
            ranks[known, column] = (
                1
                + below.sum(axis=1)
                + 0.5 * ((values[known, column][:, None] == values[known, column][None, :]).sum(axis=1) - 1)
            )
        for method, line, rank in zip(methods, values, ranks, strict=True):
            cells = " | ".join("" if np.isnan(v) else f"{v:.{digits}f}" for v in line)
            whole = key != "seconds" and complete.any() and not np.isnan(rank[complete]).any()
            print(f"| {method} | {cells} | {f'{rank[complete].mean():.1f}' if whole else ''} |")

    print(f"\nruns that were trained\n\n| method | {' | '.join(sets)} |\n|{'---|' * (len(sets) + 1)}")
    for method in methods:
        each = [of(name, method) for name in sets]
        print(f"| {method} | {' | '.join(f'{sum(map(_trained, some))} of {len(some)}' for some in each)} |")

    first = methods[0]
    for key, title in (("pairwise", "MRR"), ("fused", "fused MRR")):
        print(f"\n{title} of `{first}` over that of each method, with 95 % intervals\n")
        print(f"| method | {' | '.join(sets)} | geometric mean |\n|{'---|' * (len(sets) + 2)}")
        for method in methods[1:]:
            cells, ratios = [], []
            for name in sets:
                ours, theirs = of(name, first), of(name, method)
                if not ours or len(ours) != len(theirs) or (ours[0][key][0] is None and ours[0]["fused MRR"] is None):
                    cells.append("")
                    continue
                if key == "fused" and ours[0]["fused MRR"] is None:
                    cells.append("")
                    continue
                value, low, high = ratio(ours, theirs, key)
                ratios.append(value)
                cells.append(f"{value:.3f} ({low:.3f}-{high:.3f})")
            mean = f"{np.exp(np.mean(np.log(ratios))):.3f}" if ratios else ""
            print(f"| {method} | {' | '.join(cells)} | {mean} |")


def main() -> None:
    """Run what has not been run, then report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", help="names separated by commas; the first is compared with the others")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--refit", action="store_true", help="fit every method again with the validation instances")
    parser.add_argument("--runs", type=Path, help="file in which runs are kept")
    arguments = parser.parse_args()
    methods = arguments.methods.split(",") if arguments.methods else sorted(p.stem for p in FOLDER.glob("*.py"))
    runs: list[dict[str, Any]] = []
    if arguments.runs and arguments.runs.exists():
        runs = [json.loads(line) for line in arguments.runs.read_text().splitlines()]
    runs = [r for r in runs if r["refit"] == arguments.refit]
    done = {(r["set"], r["method"], r["seed"]) for r in runs}
    for folder in arguments.sets:
        dataset = read_dataset([str(folder)], join="outer")
        for seed in range(arguments.seeds):
            for method in methods:
                if (folder.name, method, seed) in done:
                    continue
                try:
                    one = run(folder, dataset, method, seed, refit=arguments.refit, steps=arguments.steps)
                except UsageError as error:  # an objective for another number of modalities
                    print(f"{folder.name} {method}: {str(error).splitlines()[0]}", flush=True)
                    continue
                print(f"{folder.name} {seed} {method} {one['MRR']:.4f} {one['seconds']:.0f} s", flush=True)
                runs.append(one)
                if arguments.runs:
                    with arguments.runs.open("a") as file:
                        file.write(json.dumps(one) + "\n")
    sets = [folder.name for folder in arguments.sets]
    report([r for r in runs if r["set"] in sets and r["seed"] < arguments.seeds], methods, sets)


if __name__ == "__main__":
    main()
