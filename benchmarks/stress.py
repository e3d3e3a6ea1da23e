"""What missing and mispaired training instances cost: held-out retrieval as they grow.

    python benchmarks/stress.py SET [SET ...] [--seeds 3] [--kind missing,mispaired] [--runs RUNS.jsonl]

Instances are dealt as in benchmarks/quality.py; test stays as it is. Of train and validation, a share of the entries
is taken away (never all but one of an instance), or one modality of a share of the instances is exchanged with that
of others. Beside the default stands InfoNCE with linear adapters: with missing entries on the complete instances
alone, which is all it could use without a mask. Where entries are mispaired, the default is also given the share
(--mispaired). Nothing is fitted again with the validation instances.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from quality import GROUPS

from pmrl_cli import Aligner, evaluate, read_dataset
from pmrl_cli.data.dataset import Dataset, Features
from pmrl_cli.data.split import TEST, SplitRule, split_instances
from pmrl_cli.errors import DataError

SHARES = {"missing": (0.0, 0.1, 0.3, 0.5), "mispaired": (0.0, 0.1, 0.2, 0.4)}


def with_missing(dataset: Dataset, share: float, spared: npt.NDArray[np.bool_], seed: int) -> Dataset:
    """Take away a share of the entries of instances that are not spared."""
    rng = np.random.default_rng(seed)
    present = dataset.present.copy()
    gone = (rng.random(present.shape) < share) & ~spared[:, None]
    kept = present & ~gone
    present = np.where((kept.sum(axis=1) >= 1)[:, None], kept, present)
    return replace(dataset, present=present)


def with_mispaired(dataset: Dataset, share: float, spared: npt.NDArray[np.bool_], seed: int) -> Dataset:
    """Exchange one modality of a share of the instances that are not spared among them."""
    rng = np.random.default_rng(seed)
    rows = np.flatnonzero(~spared)
    struck = rng.permutation(rows)[: round(share * len(rows))]
    modality_struck = rng.integers(len(dataset.modalities), size=len(struck))
    arrays, present = [], dataset.present.copy()
    for m, features in enumerate(dataset.modalities):
        array = features.read(np.arange(len(dataset)))
        who = struck[modality_struck == m]
        who = who[dataset.present[who, m]]
        array[who] = array[np.roll(who, 1)]
        arrays.append(Features(features.name, array, digest=f"{features.digest} {share} {seed}"))
    return replace(dataset, modalities=tuple(arrays), present=present)


def complete(dataset: Dataset, spared: npt.NDArray[np.bool_]) -> Dataset:
    """Return the instances that miss nothing, and those spared."""
    rows = np.flatnonzero(dataset.present.all(axis=1) | spared)
    return Dataset(
        dataset.ids.take(rows),
        tuple(Features(f.name, f.read(rows), digest=f.digest) for f in dataset.modalities),
        dataset.present[rows],
        {name: column.take(rows) for name, column in dataset.columns.items()},
    )


METHODS: dict[str, dict[str, object]] = {
    "pmrl": {},
    "pmrl, share given": {},
    "infonce-linear": {"objective": "infonce", "adapter": "linear"},
}


def main() -> None:
    """Print a line a run, then a table a set."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--kind", default="missing,mispaired")
    parser.add_argument("--runs", type=Path)
    arguments = parser.parse_args()
    runs: list[dict[str, Any]] = []
    if arguments.runs and arguments.runs.exists():
        runs = [json.loads(line) for line in arguments.runs.read_text().splitlines()]
    done = {(r["set"], r["kind"], r["share"], r["method"], r["seed"]) for r in runs}
    for folder in arguments.sets:
        dataset = read_dataset([str(folder)], join="outer")
        group = GROUPS.get(folder.name)
        for kind in arguments.kind.split(","):
            for seed in range(arguments.seeds):
                spared = split_instances(dataset, SplitRule(seed, 0.2, 0.2, group)) == TEST
                for share in SHARES[kind]:
                    for method, settings in METHODS.items():
                        share_given = method == "pmrl, share given"
                        key = (folder.name, kind, share, method, seed)
                        if key in done or (share_given and (kind == "missing" or share == 0)):
                            continue
                        strike = with_missing if kind == "missing" else with_mispaired
                        struck = strike(dataset, share, spared, seed)
                        if kind == "missing" and method == "infonce-linear":
                            struck = complete(struck, spared)
                        aligner = Aligner(
                            **settings,  # type: ignore[arg-type]
                            seed=seed,
                            validation=0.2,
                            test=0.2,
                            group=group,
                            refit=False,
                            mispaired=share if share_given else 0.0,
                        )
                        try:
                            aligner.fit(struck)
                            rows, _ = aligner.rows(dataset, "test")
                            rows = np.flatnonzero(spared)
                            result = evaluate(aligner.embed_dataset(dataset, rows)).as_dict()
                            value = result["pairwise"]["MRR"]["value"]
                        except DataError as error:  # too few complete instances are left
                            print(folder.name, kind, share, method, seed, str(error).splitlines()[0], flush=True)
                            value = None
                        runs.append(dict(zip(("set", "kind", "share", "method", "seed"), key, strict=True)))
                        runs[-1]["MRR"] = value
                        print(*key, value, flush=True)
                        if arguments.runs:
                            with arguments.runs.open("a") as file:
                                file.write(json.dumps(runs[-1]) + "\n")
    for kind in arguments.kind.split(","):
        for folder in arguments.sets:
            print(f"\n{folder.name}, {kind}\n\n| method | {' | '.join(f'{s:.0%}' for s in SHARES[kind])} |")
            print(f"|{'---|' * (len(SHARES[kind]) + 1)}")
            for method in METHODS:
                cells = []
                for share in SHARES[kind]:
                    found = [
                        r["MRR"]
                        for r in runs
                        if (r["set"], r["kind"], r["share"], r["method"]) == (folder.name, kind, share, method)
                    ]
                    known = [value for value in found if value is not None]
                    cells.append(f"{np.mean(known):.4f}" if known and len(known) == len(found) else "")
                if any(cells):
                    print(f"| {method} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
