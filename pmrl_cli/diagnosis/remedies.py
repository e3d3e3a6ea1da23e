"""The remedies that are measured: each ranks the same queries without and with it.

What a remedy learns (means, neighbours, an adapter) it learns from the half of the instances that is not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import combinations, permutations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pmrl_cli.diagnosis.gap import mixed_ranks
from pmrl_cli.diagnosis.linear import fit_linear
from pmrl_cli.diagnosis.probe import third_of
from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.retrieval.ranks import Ranks, rank_batch
from pmrl_cli.retrieval.similarity import nearest_cosines
from pmrl_cli.spectrum import leave_one_out_directions
from pmrl_cli.stats.consensus import NEIGHBOURS, centre, modality_means

__all__ = ["Remedy", "remedies_for"]

Groups = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


class Remedy(NamedTuple):
    """A remedy.

    Args:
        action: its name; see ``Counterfactual``.
        subject: the modality that is dropped; else empty.
        kind: of R@1 it is measured by: ``""``, ``"mixed "`` or ``"fused "``.
        ranks: (the half that is measured, the half that may be learned from) -> ranks without and with it, by
            direction; the rows of the ranks count the instances of the half.
    """

    action: str
    subject: tuple[str, ...]
    kind: str
    ranks: Callable[[Batch, Batch], Iterator[tuple[Ranks, Ranks]]]


def remedies_for(names: Sequence[str], groups: Groups, *, clean: Mask | None, seed: int) -> list[Remedy]:
    """Return the remedies to try.

    Args:
        names: of the modalities.
        groups: (B,) group of every instance.
        clean: (B,) which instances are no suspects; None if none is.
        seed: of the choice of the ridge.
    """
    remedies = [
        Remedy("centre", (), "", _centre),
        Remedy("centre", (), "mixed ", _centre_mixed),
        Remedy("csls", (), "", _csls),
        Remedy("linear", (), "", partial(_linear, groups=groups, seed=seed)),
    ]
    if len(names) > 2:
        remedies += [
            Remedy("drop_modality", (name,), "fused ", partial(_without, modality=m)) for m, name in enumerate(names)
        ]
    if clean is not None:
        remedies.append(Remedy("drop_suspects", (), "", partial(_unsuspected, clean=clean, groups=groups, seed=seed)))
    return remedies


def _ranked(batch: Batch) -> dict[str, Ranks]:
    local = Batch(np.arange(len(batch.rows)), batch.embeddings, batch.present)
    return rank_batch(local, tuple(map(str, range(batch.present.shape[1]))), fused=False)


def _paired(before: dict[str, Ranks], after: dict[str, Ranks]) -> Iterator[tuple[Ranks, Ranks]]:
    return ((ranks, after[name]) for name, ranks in before.items())


def _centre(own: Batch, other: Batch) -> Iterator[tuple[Ranks, Ranks]]:
    return _paired(_ranked(own), _ranked(centre(own, modality_means(other))))


def _centre_mixed(own: Batch, other: Batch) -> Iterator[tuple[Ranks, Ranks]]:
    """Ask among the candidates of both modalities of a pair."""
    moved = centre(own, modality_means(other))
    for a, b in permutations(range(own.present.shape[1]), 2):
        rows = np.flatnonzero(own.present[:, [a, b]].all(1).numpy())
        if len(rows):
            before, after = (mixed_ranks(one.embeddings[rows, a], one.embeddings[rows, b])[1] for one in (own, moved))
            yield before._replace(rows=rows), after._replace(rows=rows)


def _csls(own: Batch, other: Batch) -> Iterator[tuple[Ranks, Ranks]]:
    """Cross-domain similarity local scaling, the neighbours of the other half.

    Source: Conneau et al., "Word translation without parallel data", ICLR 2018.
    """
    means = modality_means(other)
    own, other = centre(own, means), centre(other, means)
    before = _ranked(own)
    for a, b in combinations(range(own.present.shape[1]), 2):
        known = other.present[:, [a, b]].all(1)
        first, second = other.embeddings[known, a], other.embeddings[known, b]
        near_a, near_b = _nearness(own.embeddings[:, a], second), _nearness(own.embeddings[:, b], first)
        one = torch.ones_like(near_a)
        # x.y less half of both: an inner product of vectors two columns longer.
        scaled = torch.stack(
            [
                torch.cat([own.embeddings[:, a], one, -near_a / 2], 1),
                torch.cat([own.embeddings[:, b], -near_b / 2, one], 1),
            ],
            1,
        )
        after = _ranked(Batch(own.rows, scaled, own.present[:, [a, b]]))
        for way, name in (("0->1", f"{a}->{b}"), ("1->0", f"{b}->{a}")):
            if name in before:
                yield before[name], after[way]


def _nearness(vectors: Tensor, others: Tensor) -> Tensor:
    """Return (B, 1) mean cosines with the nearest others."""
    if len(others) == 0:
        return torch.zeros(len(vectors), 1)
    return nearest_cosines(vectors, others, min(NEIGHBOURS, len(others)))[0].mean(1, keepdim=True)


def _adapted(own: Batch, other: Batch, groups: Groups, seed: int) -> Batch:
    """Return the half as a linear adapter fitted on the other puts it."""
    vectors, present = other.embeddings.numpy(), other.present.numpy()
    modalities = range(present.shape[1])
    adapter = fit_linear([vectors[:, m] for m in modalities], present, third_of(groups[other.rows], seed))
    own_vectors = own.embeddings.numpy()
    return adapter.embed([own_vectors[:, m] for m in modalities], own.present.numpy())


def _linear(own: Batch, other: Batch, groups: Groups, seed: int) -> Iterator[tuple[Ranks, Ranks]]:
    return _paired(_ranked(own), _ranked(_adapted(own, other, groups, seed)))


def _unsuspected(own: Batch, other: Batch, clean: Mask, groups: Groups, seed: int) -> Iterator[tuple[Ranks, Ranks]]:
    kept = clean[other.rows]
    trusted = Batch(other.rows[kept], other.embeddings[kept], other.present[kept])
    return _paired(*(_ranked(_adapted(own, fit, groups, seed)) for fit in (other, trusted)))


def _without(own: Batch, other: Batch, modality: int) -> Iterator[tuple[Ranks, Ranks]]:
    """Ask with the other modalities for each one but ``modality``, with it among them and without; all centred."""
    own = centre(own, modality_means(other))
    rest = own.present.clone()
    rest[:, modality] = False
    usable = rest.sum(1) > 1
    position = np.flatnonzero(usable.numpy())
    embeddings = own.embeddings[usable]
    asked = [leave_one_out_directions(embeddings, mask[usable]) for mask in (own.present, rest)]
    for target in range(rest.shape[1]):
        has = rest[usable, target]
        if target == modality or not has.any():
            continue
        both = []
        for queries in asked:
            pair = torch.stack([queries[has, target], embeddings[has, target]], 1)
            whole = torch.ones(len(pair), 2, dtype=torch.bool)
            both.append(rank_batch(Batch(np.arange(len(pair)), pair, whole), ("0", "1"), fused=False)["0->1"])
        rows = position[has.numpy()]
        yield tuple(ranks._replace(rows=rows) for ranks in both)  # type: ignore[misc]
