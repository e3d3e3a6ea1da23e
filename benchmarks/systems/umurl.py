"""A joint encoder beside fusion after the fact, at each number of missing modalities, on real data.

    PYTHONPATH=. python benchmarks/systems/umurl.py SET [SET ...]

Models are fitted on the instances of the train split (adapters with a residual MLP, 300 steps, no refit); for every
number of modalities kept, means over up to eight subsets: accuracy on test of a ridge classifier that was fitted on
the fused vectors of whole training instances, and mean reciprocal rank of the fused vector of the modalities that are
left out, asked for by that of those that are kept; below each joint encoder, by how much they differ from those of
the leading direction, with 95 % intervals (test instances redrawn).
"""

from __future__ import annotations

import sys
import time
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
from common import interval

from pmrl_cli import Aligner, read_dataset

COMPLETE = {"tcga_brca": ("expression", "methylation", "mirna")}
"""Modalities that all instances have, where they do not have all."""

FITS: dict[str, dict[str, object]] = {
    "pmrl, leading": {"objective": "pmrl"},
    "umurl, as published": {"objective": "umurl", "objective_settings": {"contrast": 0.0}},
    "umurl": {"objective": "umurl"},
}
Array = npt.NDArray[np.float32]


def probe(train: Array, labels: npt.NDArray[np.int64], test: Array, wanted: npt.NDArray[np.int64]) -> Array:
    """Return 1 where a ridge classifier is right, else 0."""
    rows = np.c_[train, np.ones(len(train))].astype(np.float64)
    ridge = 0.01 * np.square(rows).mean() * len(rows) * np.eye(rows.shape[1])
    weights = np.linalg.solve(rows.T @ rows + ridge, rows.T @ np.eye(labels.max() + 1)[labels])
    hits: Array = np.argmax(np.c_[test, np.ones(len(test))] @ weights, axis=1) == wanted
    return hits.astype(np.float32)


def reciprocal_rank(queries: Array, gallery: Array) -> Array:
    """Return the reciprocal rank of each query's own vector."""
    cosines = queries @ gallery.T
    ranks: Array = 1 / (1 + (cosines > np.diag(cosines)[:, None]).sum(axis=1))
    return ranks


def change(values: Array, base: Array) -> str:
    """Return a mean difference with its interval."""
    return "{:+.3f} ({:+.3f} to {:+.3f})".format(*interval((values - base).astype(float)))


def main(folders: list[Path]) -> None:
    """Print the table."""
    for folder in folders:
        modalities = COMPLETE.get(folder.name) or tuple(sorted(path.stem for path in folder.glob("*.h5")))
        dataset = read_dataset([str(folder / f"{m}.h5") for m in modalities])
        table = pq.read_table(folder / "labels.parquet").to_pandas().set_index("id").loc[dataset.ids.to_pylist()]
        labels = np.unique(table["label"].to_numpy(), return_inverse=True)[1]
        tested = (table["split"] == "test").to_numpy()
        features = {f.name: np.asarray(f.array, dtype=np.float32) for f in dataset.modalities}
        learning, testing = ({m: array[part] for m, array in features.items()} for part in (~tested, tested))
        base: dict[int, list[Array]] = {}
        for title, settings in FITS.items():
            began = time.process_time()
            shared = {"adapter": "mlp", "dropout": 0.0, "steps": 300, "refit": False, "test": 0.0, "device": "cpu"}
            model = Aligner(**shared, **settings).fit(learning)
            seconds = time.process_time() - began
            whole, cells, changes = model.fuse(learning), [], []
            for kept in range(len(modalities), 0, -1):
                subsets = list(combinations(modalities, kept))
                chosen = np.random.default_rng(0).permutation(len(subsets))[:8]
                accuracy, rank = [], []
                for subset in (subsets[i] for i in chosen):
                    fused = model.fuse({m: testing[m] for m in subset})
                    accuracy.append(probe(whole, labels[~tested], fused, labels[tested]))
                    rest = {m: testing[m] for m in modalities if m not in subset}
                    if rest:
                        rank.append(reciprocal_rank(fused, model.fuse(rest)))
                found = [np.mean(of, axis=0) for of in (accuracy, rank) if of]
                cells.append(" / ".join(f"{of.mean():.3f}" for of in found))
                changes.append(
                    "; ".join(change(a, b) for a, b in zip(found, base.setdefault(kept, found), strict=True))
                )
            print(f"| {folder.name} | {title} | {' | '.join(cells)} | {seconds:.0f} s |", flush=True)
            if title != next(iter(FITS)):
                print(f"| | difference | {' | '.join(changes)} | |", flush=True)


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
