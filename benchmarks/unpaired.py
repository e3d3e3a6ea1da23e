"""What rows without a known partner gain beside few pairs: pseudo-pairs, and the transport plan of SOTAlign.

    python benchmarks/unpaired.py SET [SET ...] [--seeds 2] [--pairs 300 100]

A SET is a folder of feature files. A fifth is kept for test by hash (groups as in ``quality.GROUPS``); of the others
as many pairs as asked for are kept, by hash; of the rest, 4,000 at most, each modality is shuffled by itself. All
figures are test MRR (mean over ordered pairs of modalities) over that of a fit on the pairs alone:

* ``default`` and ``fast``: that fit, with the mutual nearest neighbours of the unpaired rows in its space (CSLS, ten
  neighbours) as further training instances of two modalities each, and the same fit again. ``right`` is the share of
  them that belong together.
* ``plan``: residual MLPs (256 units, dropout .3) on the vectors of the default fit, 200 steps of InfoNCE on 128 pairs
  (temperature .07) and of ``plan_divergence`` between 128 unpaired rows of two modalities, the fit being the teacher;
  ``InfoNCE`` is the same without the second term.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pairs import APART
from quality import GROUPS
from torch import Tensor, nn
from torch.nn import functional

from pmrl_cli import Aligner, read_dataset
from pmrl_cli.data.arrays import dataset_from_arrays
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.split import TEST, TRAIN, SplitRule, split_instances
from pmrl_cli.retrieval.relevance import Relevance
from pmrl_cli.terms.teacher_plan import plan_divergence
from pmrl_cli.train.heldout import held_out_retrieval

MOST, NEIGHBOURS, DRAWN, STEPS, TEMPERATURE = 4000, 10, 128, 200, 0.07

Rows = np.ndarray[Any, Any]


class Kept(NamedTuple):
    """A set with few pairs: rows of test, of the pairs, and per modality of what is unpaired."""

    dataset: Dataset
    group: str | None
    test: Rows
    paired: Rows
    unpaired: list[Rows]

    @classmethod
    def of(cls, folder: Path, pairs: int, seed: int) -> Kept:
        """Read a set."""
        dataset, group = read_dataset([str(folder)]), GROUPS.get(folder.name)
        parts = split_instances(dataset, SplitRule(seed, 0.2, 0.2, group))
        rest = np.flatnonzero(parts != TEST)
        rest = rest[dataset.present[rest].all(axis=1)]
        paired = dataset.smallest_by_hash(rest, pairs, seed)
        rng = np.random.default_rng(seed)
        pool = rng.permutation(np.setdiff1d(rest, paired))[:MOST]
        return cls(
            dataset, group, np.flatnonzero(parts == TEST), paired, [rng.permutation(pool) for _ in dataset.names]
        )

    def read(self, m: int, rows: Rows) -> Rows:
        """Return the features of some rows, in their order."""
        order = np.argsort(rows, kind="stable")
        found = np.empty((len(rows), self.dataset.modalities[m].dim), dtype=np.float32)
        found[order] = self.dataset.modalities[m].read(rows[order])
        return found

    def mrr(self, vectors: Tensor) -> float:
        """Return the test MRR of the (n, K, d) vectors of the test rows."""
        relevance = Relevance.of(self.dataset).take(self.test)
        return held_out_retrieval(vectors, torch.from_numpy(self.dataset.present[self.test]), None, relevance).mrr


def embedded(aligner: Aligner, kept: Kept, rows: Rows) -> Tensor:
    """Return the (n, K, d) vectors of ascending rows."""
    found = aligner.embed_dataset(kept.dataset, rows)
    return torch.from_numpy(np.stack([f.read(slice(0, len(rows))) for f in found.modalities], 1))


def fitted(kept: Kept, seed: int, settings: dict[str, Any]) -> tuple[Aligner, Dataset]:
    """Fit the pairs alone."""
    columns = (
        {} if kept.group is None else {kept.group: kept.dataset.columns[kept.group].take(kept.paired).to_pylist()}
    )
    arrays = {name: kept.read(m, kept.paired) for m, name in enumerate(kept.dataset.names)}
    data = dataset_from_arrays(arrays, kept.dataset.ids.take(kept.paired).to_pylist(), columns)
    return Aligner(seed=APART + seed, validation=0.2, test=0.0, group=kept.group, device="cpu", **settings).fit(
        data
    ), data


def _nearest(cosines: Tensor, count: int, axis: int) -> Tensor:
    return cosines.topk(count, axis).values.mean(axis, keepdim=True)


def mutual_neighbours(first: Tensor, second: Tensor) -> tuple[Rows, Rows]:
    """Return the positions of those that are each other's nearest, by CSLS."""
    cosines = first @ second.T
    near = min(NEIGHBOURS, *cosines.shape)
    scores = 2 * cosines - _nearest(cosines, near, 1) - _nearest(cosines, near, 0)
    forth, back = scores.argmax(1), scores.argmax(0)
    mutual = (back[forth] == torch.arange(len(forth))).nonzero()[:, 0]
    return mutual.numpy(), forth[mutual].numpy()


def with_pseudo_pairs(kept: Kept, seed: int, settings: dict[str, Any]) -> tuple[float, float, float]:
    """Return the test MRR of the pairs, that with pseudo-pairs, and the share of these that are right."""
    base, data = fitted(kept, seed, settings)
    names = kept.dataset.names
    unpaired = [kept.read(m, rows) for m, rows in enumerate(kept.unpaired)]
    vectors = [torch.from_numpy(np.asarray(base.transform({n: x})[n])) for n, x in zip(names, unpaired, strict=True)]
    arrays = [[kept.read(m, kept.paired)] for m in range(len(names))]
    right: list[Rows] = []
    for a, b in combinations(range(len(names)), 2):
        of_a, of_b = mutual_neighbours(vectors[a], vectors[b])
        right.append(kept.unpaired[a][of_a] == kept.unpaired[b][of_b])
        for m, parts in enumerate(arrays):
            taken = {a: of_a, b: of_b}.get(m)
            absent = np.full((len(of_a), unpaired[m].shape[1]), np.nan, dtype=np.float32)
            parts.append(absent if taken is None else unpaired[m][taken])
    parts_of = split_instances(data, SplitRule(APART + seed, 0.2, 0.0, kept.group))
    more = sum(map(len, right))
    ids = [*data.ids.to_pylist(), *(f"pseudo {i}" for i in range(more))]
    column = ["train" if part == TRAIN else "validation" for part in parts_of] + ["train"] * more
    again = Aligner(seed=APART + seed, split_column="part", device="cpu", **settings)
    again.fit({n: np.concatenate(x) for n, x in zip(names, arrays, strict=True)}, ids, columns={"part": column})
    before, after = (kept.mrr(embedded(one, kept, kept.test)) for one in (base, again))
    return before, after, float(np.concatenate(right).mean())


class Student(nn.Module):
    """Residual MLPs on the teacher's vectors, one a modality, that start at nothing."""

    def __init__(self, modalities: int, dim: int) -> None:
        super().__init__()
        self.each = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, 256), nn.GELU(), nn.Dropout(0.3), nn.Linear(256, dim))
            for _ in range(modalities)
        )
        for network in self.each:
            nn.init.zeros_(network[3].weight)  # type: ignore[index]
            nn.init.zeros_(network[3].bias)  # type: ignore[index]

    def forward(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """Return the unit vectors of each modality."""
        return [functional.normalize(v + net(v), dim=1) for v, net in zip(vectors, self.each, strict=True)]


def student(kept: Kept, base: Aligner, seed: int, *, plan: float) -> float:
    """Return the test MRR of a student of the fit on the pairs."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    names = kept.dataset.names
    pairs, test = embedded(base, kept, np.sort(kept.paired)), embedded(base, kept, kept.test)
    pool = [
        torch.from_numpy(np.asarray(base.transform({n: kept.read(m, rows)})[n]))
        for m, (n, rows) in enumerate(zip(names, kept.unpaired, strict=True))
    ]
    network = Student(len(names), pairs.shape[2])
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-4, weight_decay=0.01)
    combined = list(combinations(range(len(names)), 2))
    for _ in range(STEPS):
        drawn = torch.from_numpy(rng.permutation(len(pairs))[:DRAWN])
        vectors = network(pairs[drawn].unbind(1))
        own = torch.arange(len(drawn))
        losses = []
        for a, b in combined:
            logits = vectors[a] @ vectors[b].T / TEMPERATURE
            losses.append(functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own))
        loss = torch.stack(losses).mean()
        if plan:
            a, b = combined[rng.integers(len(combined))]
            teacher = [x[torch.from_numpy(rng.permutation(len(x))[:DRAWN])] for x in pool]
            learned = network(teacher)
            loss = loss + plan * plan_divergence(learned[a] @ learned[b].T, teacher[a] @ teacher[b].T)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.eval()
    with torch.no_grad():
        return kept.mrr(torch.stack(network(test.unbind(1)), 1))


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", type=Path)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--pairs", type=int, nargs="+", default=[300, 100])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print("| set | pairs | seed | MRR, default | fast | right | default | right | InfoNCE | plan |")
    print(f"|{'---|' * 10}")
    ratios: list[list[float]] = []
    for folder in arguments.sets:
        for pairs in arguments.pairs:
            for seed in range(arguments.seeds):
                kept = Kept.of(folder, pairs, seed)
                fast = with_pseudo_pairs(kept, seed, {"fast": True})
                whole = with_pseudo_pairs(kept, seed, {})
                base, _ = fitted(kept, seed, {})
                students = [student(kept, base, seed, plan=plan) / whole[0] for plan in (0.0, 1.0)]
                ratios.append([fast[1] / fast[0], whole[1] / whole[0], *students])
                print(
                    f"| {folder.name} | {pairs} | {seed} | {whole[0]:.4f} | {ratios[-1][0]:.3f} | {fast[2]:.3f} "
                    f"| {ratios[-1][1]:.3f} | {whole[2]:.3f} | {students[0]:.3f} | {students[1]:.3f} |",
                    flush=True,
                )
    table = np.array(ratios)
    mean, least = np.exp(np.log(table).mean(axis=0)), table.min(axis=0)
    for name, row in (("geometric mean", mean), ("least", least)):
        print(f"| {name} | | | | {row[0]:.3f} | | {row[1]:.3f} | | {row[2]:.3f} | {row[3]:.3f} |")


if __name__ == "__main__":
    main()
