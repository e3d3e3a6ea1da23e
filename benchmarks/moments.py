"""Rows of the moments pass: what a closed form takes from the features, against an epoch of training on them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import torch
from rows import Call, Row, Run, in_turn, row_of
from step import DIM, DIMS, training_step

from pmrl_cli.closed_form.columns import COMPONENTS, ProjectionFitter
from pmrl_cli.closed_form.projected import project
from pmrl_cli.closed_form.projection import FeatureMap
from pmrl_cli.data.dataset import Dataset, Features
from pmrl_cli.files.durable.scratch import Scratch
from pmrl_cli.methods import make_method
from pmrl_cli.terms.weighted import WeightedTerms

BATCH = 1024
STEPS = 20
"""Of an epoch that are timed, and scaled."""

ROWS = 4096
"""Of a block of the floor's products."""


def moments_pass(dataset: Dataset) -> None:
    """Fit projections, project every instance, take the moments across modalities: all a closed form asks for."""
    rows = np.arange(len(dataset))
    projections = ProjectionFitter(dataset, rows, seed=0).fit(FeatureMap("linear", squash=False))
    project(dataset, rows, rows, projections, cross=True, scratch=Scratch())


def products(arrays: Sequence[np.ndarray]) -> None:
    """Do the pass's matrix products alone: each modality with itself and onto its axes, scores with themselves."""
    axes = [np.zeros((array.shape[1], min(COMPONENTS, array.shape[1])), np.float32) for array in arrays]
    stacked = np.ones((ROWS, sum(one.shape[1] for one in axes)), np.float32)
    for start in range(0, len(arrays[0]), ROWS):
        for array, one in zip(arrays, axes, strict=True):
            block = array[start : start + ROWS]
            block.T @ block
            block @ one
        few = stacked[: len(block)]
        few.T @ few


def repeated(step: Call) -> None:
    """Take some steps."""
    for _ in range(STEPS):
        step()


def moments_rows(run: Run) -> Iterator[Row]:
    """Yield a row for each number of instances, of standard normal float32 features in memory."""
    generator = np.random.default_rng(0)
    for count in (10_000,) if run.quick else (100_000, 300_000):
        arrays = [generator.standard_normal((count, width), dtype=np.float32) for width in DIMS]
        dataset = Dataset(
            pa.array(map(str, range(count)), pa.large_string()),
            tuple(Features(f"m{i}", array) for i, array in enumerate(arrays)),
            np.ones((count, len(DIMS)), bool),
        )
        scores = [torch.from_numpy(array) for array in arrays]
        calls: dict[str, Call] = {"ours": partial(moments_pass, dataset), "floor": partial(products, arrays)}
        for name in ("pmrl-paper", "pmrl"):
            step = training_step(scores, WeightedTerms(make_method(name, {}).terms()), dim=DIM, batch=BATCH)
            calls[f"an epoch of {name}"] = partial(repeated, step)
        found = in_turn(calls, repeats=1 if run.quick else 3, warm=False, timer=run.timer)
        for name in calls:
            if name.startswith("an epoch"):
                found[name] *= count / (BATCH * STEPS)
        yield row_of(f"{count:,} x ({', '.join(map(str, DIMS))})", found)
