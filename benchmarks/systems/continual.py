"""Going on from a model on real data: what each protection forgets, and what it learns.

    PYTHONPATH=. python benchmarks/systems/continual.py DATA

DATA holds folders cy101 and mfeat6. First cy101 by halves of its categories; then the views of mfeat6 one by one:
fac and pix, zer by other instances of pix and zer, fou by still others of fac and fou. R@1 (mean over ordered pairs
of modalities) on test instances of every task after each; intervals are 1.96 standard errors over test instances.
Adapters are linear, 300 steps, no refit.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from pmrl_cli import Aligner, read_dataset

Features = dict[str, npt.NDArray[np.float32]]
Ids = npt.NDArray[np.str_]

MODES = ("none", "input", "disjoint", "dual")
SETTINGS = {"device": "cpu", "test": 0.0, "steps": 300, "refit": False}


def read(folder: Path, names: Sequence[str]) -> tuple[Features, Ids, Any]:
    dataset = read_dataset([str(folder / f"{name}.h5") for name in names])
    table = pq.read_table(folder / "labels.parquet").to_pandas().set_index("id").loc[dataset.ids.to_pylist()]
    features = {f.name: np.asarray(f.array, dtype=np.float32) for f in dataset.modalities}
    return features, np.array(dataset.ids.to_pylist()), table


def some(features: Features, rows: Any, names: Sequence[str] | None = None) -> Features:  # noqa: ANN401 - an index
    return {name: array[rows] for name, array in features.items() if names is None or name in names}


def recall(model: Aligner, features: Features) -> str:
    vectors = list(model.transform(features).values())
    hits = [np.argmax(a @ b.T, axis=1) == np.arange(len(a)) for a, b in permutations(vectors, 2)]
    by_instance = np.mean(hits, axis=0)
    return f"{by_instance.mean():.3f} +- {1.96 * by_instance.std() / len(by_instance) ** 0.5:.3f}"


Task = tuple[Features, Ids]


def run(title: str, tasks: list[Task], tests: list[Features]) -> None:
    """Learn the tasks one after the other in each mode, and print recall of every test whose modalities are known."""
    print(title)
    with tempfile.TemporaryDirectory() as folder:
        base, began = Path(folder) / "base", time.process_time()
        first = Aligner(adapter="linear", **SETTINGS).fit(*tasks[0])
        first.save(base)
        print(f"| task 1 | {known(first, tests)} | {time.process_time() - began:.0f} s |")
        for mode in MODES:
            model = base
            for number, task in enumerate(tasks[1:], start=2):
                began = time.process_time()
                later = Aligner(continue_from=str(model), protect=mode, **SETTINGS).fit(*task)
                model = later.save(Path(folder) / f"{mode}{number}")
                seconds = time.process_time() - began
                print(
                    f"| {mode}, task {number} | {known(later, tests)} | {seconds:.0f} s |", *later.notes, flush=True
                )


def known(model: Aligner, tests: list[Features]) -> str:
    """Return recall of the tests whose modalities a model has."""
    return " | ".join(recall(model, test) if set(test) <= set(model.names) else "" for test in tests)


def main(data: Path) -> None:
    features, ids, table = read(data / "cy101", ["audio", "proprioception", "vibrotactile", "vision"])
    category = table["label"].to_numpy().astype(int)
    tested = (table["split"] == "test").to_numpy()
    halves = [category <= 10, category > 10]
    train = [np.flatnonzero(half & ~tested) for half in halves]
    run(
        "cy101, categories 1-10 then 11-20: R@1 of the first, of the second",
        [(some(features, rows), list(ids[rows])) for rows in train],
        [some(features, np.flatnonzero(half & tested)) for half in halves],
    )
    features, ids, table = read(data / "mfeat6", ["fac", "fou", "pix", "zer"])
    tested = (table["split"] == "test").to_numpy()
    pairs = [["fac", "pix"], ["pix", "zer"], ["fac", "fou"]]
    parts = [np.flatnonzero(~tested)[i::3] for i in range(3)]
    run(
        "mfeat6: R@1 of fac-pix, pix-zer, fac-fou, and fou-zer, which no training instance has both of",
        [(some(features, rows, names), list(ids[rows])) for rows, names in zip(parts, pairs, strict=True)],
        [some(features, np.flatnonzero(tested), names) for names in (*pairs, ["fou", "zer"])],
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
