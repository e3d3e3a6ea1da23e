"""Protein of tcga_brca from expression, methylation and miRNA: mvae beside ridge regression and nearest neighbours.

    PYTHONPATH=. python benchmarks/systems/mvae.py SET [--target protein] [--seeds 5]

A third of the instances that have the target lose it; the model is fitted on all instances, without what was taken
away. Ridge and neighbours are fitted on the instances that keep it; strength and number are chosen by the error on a
fifth of those. R2 is over all columns of the standardised target, beside the mean of those that keep it.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import arrays_of, interval, load, ridge, unit

from pmrl_cli import Aligner
from pmrl_cli.data.arrays import dataset_from_arrays

STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
NUMBERS = (3, 5, 10, 20)

Array = np.ndarray


def nearest(seen: np.ndarray, wanted: np.ndarray, asked: np.ndarray, number: int) -> Array:
    """Return the mean of the nearest instances by cosine of standardised columns."""
    middle, spread = seen.mean(0), seen.std(0).clip(1e-9)
    scores = unit((asked - middle) / spread) @ unit((seen - middle) / spread).T
    return wanted[np.argsort(-scores, axis=1)[:, :number]].mean(1)


def chosen(
    method: Callable[[Array, Array, Array, Any], Array],
    values: Sequence[float],
    train: tuple[Array, Array],
    asked: Array,
) -> Array:
    """Return predictions at the setting whose error on a fifth of the training instances is least."""
    seen, wanted = train
    fold = np.arange(len(seen)) % 5 == 0
    errors = [
        np.square(method(seen[~fold], wanted[~fold], seen[fold], value) - wanted[fold]).sum() for value in values
    ]
    return method(seen, wanted, asked, values[int(np.argmin(errors))])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("set", type=Path)
    parser.add_argument("--target", default="protein")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--steps", type=int)
    asked = parser.parse_args()
    dataset = load(asked.set)
    arrays = arrays_of(dataset)
    target = dataset.names.index(asked.target)
    has = np.flatnonzero(dataset.present.all(axis=1))
    others = np.concatenate([values for name, values in arrays.items() if name != asked.target], axis=1).astype(float)
    explained: dict[str, list[float]] = {}
    by_instance: dict[str, list[np.ndarray]] = {}
    seconds, within = [], []
    for seed in range(asked.seeds):
        order = np.random.default_rng(seed).permutation(has)
        test, train = np.sort(order[: len(has) // 3]), np.sort(order[len(has) // 3 :])
        truth = arrays[asked.target].astype(float)
        middle, spread = truth[train].mean(0), truth[train].std(0).clip(1e-9)
        standard = (truth - middle) / spread
        found = {
            "mean of the training instances": np.zeros_like(standard[test]),
            "nearest neighbours": chosen(nearest, NUMBERS, (others[train], standard[train]), others[test]),
            "ridge": chosen(ridge, STRENGTHS, (others[train], standard[train]), others[test]),
        }
        given = {name: values.copy() for name, values in arrays.items()}
        given[asked.target][test] = np.nan
        without = dataset_from_arrays(given, dataset.ids.to_pylist(), None)
        began = time.process_time()
        aligner = Aligner(objective="mvae", seed=seed, test=0.0, steps=asked.steps).fit(without)
        seconds.append(time.process_time() - began)
        blocks = list(aligner.impute(without))
        predicted, deviation = (
            np.concatenate([getattr(block.imputed, part)[target] for block in blocks])[test]
            for part in ("features", "deviations")
        )
        found["mvae"] = (predicted - middle) / spread
        within.append(np.mean(np.abs(predicted - truth[test]) < deviation))
        found["ridge and mvae, mean"] = (found["ridge"] + found["mvae"]) / 2
        total = np.square(standard[test]).sum(1)
        for name, values in found.items():
            errors = np.square(values - standard[test]).sum(1)
            explained.setdefault(name, []).append(1 - errors.sum() / total.sum())
            by_instance.setdefault(name, []).append((errors, total))
    print(f"{asked.set.name}, {asked.target} of {len(has)} instances, a third taken away, {asked.seeds} seeds")
    for name, values in explained.items():
        errors, total = (np.concatenate([pair[i] for pair in by_instance[name]]) for i in (0, 1))
        generator, draws = np.random.default_rng(0), []
        for _ in range(2000):
            rows = generator.integers(0, len(errors), len(errors))
            draws.append(1 - errors[rows].sum() / total[rows].sum())
        low, high = np.quantile(draws, [0.025, 0.975])
        print(f"| {name} | {np.mean(values):.3f} | {low:.3f} to {high:.3f} |")
    pairs = zip(by_instance["ridge"], by_instance["mvae"], strict=True)
    gains = np.concatenate([(r[0] - m[0]) / r[1].mean() for r, m in pairs])
    print("mvae over ridge, R2 points: {:+.3f} ({:+.3f} to {:+.3f})".format(*interval(gains)))
    print(f"within one standard deviation {np.mean(within):.3f} (.683 of a Gaussian), fit {np.mean(seconds):.0f} s")


if __name__ == "__main__":
    main()
