"""What would help: simple remedies, each fitted on one half of the core and measured on the other.

The difference to doing nothing is paired, query by query, so that its interval is narrow; a remedy whose interval
reaches 0 is no advice. Intervals are over queries, for this gallery and this fit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pmrl_cli.array_types import Array, Groups, Mask
from pmrl_cli.diagnosis.mispairing import FLAGGED
from pmrl_cli.diagnosis.statistics.linear import fit_linear, sides_of
from pmrl_cli.diagnosis.statistics.probe import third_of
from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.retrieval.metrics import hits_in_gallery, standard_gallery
from pmrl_cli.retrieval.partners import PairRanks, mixed_ranks, partner_ranks, ranks_one_way
from pmrl_cli.retrieval.ranks import Ranks
from pmrl_cli.retrieval.similarity import nearest_cosines
from pmrl_cli.spectrum import leave_one_out_directions
from pmrl_cli.stats.consensus import NEIGHBOURS, centre, modality_means
from pmrl_cli.stats.statistic import Statistic, clustered_error

__all__ = ["MeasuredRemedy", "Remedy", "measure_remedies", "remedies_for"]


class Remedy(NamedTuple):
    """A remedy.

    Args:
        action: its name; see ``MeasuredRemedy``.
        subject: the modality that is dropped; else empty.
        kind: of R@1 it is measured by: ``""``, ``"mixed "`` or ``"fused "``.
        ranks: of a half without and with it, by direction; their rows count the instances of the half.
    """

    action: str
    subject: tuple[str, ...]
    kind: str
    ranks: Callable[[Half], Iterator[tuple[Ranks, Ranks]]]


def remedies_for(names: Sequence[str], *, clean: Mask | None) -> list[Remedy]:
    """Return the remedies to try.

    Args:
        names: of the modalities.
        clean: (B,) which instances are no suspects; None if none is.
    """
    remedies = [
        Remedy("centre", (), "", _centre),
        Remedy("centre", (), "mixed ", _centre_mixed),
        Remedy("csls", (), "", _csls),
        Remedy("rotate", (), "", _rotate),
        Remedy("linear", (), "", _linear),
    ]
    if len(names) > 2:
        remedies += [
            Remedy("drop_modality", (name,), "fused ", partial(_without, modality=m)) for m, name in enumerate(names)
        ]
    if clean is not None:
        remedies.append(Remedy("drop_suspects", (), "", partial(_unsuspected, clean=clean)))
    return remedies


@dataclass(frozen=True)
class Half:
    """A half that is measured, and the one that may be learned from.

    Args:
        own: the instances that are measured.
        other: those that may be learned from.
        groups: (B,) group of every instance of both.
        seed: of the choice of the ridge.
    """

    own: Batch
    other: Batch
    groups: Groups
    seed: int

    @cached_property
    def means(self) -> Tensor:
        """(K, d) means of the other half."""
        return modality_means(self.other)

    @cached_property
    def centred(self) -> Batch:
        """The half, less the means of the other."""
        return centre(self.own, self.means)

    @cached_property
    def ranks(self) -> PairRanks:
        """As it is."""
        return partner_ranks(self.own)

    @cached_property
    def centred_ranks(self) -> PairRanks:
        """Centred."""
        return partner_ranks(self.centred)

    @cached_property
    def _fused(self) -> tuple[Tensor, dict[tuple[int, bytes], Ranks]]:
        """Centred, (B, K, d) leading directions of the others of each modality, and the ranks that were asked for."""
        return leave_one_out_directions(self.centred.embeddings, self.centred.present), {}

    def fused_ranks(self, target: int, rows: npt.NDArray[np.int64]) -> Ranks:
        """Return the ranks of some instances among them, centred, where all the others ask for a modality."""
        queries, known = self._fused
        key = target, rows.tobytes()
        if key not in known:
            found = ranks_one_way(queries[rows, target], self.centred.embeddings[rows, target])
            known[key] = found._replace(rows=rows)
        return known[key]

    @cached_property
    def adapted_ranks(self) -> PairRanks:
        """As a linear adapter fitted on the other half puts it."""
        return partner_ranks(_adapted(self.own, self.other, third_of(self.groups[self.other.rows], self.seed)))


def _paired(before: PairRanks, after: PairRanks) -> Iterator[tuple[Ranks, Ranks]]:
    return ((ranks, after[pair]) for pair, ranks in before.items())


def _centre(half: Half) -> Iterator[tuple[Ranks, Ranks]]:
    return _paired(half.ranks, half.centred_ranks)


def _centre_mixed(half: Half) -> Iterator[tuple[Ranks, Ranks]]:
    """Ask among the candidates of both modalities of a pair."""
    return _paired(mixed_ranks(half.own, half.ranks), mixed_ranks(half.centred, half.centred_ranks))


def _rotate(half: Half) -> Iterator[tuple[Ranks, Ranks]]:
    """Turn each modality to the one that most instances have: by the rotation U V^T of the singular vectors of X^T Y.

    A rotation changes no angle within a modality: what it gains was there, in other coordinates.

    Source: Schönemann, "A generalized solution of the orthogonal Procrustes problem", Psychometrika 31, 1966.
    """
    own, other = half.centred, centre(half.other, half.means)
    fixed = int(other.present.sum(0).argmax())
    turned = own.embeddings.clone()
    for m in range(own.present.shape[1]):
        both = other.present[:, [m, fixed]].all(1)
        if m != fixed and both.any():
            u, _, vh = np.linalg.svd((other.embeddings[both, m].mT @ other.embeddings[both, fixed]).numpy())
            turned[:, m] = own.embeddings[:, m] @ torch.from_numpy(u @ vh)
    return _paired(half.centred_ranks, partner_ranks(Batch(own.rows, turned, own.present)))


def _csls(half: Half) -> Iterator[tuple[Ranks, Ranks]]:
    """Cross-domain similarity local scaling, the neighbours of the other half.

    Source: Conneau et al., "Word translation without parallel data", ICLR 2018.
    """
    own, other = half.centred, centre(half.other, half.means)
    before = half.centred_ranks
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
        after = partner_ranks(Batch(own.rows, scaled, own.present[:, [a, b]]))
        for way, pair in (((0, 1), (a, b)), ((1, 0), (b, a))):
            if pair in before:
                yield before[pair], after[way]


def _nearness(vectors: Tensor, others: Tensor) -> Tensor:
    """Return (B, 1) mean cosines with the nearest others."""
    if len(others) == 0:
        return torch.zeros(len(vectors), 1)
    return nearest_cosines(vectors, others, min(NEIGHBOURS, len(others)))[0].mean(1, keepdim=True)


def _adapted(own: Batch, other: Batch, third: Mask) -> Batch:
    """Return the half as a linear adapter fitted on the other, of which a third chooses the ridge, puts it."""
    (fitted, had), (measured, present) = (
        (sides_of(list(one.embeddings.numpy().swapaxes(0, 1))), one.present.numpy()) for one in (other, own)
    )
    return fit_linear(fitted, had, third).embed(measured, present)


def _linear(half: Half) -> Iterator[tuple[Ranks, Ranks]]:
    return _paired(half.ranks, half.adapted_ranks)


def _unsuspected(half: Half, clean: Mask) -> Iterator[tuple[Ranks, Ranks]]:
    other = half.other
    kept = clean[other.rows]
    unsuspected = Batch(other.rows[kept], other.embeddings[kept], other.present[kept])
    third = third_of(half.groups[unsuspected.rows], half.seed)
    return _paired(half.adapted_ranks, partner_ranks(_adapted(half.own, unsuspected, third)))


def _without(half: Half, modality: int) -> Iterator[tuple[Ranks, Ranks]]:
    """Ask with the other modalities for each one but ``modality``, with it among them and without; all centred."""
    own = half.centred
    kept = [m for m in range(own.present.shape[1]) if m != modality]
    if len(kept) == 2:  # what is left asks alone
        for source, target in (kept[::-1], kept):
            if (source, target) in half.centred_ranks:
                without = half.centred_ranks[source, target]
                yield half.fused_ranks(target, without.rows), without
        return
    rest = own.present.clone()
    rest[:, modality] = False
    usable = rest.sum(1) > 1
    queries = torch.zeros_like(own.embeddings)
    queries[usable] = leave_one_out_directions(own.embeddings[usable], rest[usable])
    for target in range(rest.shape[1]):
        rows = np.flatnonzero((usable & rest[:, target]).numpy())
        if target == modality or not len(rows):
            continue
        without = ranks_one_way(queries[rows, target], own.embeddings[rows, target])
        yield half.fused_ranks(target, rows), without._replace(rows=rows)


_FEWEST = 20


@dataclass(frozen=True)
class MeasuredRemedy:
    """A remedy and what it does to retrieval.

    Args:
        action: ``centre`` each modality, ``csls`` (after centring, less the nearness of the neighbours at search),
            ``rotate`` (after centring, each modality to one of them), ``linear`` (an adapter fitted on the
            embeddings), ``drop_modality`` from fused queries, or ``drop_suspects`` from the fit of that adapter.
        subject: the modality that is dropped; else empty.
        metric: ``R@1@N`` in a gallery of N, the mean over directions; ``mixed R@1@N`` where both modalities are
            candidates, ``fused R@1@N`` where all others ask.
        before: of doing without: as it is; for ``csls`` and ``rotate`` centred; for ``drop_suspects``
            the adapter fitted on all.
        after: with it.
        delta: the paired difference.
    """

    action: str
    subject: tuple[str, ...]
    metric: str
    before: Statistic
    after: Statistic
    delta: Statistic

    @property
    def helps(self) -> bool:
        """Whether the whole interval of the difference lies above 0."""
        return self.delta.ci is not None and self.delta.ci[0] > 0

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "action": self.action,
            "subject": list(self.subject),
            "metric": self.metric,
            "before": self.before.as_dict(),
            "after": self.after.as_dict(),
            "delta": self.delta.as_dict(),
            "fit": "cross_fit_2",
        }


class _Trial(NamedTuple):
    """Ranks of the same queries without and with a remedy, in one direction of one half."""

    rows: npt.NDArray[np.int64]
    before: Ranks
    after: Ranks


def measure_remedies(
    batch: Batch,
    names: Sequence[str],
    half: Mask,
    groups: npt.NDArray[np.int64],
    *,
    probability: Array | None = None,
    seed: int = 0,
) -> list[MeasuredRemedy]:
    """Measure every remedy that can be asked of these instances, the largest gain first.

    Args:
        batch: the core of the reservoir, unit vectors.
        names: of the modalities.
        half: (B,) which instances are in the first half; no group in both.
        groups: (B,) independent units of the intervals.
        probability: (B,) of being mispaired; None leaves ``drop_suspects`` out.
        seed: of the choice of the ridge.
    """
    if min(half.sum(), (~half).sum()) < _FEWEST:
        return []
    clean = None if probability is None or (probability < FLAGGED).all() else probability < FLAGGED
    halves = [Half(_part(batch, chosen), _part(batch, ~chosen), groups, seed) for chosen in (half, ~half)]
    found = []
    for remedy in remedies_for(names, clean=clean):
        trials = [_Trial(one.own.rows[a.rows], a, b) for one in halves for a, b in remedy.ranks(one)]
        measured = _measure(remedy, trials, batch, groups)
        if measured is not None:
            found.append(measured)
    return sorted(found, key=lambda one: -(one.delta.value or 0.0))


def _part(batch: Batch, chosen: Mask) -> Batch:
    """Return some instances; their rows are positions in the whole batch."""
    return Batch(np.flatnonzero(chosen), batch.embeddings[chosen], batch.present[chosen])


def _measure(
    remedy: Remedy, trials: list[_Trial], batch: Batch, groups: npt.NDArray[np.int64]
) -> MeasuredRemedy | None:
    """Return the means over directions and halves, and their errors by group."""
    trials = [trial for trial in trials if len(trial.rows)]
    smallest = min((trial.before.gallery for trial in trials), default=0)
    size = standard_gallery(smallest)
    if size is None:
        return None
    values = [(hits_in_gallery(trial.before, 1, size), hits_in_gallery(trial.after, 1, size)) for trial in trials]
    statistics = []
    for which, chance, within in ((0, 1 / size, (0, 1)), (1, 1 / size, (0, 1)), (2, 0.0, (-1, 1))):
        ones = [(pair[1] - pair[0]) if which == 2 else pair[which] for pair in values]
        influence = np.zeros(len(batch.rows))
        for trial, one in zip(trials, ones, strict=True):
            influence[trial.rows] += (one - one.mean()) / (len(one) * len(trials))
        error = clustered_error(influence * len(influence), groups)
        mean = float(np.mean([one.mean() for one in ones]))
        queries = sum(map(len, ones))
        statistics.append(Statistic.normal(mean, error, within=within, chance=chance, n=queries, null="closed_form"))
    return MeasuredRemedy(remedy.action, remedy.subject, f"{remedy.kind}R@1@{size}", *statistics)
