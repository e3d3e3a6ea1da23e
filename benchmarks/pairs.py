"""What further terms and losses gain with few pairs: test MRR beside the default fit, at all pairs, 300 and 100.

    python benchmarks/pairs.py SET [SET ...] [--seeds 2] [--pairs 0 300 100]

A SET is a folder of feature files. A fifth is kept for test by hash (groups as in ``quality.GROUPS``); of the others
as many as asked for (0: all), of all modalities, by hash, are fitted, with their validation and refit as ``pmrl fit``
does it; nothing else of them is seen. MRR is the mean over ordered pairs of modalities on all test instances; each
method's is over that of the default fit of the same instances: geometric mean over sets and seeds, and least.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from quality import GROUPS

from pmrl_cli import Aligner, read_dataset
from pmrl_cli.data.split import TEST, SplitRule, split_instances
from pmrl_cli.retrieval.relevance import Relevance
from pmrl_cli.train.heldout import held_out_retrieval

APART = 1000
"""Added to a seed: the hash that keeps instances for test would leave a fit of the others none to validate on."""

METHODS: dict[str, dict[str, Any]] = {
    "default": {},
    "neighbourhood 1": {"terms": {"neighbourhood": 1.0}},
    "siglip": {"objective": "siglip"},
    "plan 1": {"terms": {"plan": 1.0}},
}
"""Settings of ``Aligner``, by name."""


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--pairs", type=int, nargs="+", default=[0, 300, 100])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[tuple[str, int], list[float]] = {}
    for folder in arguments.sets:
        for seed in range(arguments.seeds):
            for pairs in arguments.pairs:
                base = 0.0
                for name, settings in METHODS.items():
                    mrr = _measure(folder, seed, pairs, settings)
                    base = base or mrr
                    found.setdefault((name, pairs), []).append(mrr / base)
                    print(f"{folder.name} {seed} {pairs or 'all'} {name}: {mrr:.4f}", flush=True)
    head = " | ".join(f"{pairs or 'all'} pairs | least" for pairs in arguments.pairs)
    print(f"\n| method | {head} |\n|{'---|' * (1 + 2 * len(arguments.pairs))}")
    for name in METHODS:
        each = [found[name, pairs] for pairs in arguments.pairs]
        cells = " | ".join(f"{np.exp(np.mean(np.log(ratios))):.3f} | {min(ratios):.3f}" for ratios in each)
        print(f"| {name} | {cells} |")


def _measure(folder: Path, seed: int, pairs: int, settings: dict[str, Any]) -> float:
    """Return the test MRR of a fit on some pairs."""
    dataset = read_dataset([str(folder)])
    group = GROUPS.get(folder.name)
    parts = split_instances(dataset, SplitRule(seed, 0.2, 0.2, group))
    test, rest = np.flatnonzero(parts == TEST), np.flatnonzero(parts != TEST)
    rest = rest[dataset.present[rest].all(axis=1)]
    chosen = dataset.smallest_by_hash(rest, pairs or len(rest), seed)
    arrays = {name: features.read(chosen) for name, features in zip(dataset.names, dataset.modalities, strict=True)}
    ids = dataset.ids.take(chosen).to_pylist()
    columns = {} if group is None else {group: dataset.columns[group].take(chosen).to_pylist()}
    aligner = Aligner(seed=APART + seed, validation=0.2, test=0.0, group=group, device="cpu", **settings)
    embedded = aligner.fit(arrays, ids, columns=columns).embed_dataset(dataset, test)
    vectors = torch.from_numpy(np.stack([features.read(slice(0, len(test))) for features in embedded.modalities], 1))
    relevance = Relevance.of(dataset).take(test)
    return held_out_retrieval(vectors, torch.from_numpy(dataset.present[test]), None, relevance).mrr


if __name__ == "__main__":
    main()
