"""A joint encoder beside fusion after the fact, at each number of missing modalities, on real data.

    PYTHONPATH=. python benchmarks/systems/umurl.py DATA

DATA holds folders cy101 and mfeat6. Models are fitted on the instances of the train split; for every number of
modalities kept, means over up to eight subsets: accuracy on test of a ridge classifier that was fitted on the fused
vectors of whole training instances, and mean reciprocal rank of the fused vector of the modalities that are left out,
asked for by that of those that are kept.
"""

from __future__ import annotations

import sys
import time
from itertools import combinations
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from pmrl_cli import Aligner, read_dataset

SETS = {
    "cy101": ("audio", "proprioception", "vibrotactile", "vision"),
    "mfeat6": ("fac", "fou", "kar", "mor", "pix", "zer"),
}
FITS: dict[str, dict[str, object]] = {
    "pmrl, leading": {"objective": "pmrl"},
    "umurl, as published": {"objective": "umurl", "objective_settings": {"contrast": 0.0}},
    "umurl": {"objective": "umurl"},
}
Array = npt.NDArray[np.float32]


def probe(train: Array, labels: npt.NDArray[np.int64], test: Array, wanted: npt.NDArray[np.int64]) -> float:
    """Return the accuracy of a ridge classifier."""
    rows = np.c_[train, np.ones(len(train))].astype(np.float64)
    ridge = 0.01 * np.square(rows).mean() * len(rows) * np.eye(rows.shape[1])
    weights = np.linalg.solve(rows.T @ rows + ridge, rows.T @ np.eye(labels.max() + 1)[labels])
    return float((np.argmax(np.c_[test, np.ones(len(test))] @ weights, axis=1) == wanted).mean())


def reciprocal_rank(queries: Array, gallery: Array) -> float:
    """Return the mean reciprocal rank of each query's own vector."""
    cosines = queries @ gallery.T
    return float((1 / (1 + (cosines > np.diag(cosines)[:, None]).sum(axis=1))).mean())


def main(data: Path) -> None:
    """Print the table."""
    for name, modalities in SETS.items():
        dataset = read_dataset([str(data / name / f"{m}.h5") for m in modalities])
        table = pq.read_table(data / name / "labels.parquet").to_pandas().set_index("id").loc[dataset.ids.to_pylist()]
        labels = np.unique(table["label"].to_numpy(), return_inverse=True)[1]
        tested = (table["split"] == "test").to_numpy()
        features = {f.name: np.asarray(f.array, dtype=np.float32) for f in dataset.modalities}
        learning, testing = ({m: array[part] for m, array in features.items()} for part in (~tested, tested))
        for title, settings in FITS.items():
            began = time.process_time()
            model = Aligner(adapter="mlp", test=0.0, device="cpu", **settings).fit(learning)
            whole, cells = model.fuse(learning), []
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
                cells.append(f"{np.mean(accuracy):.3f}" + (f" / {np.mean(rank):.3f}" if rank else ""))
            print(f"| {name} | {title} | {' | '.join(cells)} | {time.process_time() - began:.0f} s |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
