"""Going on from a model on real data: what each protection forgets, and what it learns.

    PYTHONPATH=. python benchmarks/systems/continual.py DATA

DATA holds folders cy101 and mfeat6. R@1 (mean over ordered pairs of modalities) on test instances of the first task
and of the second, before and after; intervals are 1.96 standard errors over test instances.
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
SETTINGS = {"device": "cpu", "test": 0.0}


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


def run(title: str, first: Features, second: Features, tests: list[Features], ids: list[Ids]) -> None:
    print(title)
    with tempfile.TemporaryDirectory() as folder:
        base, began = Path(folder) / "base", time.process_time()
        model = Aligner(adapter="linear", **SETTINGS).fit(first, list(ids[0]))
        model.save(base)
        known = [name for name in tests[0] if name in model.names]
        seconds = time.process_time() - began
        print(f"  {'model':10}", recall(model, some(tests[0], slice(None), known)), f"{seconds:.0f} s")
        for mode in MODES:
            began = time.process_time()
            later = Aligner(continue_from=str(base), protect=mode, **SETTINGS).fit(second, list(ids[1]))
            results = [recall(later, test) for test in tests]
            print(f"  {mode:10}", *results, f"{time.process_time() - began:.0f} s", *later.notes[:1], flush=True)


def main(data: Path) -> None:
    features, ids, table = read(data / "cy101", ["audio", "proprioception", "vibrotactile", "vision"])
    category = table["label"].to_numpy().astype(int)
    tested = (table["split"] == "test").to_numpy()
    halves = [np.flatnonzero(half & ~tested) for half in (category <= 10, category > 10)]
    tests = [some(features, np.flatnonzero(half & tested)) for half in (category <= 10, category > 10)]
    run(
        "cy101, categories 1-10 then 11-20: R@1 of the first, of the second",
        some(features, halves[0]),
        some(features, halves[1]),
        tests,
        [ids[half] for half in halves],
    )
    features, ids, table = read(data / "mfeat6", ["fac", "fou", "kar", "zer"])
    tested = (table["split"] == "test").to_numpy()
    train = np.flatnonzero(~tested)
    old, new = train[::2], train[1::2]
    run(
        "mfeat6, fac and fou, then zer joins by instances of fou and zer: R@1 of fac-fou, of fou-zer",
        some(features, old, ["fac", "fou"]),
        some(features, new, ["fou", "zer"]),
        [some(features, np.flatnonzero(tested), names) for names in (["fac", "fou"], ["fou", "zer"])],
        [ids[old], ids[new]],
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
