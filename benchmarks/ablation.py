"""What each candidate of a default fit is worth: how often it is chosen, and what leaving it out costs.

    python benchmarks/ablation.py SET [SET ...] [--seeds 1]

A SET is a folder of feature files, or the name of a kind of ``nonlinear.py``. Validation .2, test .2, by hash (groups
as in ``quality.GROUPS``), without a refit: a search without one of its candidates is made of those that are left. For
each candidate: in how many searches it was tried, was best alone on validation, and was among the members; its share
of the CPU seconds of all candidates; and the test MRR of the members that validation chooses without it, over that of
all: mean and least, 0 where nothing is left. Closed forms are solved before and not counted; a race without it could
stop others later.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nonlinear import KINDS, simulated
from quality import GROUPS
from torch import Tensor

from pmrl_cli import read_dataset
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.split import TEST
from pmrl_cli.fit.context import Hooks, Machine, open_context
from pmrl_cli.fit.plan import make_plan
from pmrl_cli.fit.search import IN_FULL, Candidate, choose_members, run_candidates
from pmrl_cli.model.members import Member, side_by_side
from pmrl_cli.retrieval.relevance import Relevance
from pmrl_cli.train.heldout import held_out_retrieval
from pmrl_cli.train.settings import FitSettings


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    counts: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    seconds: dict[str, float] = defaultdict(float)
    ratios: dict[str, list[float]] = defaultdict(list)
    for name in arguments.sets:
        for seed in range(arguments.seeds):
            _measure(name, seed, counts, seconds, ratios)
    print("| candidate | tried | best alone | member | CPU | without it | least |\n|---|---|---|---|---|---|---|")
    for name, count in counts.items():
        mean = np.mean(ratios[name])
        print(
            f"| {name} | {count['tried']} | {count['best']} | {count['member']} "
            f"| {seconds[name] / sum(seconds.values()):.0%} | {mean:.3f} | {min(ratios[name]):.3f} |"
        )


def _measure(
    name: str,
    seed: int,
    counts: dict[str, dict[str, int]],
    seconds: dict[str, float],
    ratios: dict[str, list[float]],
) -> None:
    """Search once, and add what it says of each candidate."""
    dataset = simulated(name, 2600, seed) if name in KINDS else read_dataset([name], join="outer")
    began: list[tuple[float, str]] = []
    hooks = Hooks(candidate=lambda _number, _count, which: began.append((time.process_time(), which)))
    settings = FitSettings(seed=seed, validation=0.2, test=0.2, refit=False, group=GROUPS.get(Path(name).name))
    machine = Machine(device="cpu")
    ctx = open_context(dataset, settings, machine=machine, excluded=None, checkpoint=None, hooks=hooks, base=None)
    plan = make_plan(ctx)
    tried, _, _ = run_candidates(ctx, plan)
    ends = [*(at for at, _ in began[1:]), time.process_time()]
    for (at, which), end in zip(began, ends, strict=True):
        seconds[which.removesuffix(IN_FULL)] += end - at
    held = plan.validation
    present = torch.from_numpy(ctx.dataset.present[held.rows])
    judge = np.flatnonzero((ctx.parts == TEST) & ctx.trainable)
    tests = [_embedded(c, ctx.dataset, judge) for c in tried]
    relevance = Relevance.of(ctx.dataset, None).take(judge)

    # A run whose best was its start is that start.
    useful = [i for i, c in enumerate(tried) if c.recipe.name.endswith("start") or c.recipe.best.step]

    def quality(useful: list[int]) -> tuple[float, list[int]]:
        chosen = [useful[i] for i in choose_members([tried[i].embedded for i in useful], present, held.relevance)]
        vectors = side_by_side([tests[i] for i in chosen])
        return held_out_retrieval(vectors, torch.from_numpy(ctx.dataset.present[judge]), None, relevance).mrr, chosen

    whole, members = quality(useful)
    best = max(useful, key=lambda i: tried[i].recipe.best.mrr)
    print(f"{name} {seed}: test MRR {whole:.4f} of {', '.join(tried[i].recipe.name for i in members)}", flush=True)
    for i, candidate in enumerate(tried):
        which = candidate.recipe.name.removesuffix(IN_FULL)
        count = counts[which]
        count["tried"] += 1
        count["best"] += i == best
        count["member"] += i in members
        others = [j for j in useful if j != i]
        ratios[which].append(quality(others)[0] / whole if others else 0.0)


def _embedded(candidate: Candidate, dataset: Dataset, rows: np.ndarray[Any, Any]) -> Tensor:
    """Return the vectors of some instances."""
    features = [modality.read(rows) for modality in dataset.modalities]
    member = Member(candidate.data.projections, candidate.trained.encoder)
    with torch.no_grad():
        vectors: Tensor = member.embed(
            range(len(features)), features, torch.from_numpy(dataset.present[rows])
        ).vectors
    return vectors


if __name__ == "__main__":
    main()
