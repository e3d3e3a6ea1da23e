"""Retrieval of one modality from the others, fused by their leading direction or by the candidate's weights.

    python benchmarks/fusion.py SET [SET ...] [--method pmrl] [--temperatures .05,.1,.2] [--models FOLDER]

A SET is a folder of feature files with a labels.parquet and three modalities or more. Each is fitted once by a method
of quality.py (test .2, seed 0; rows of one object or video on one side) and asked on its test instances. A difference
is paired: that of the reciprocal ranks of the same query, averaged over queries and directions; its interval is from
1,000 bootstrap draws of the instances or groups. ``--models`` keeps the fits, or takes those that are there.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
from quality import GROUPS, settings_of

from pmrl_cli import Aligner, fusion, read_dataset
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.links import links_of
from pmrl_cli.retrieval.intervals import Sample, interval, resample
from pmrl_cli.retrieval.metrics import reciprocal_ranks
from pmrl_cli.retrieval.ranks import OTHERS, rank_dataset


def fused_ranks(dataset: Dataset, method: str, temperature: float) -> dict[str, np.ndarray]:
    """Return, by direction, the rows that ask and their reciprocal ranks."""
    with mock.patch.object(fusion, "WEIGHT_TEMPERATURE", temperature):
        found = rank_dataset(dataset, np.flatnonzero(dataset.present.sum(1) >= 2), fusion=method)
    return {d: (ranks.rows, reciprocal_ranks(ranks)) for d, ranks in found.items() if d.startswith(OTHERS)}


def main() -> None:
    """Print one table, rows as they are done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", type=Path)
    parser.add_argument("--method", default="pmrl", help="a file in benchmarks/methods")
    parser.add_argument("--temperatures", default=".05,.1,.2", help="separated by commas and no space")
    parser.add_argument("--models", type=Path, default=Path(tempfile.mkdtemp()))
    arguments = parser.parse_args()
    print("| set | queries | leading | temperature | weighted | difference | 95 % |\n|---|---|---|---|---|---|---|")
    for folder in arguments.sets:
        data = read_dataset([str(folder)], join="outer")
        group = GROUPS.get(folder.name)
        model = arguments.models / arguments.method / folder.name
        if not model.exists():
            Aligner(**settings_of(arguments.method), test=0.2, seed=0, group=group).fit(data).save(model)
        aligner = Aligner.load(model)
        rows, _ = aligner.rows(data, "test")
        dataset = aligner.embed_dataset(data, rows)
        codes = links_of(dataset, group=group).dependent
        _, groups = np.unique(codes, return_inverse=True)
        leading = fused_ranks(dataset, "leading", fusion.WEIGHT_TEMPERATURE)
        base = np.mean([values.mean() for _, values in leading.values()])
        for temperature in map(float, arguments.temperatures.split(",")):
            weighted = fused_ranks(dataset, "weighted", temperature)
            samples = {
                direction: Sample(groups[asking], {"MRR": weighted[direction][1] - values})
                for direction, (asking, values) in leading.items()
            }
            draws = resample(samples, int(groups.max()) + 1, draws=1000, seed=0)
            low, high = interval(np.mean(list(draws.values()), axis=0))
            gain = np.mean([sample.values()["MRR"] for sample in samples.values()])
            queries = sum(len(asking) for asking, _ in leading.values())
            print(
                f"| {folder.name} | {queries} | {base:.4f} | {temperature:g} | {base + gain:.4f} | {gain:+.4f} "
                f"| {low:+.4f} .. {high:+.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
