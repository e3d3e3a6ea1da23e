"""ARM: the information of each modality of real sets on a label, and what ARM changes of that.

    python benchmarks/systems/arm.py SET [SET ...] [--seeds 3]

First ``contribution`` of the features (of the test part alone, where features were learned with the labels of the
training part: mosi). Then fits of ``infonce`` and ``arm`` (one member, 300 steps), on the set's own split: accuracy
of a ridge classifier on the test part, by modality and fused, the mean over seeds with 95 % intervals of the paired
difference (test instances, or their groups, redrawn), held-out MRR, and seconds.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from sets import GROUPS, groups_of, interval, read_set, ridge_hits, rows_of, text

from pmrl_cli import Aligner
from pmrl_cli.data.columns import codes_of, column_of
from pmrl_cli.diagnosis.contribution import contribution_section
from pmrl_cli.stats.statistic import plain

TARGETS = {"tcga_brca": ("pam50", "label")}


def contributions(folder: Path) -> None:
    dataset = read_set(folder)
    if folder.name == "mosi":
        dataset = rows_of(dataset, np.flatnonzero(np.array(column_of(dataset, "split").to_pylist()) == "test"))
    for target in TARGETS.get(folder.name, ("label",)):
        found = plain(contribution_section(dataset, target, GROUPS.get(folder.name)))
        print(f"\n{folder.name}, {target}: {found['all']['n']} instances, entropy {found['entropy']:.3f} nats\n")
        print("| modality | alone | conditional | shapley |\n|---|---|---|---|")
        for name, row in found["modality"].items():
            cells = [(row[k]["value"], *row[k]["ci"]) for k in ("alone", "conditional", "shapley")]
            print(f"| {name} | {' | '.join(text(c) for c in cells)} |")
        print(f"| all | {text((found['all']['value'], *found['all']['ci']))} | | |")


def fits(folder: Path, seeds: int) -> None:
    dataset = read_set(folder)
    classes, groups = codes_of(dataset, "label"), groups_of(folder, dataset)
    part = np.array(column_of(dataset, "split").to_pylist())
    test = np.flatnonzero((part == "test") & dataset.present.all(1))
    train = np.flatnonzero((part != "test") & dataset.present.all(1))
    hits: dict[str, list[list[np.ndarray]]] = {}
    about: dict[str, list[tuple[float, float]]] = {}
    for seed in range(seeds):
        for objective in ("infonce", "arm"):
            asked = {"target": "label"} if objective == "arm" else {}
            aligner = Aligner(
                objective=objective,
                adapter="mlp",
                dropout=0.5,
                dim=32,
                steps=300,
                refit=False,
                seed=seed,
                split_column="split",
                group=GROUPS.get(folder.name),
                **asked,
            )
            began = time.process_time()
            aligner.fit(dataset)
            seconds = time.process_time() - began
            blocks = list(aligner.embed(dataset))
            vectors = np.concatenate([b.embeddings for b in blocks]).astype(float)
            fused = np.concatenate([b.fused for b in blocks]).astype(float)
            spaces = [*vectors.swapaxes(0, 1), fused]
            hits.setdefault(objective, []).append([ridge_hits(s, classes, train, test) for s in spaces])
            mrr = json.loads(aligner.texts["metrics.json"])["held_out.mrr"]
            about.setdefault(objective, []).append((mrr, seconds))
    print(f"\n{folder.name}: accuracy on {len(test)} test instances, {seeds} seeds\n")
    print("| vectors | infonce | arm | difference |\n|---|---|---|---|")
    means = {o: np.mean([list(run) for run in runs], axis=0) for o, runs in hits.items()}
    for i, name in enumerate([*dataset.names, "fused"]):
        row = [means[o][i] for o in ("infonce", "arm")]
        cells = " | ".join(f"{r.mean():.3f}" for r in row)
        print(f"| {name} | {cells} | {text(interval(row[1] - row[0], groups[test]))} |")
    for i, name in enumerate(("held-out MRR", "seconds")):
        print(
            f"| {name} | "
            + " | ".join(f"{np.mean([a[i] for a in about[o]]):.3f}" for o in ("infonce", "arm"))
            + " | |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=("contribution", "fits"))
    asked = parser.parse_args()
    for folder in asked.sets:
        if asked.only != "fits":
            contributions(folder)
        if asked.only != "contribution":
            fits(folder, asked.seeds)


if __name__ == "__main__":
    main()
