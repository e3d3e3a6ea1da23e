"""Kept channels and codes against PCA and product quantisation at equal bytes, and the codes of FCID.

    python benchmarks/systems/fcid.py SET [SET ...] [--only bytes|codes] [--codes 64]

First, in the space of one ``pmrl`` member of 64 dimensions: mean reciprocal rank of the test part over all ordered
pairs of modalities, of whole vectors and at some bytes a vector: TOC channels, PCA (of the training vectors of all
modalities) and channels drawn at random, as float16; product quantisation (256 codes a byte; k-means on training
vectors, distances between codes). Intervals: test instances, or their groups, redrawn.

Then codes of the same space by k-means, and of ``fcid``: rate of test instances whose modalities have
one code, accuracy of the most frequent class of a code, learned on one modality and asked of another (mean over
ordered pairs), codes in use, and seconds of the fit.
"""

from __future__ import annotations

import argparse
import time
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from sets import GROUPS, groups_of, interval, read_set, text

from pmrl_cli import Aligner
from pmrl_cli.codes.channels import choose_channels
from pmrl_cli.codes.kmeans import fit_codebook, nearest_codes
from pmrl_cli.data.columns import codes_of, column_of
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.train.heldout import reciprocal_ranks_by_instance

BYTES = (4, 8, 16, 32)
DIM = 64


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def quantised(vectors: np.ndarray, pool: np.ndarray, parts: int) -> np.ndarray:
    """Product quantisation: every part of a vector by the nearest of (at most) 256 codes."""
    found = np.zeros_like(vectors)
    for columns in np.array_split(np.arange(vectors.shape[-1]), parts):
        codebook = fit_codebook(np.ascontiguousarray(pool[:, columns]), min(256, len(pool) // 4))
        flat = np.ascontiguousarray(vectors[..., columns].reshape(-1, len(columns)))
        found[..., columns] = codebook[nearest_codes(flat, codebook)].reshape(*vectors.shape[:-1], len(columns))
    return found


def space(folder: Path, **settings: object) -> tuple[Dataset, Aligner, np.ndarray, np.ndarray, float]:
    dataset = read_set(folder)
    aligner = Aligner(
        adapter="mlp",
        dropout=0.0,
        dim=DIM,
        steps=300,
        refit=False,
        seed=0,
        split_column="split",
        group=GROUPS.get(folder.name),
        **settings,  # type: ignore[arg-type]
    )
    began = time.process_time()
    aligner.fit(dataset)
    seconds = time.process_time() - began
    vectors = np.concatenate([block.embeddings for block in aligner.embed(dataset)])
    test = np.array(column_of(dataset, "split").to_pylist()) == "test"
    return dataset, aligner, vectors, test, seconds


def by_bytes(folder: Path) -> None:
    dataset, _, vectors, test, _ = space(folder)
    groups, present = groups_of(folder, dataset)[test], dataset.present[test]
    pool = vectors[~test][dataset.present[~test]]
    reference = fit_codebook(pool, min(256, len(pool) // 4))
    _, axes = np.linalg.eigh((pool - pool.mean(0)).T @ (pool - pool.mean(0)))

    def judged(kept: np.ndarray) -> np.ndarray:
        half = kept.astype(np.float16).astype(np.float32)
        return reciprocal_ranks_by_instance(torch.from_numpy(unit(half)), torch.from_numpy(present))

    print(f"\n{folder.name}: MRR of {int(test.sum())} test instances\n")
    print("| bytes | TOC channels | PCA | random channels | product quantisation | TOC - PCA |")
    print("|---|---|---|---|---|---|")
    whole = judged(vectors[test])
    print(f"| {2 * DIM} (whole) | {text(interval(whole, groups))} | | | | |")
    for size in BYTES:
        keep = size // 2
        drawn = np.random.default_rng(0)
        found = [
            judged(vectors[test][..., choose_channels(reference, keep)]),
            judged((vectors[test] - pool.mean(0)) @ axes[:, -keep:]),
            np.mean([judged(vectors[test][..., drawn.permutation(DIM)[:keep]]) for _ in range(5)], axis=0),
            judged(quantised(vectors[test], pool, size)),
        ]
        cells = [text(interval(one, groups)) for one in (*found, found[0] - found[1])]
        print(f"| {size} | {' | '.join(cells)} |")


def by_codes(folder: Path, count: int) -> None:
    print(f"\n{folder.name}: {count} codes\n")
    print("| codes of | same code | class from code | in use | MRR of vectors | seconds |")
    print("|---|---|---|---|---|---|")
    for name, settings in (
        ("k-means, pmrl", {}),
        ("fcid", {"objective": "fcid", "objective_settings": {"codes": count}}),
    ):
        dataset, aligner, vectors, test, seconds = space(folder, **settings)
        groups, classes = groups_of(folder, dataset)[test], codes_of(dataset, "label")
        pool = vectors[~test][dataset.present[~test]]
        codebook = aligner.codes if aligner.codes is not None else fit_codebook(pool, count)
        codes = nearest_codes(vectors.reshape(-1, DIM), codebook).reshape(dataset.present.shape)
        same, right = [], []
        for m, n in permutations(range(len(dataset.names)), 2):
            both = dataset.present[:, m] & dataset.present[:, n]
            same.append((codes[test, m] == codes[test, n]) & both[test])
            counts = np.zeros((len(codebook), classes.max() + 1))
            np.add.at(counts, (codes[~test & both, m], classes[~test & both]), 1)
            right.append(counts[codes[test, n]].argmax(1) == classes[test])
        used = len(np.unique(codes[dataset.present])) / len(codebook)
        ranks = reciprocal_ranks_by_instance(torch.from_numpy(vectors[test]), torch.from_numpy(dataset.present[test]))
        cells = [text(interval(np.mean(one, axis=0), groups)) for one in (same, right)]
        print(f"| {name} | {' | '.join(cells)} | {used:.2f} | {text(interval(ranks, groups))} | {seconds:.1f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", type=Path)
    parser.add_argument("--only", choices=("bytes", "codes"))
    parser.add_argument("--codes", type=int, default=64)
    asked = parser.parse_args()
    for folder in asked.sets:
        if asked.only != "codes":
            by_bytes(folder)
        if asked.only != "bytes":
            by_codes(folder, asked.codes)


if __name__ == "__main__":
    main()
