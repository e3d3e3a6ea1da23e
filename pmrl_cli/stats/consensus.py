"""Leave-one-out consensus: how well each vector agrees with the other modalities of its instance.

Every modality is centred and brought back to unit length; the consensus u_{-m} of an instance is the direction of
the sum of its other vectors. Agreement is the cosine of the two less the mean cosine of each with its nearest
other instances (CSLS), so that a vector near everything is not taken for a partner, nor an isolated one for a
mispaired one. All is measured against a reference of instances: the reservoir.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pmrl_cli.array_types import Array
from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.retrieval.similarity import cosine_blocks, nearest_both_ways, nearest_cosines

__all__ = ["EDGES", "NEIGHBOURS", "Agreement", "Reference", "agreement", "centre", "modality_means", "reference_of"]
__all__ += ["reference_without"]


NEIGHBOURS = 10
"""Nearest other instances whose mean cosine is subtracted."""

EDGES: Array = np.linspace(-2, 2, 4097)
"""Bins of a score: cosines and means of cosines lie within [-1, 1], their difference within [-2, 2]."""

LIKE = (0.25, 0.05)
"""Parts of the instances that are the most like one, from wide to narrow: a class or a cluster lies between them."""

_FEWEST_LIKE = 10

_SWAPPED = 1024
"""Vectors that are swapped with those of every other instance, spread evenly over the reference: a share q of the
scores is then known to sqrt(q (1 - q) / 1024) or better."""

_COUNTED = 2**16  # scores whose bins are counted at once

_FEW = 20  # instances for each whose consensus changed, above which only what that changes is measured again
_ROUNDING = 1e-6  # of a cosine

_SHORTEST = 1e-6  # a unit vector less the mean that is shorter than this is rounding


class Agreement(NamedTuple):
    """How instances agree with themselves; NaN where a modality or all the others are absent.

    Args:
        cosine: (B, K) in [-1, 1], of each centred vector with the consensus of the others.
        score: (B, K) in [-2, 2], the cosine less half the mean cosines of both with their nearest other instances.
    """

    cosine: Array
    score: Array


@dataclass(frozen=True)
class Reference:
    """The instances that others are measured against.

    Args:
        means: (K, d) of the unit vectors of each modality.
        vectors: (R, K, d) centred, unit length or zero.
        consensus: (R, K, d) of the other modalities, unit length or zero.
        usable: (R, K) bool: has the modality and another.
        closeness: (R, K, 2) mean cosine of vector and of consensus with their nearest other instances.
        reach: (R, K) least cosine of a vector with the consensus of those nearest instances.
    """

    means: Tensor
    vectors: Tensor
    consensus: Tensor
    usable: Tensor
    closeness: Tensor
    reach: Tensor

    def agreement(self) -> Agreement:
        """Return how these instances agree with themselves."""
        return _agreement(self.vectors, self.consensus, self.usable, self.closeness)

    def mispaired(self, like: Sequence[float] = LIKE) -> npt.NDArray[np.int64]:
        """Return what mispaired instances would score.

        Args:
            like: parts of the instances that are the most like one, from wide to narrow.

        Returns: (1 + len(like), K, bins) counts of the scores that vectors (1,024 at most) have with the consensus of
            every other instance, and with that of the parts of the instances whose consensus is most like their own.
        """
        counts = np.zeros((1 + len(like), self.usable.shape[1], len(EDGES) - 1), dtype=np.int64)
        for m in range(counts.shape[1]):
            chosen = self.usable[:, m]
            vectors, consensus = self.vectors[chosen, m], self.consensus[chosen, m]
            own, others = self.closeness[chosen, m].unbind(1)
            count = len(consensus)
            nearest = [min(max(_FEWEST_LIKE, round(part * count)), count - 1) for part in like]
            swapped = torch.arange(min(count, _SWAPPED)) * count // max(1, min(count, _SWAPPED))
            other = vectors.new_empty(min(len(swapped), _SWAPPED), count)  # fresh memory is slow
            for piece, scores in cosine_blocks(vectors[swapped], consensus):
                itself = torch.arange(len(scores)), swapped[piece]
                scores.sub_(torch.add(own[swapped[piece], None], others, out=other[: len(scores)]), alpha=0.5)
                scores.clamp_(float(EDGES[0]), float(EDGES[-1]))  # rounding may leave [-2, 2]
                scores[itself] = float(EDGES[0])  # its own consensus: taken out of that bin again
                counts[0, m] += _histogram(scores)
                counts[0, m, 0] -= len(scores)
                if not nearest:
                    continue
                alike = torch.mm(consensus[swapped[piece]], consensus.mT, out=other[: len(scores)])
                alike[itself] = -torch.inf
                for part, most_alike in enumerate(_most_alike(alike, nearest), 1):
                    counts[part, m] += _histogram(scores[most_alike])
        return counts


def _most_alike(alike: Tensor, nearest: Sequence[int]) -> list[Tensor]:
    """Return (b, n) masks of the greatest of each row, for falling numbers of them."""
    values, found = alike.numpy(), []
    greatest = values
    for near in nearest:
        greatest = np.partition(greatest, -near, axis=1)[:, -near:]
        chosen = values >= greatest.min(1, keepdims=True)
        if np.count_nonzero(chosen) > near * len(values):  # the least ties: whose turn is it
            order = alike.topk(nearest[0]).indices
            none = torch.zeros(alike.shape, dtype=torch.bool)
            return [none.scatter(1, order[:, :one], value=True) for one in nearest]
        found.append(torch.from_numpy(chosen))
    return found


def _histogram(scores: Tensor) -> npt.NDArray[np.int64]:
    """Return (bins,) counts of scores of any shape over ``EDGES``."""
    bins, flat = len(EDGES) - 1, scores.numpy().reshape(-1)
    least, per_unit = np.float32(EDGES[0]), np.float32(bins / (EDGES[-1] - EDGES[0]))
    counts = np.zeros(bins + 1, dtype=np.int64)
    for start in range(0, len(flat), _COUNTED):  # some at a time: they stay in cache
        places = ((flat[start : start + _COUNTED] - least) * per_unit).astype(np.int64)
        counts += np.bincount(places, minlength=bins + 1)
    counts[bins - 1] += counts[bins]  # the last bin holds its upper edge
    return counts[:bins]


def modality_means(batch: Batch) -> Tensor:
    """Return the mean vector of each modality over the instances that have it: (K, d), zero where none has."""
    return batch.embeddings.sum(0) / batch.present.sum(0).clamp_min(1)[:, None]


def centre(batch: Batch, means: Tensor) -> Batch:
    """Return a batch less the means of its modalities (K, d), at unit length again; a vector at its mean is zero."""
    moved = (batch.embeddings - means).masked_fill(~batch.present[..., None], 0)
    lengths = moved.norm(dim=-1, keepdim=True)
    moved = (moved / lengths.clamp_min(_SHORTEST)).masked_fill(lengths < _SHORTEST, 0)
    return Batch(batch.rows, moved, batch.present)


def _consensus(batch: Batch, kept: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return (B, K, d) directions of the sum of the other vectors, and (B, K) whether there are any."""
    counted = batch.present if kept is None else batch.present & kept
    vectors = batch.embeddings * counted[..., None]
    others = vectors.sum(1, keepdim=True) - vectors
    usable = batch.present & (counted.sum(1, keepdim=True) - counted.long() > 0)
    lengths = others.norm(dim=-1, keepdim=True)
    directions = (others / lengths.clamp_min(_SHORTEST)).masked_fill(lengths < _SHORTEST, 0)
    return directions.masked_fill(~usable[..., None], 0), usable


def reference_of(batch: Batch) -> Reference:
    """Return the reference that a batch of unit vectors is, of all of them."""
    means = modality_means(batch)
    centred = centre(batch, means)
    consensus, usable = _consensus(centred, None)
    found = Reference(
        means, centred.embeddings, consensus, usable, torch.zeros(*usable.shape, 2), torch.zeros(usable.shape)
    )
    _measure(found, list(range(usable.shape[1])))
    return found


def reference_without(earlier: Reference, batch: Batch, kept: Tensor) -> Reference:
    """Return the reference whose consensus leaves some vectors out: only what that changes is measured again.

    Args:
        earlier: the reference of all.
        batch: its unit vectors.
        kept: (R, K) which of them the consensus is made of.
    """
    consensus, usable = _consensus(Batch(batch.rows, earlier.vectors, batch.present), kept)
    closeness, reach = earlier.closeness.clone(), earlier.reach.clone()
    found = Reference(earlier.means, earlier.vectors, consensus, usable, closeness, reach)
    anew = [m for m in range(usable.shape[1]) if not _remeasure(found, earlier, m)]
    _measure(found, anew)
    return found


def _measure(reference: Reference, modalities: Sequence[int]) -> None:
    """Write how near the nearest are in some modalities."""
    usable, count_of = reference.usable, {m: _neighbours(reference, m) for m in modalities}
    reference.closeness[:, modalities] = 0
    asked = [m for m, count in count_of.items() if count > 1]
    pairs = ((reference.vectors[usable[:, m], m], reference.consensus[usable[:, m], m], count_of[m]) for m in asked)
    for m, sides in zip(asked, nearest_both_ways(pairs), strict=True):
        reference.closeness[usable[:, m], m] = torch.stack([_but_the_nearest(nearest) for nearest in sides], 1)
        reference.reach[usable[:, m], m] = sides[0].amin(1)


def _neighbours(reference: Reference, modality: int) -> int:
    """Return how many nearest are sought: the partner and its neighbours."""
    return min(NEIGHBOURS + 1, int(reference.usable[:, modality].sum()))


def _remeasure(found: Reference, earlier: Reference, m: int) -> bool:
    """Measure a modality again where few consensuses differ from earlier ones; return whether that was so.

    A vector whose nearest are not among those, before or now, keeps its closeness.
    """
    chosen, count = found.usable[:, m], _neighbours(found, m)
    differ = (found.consensus[:, m] != earlier.consensus[:, m]).any(1)
    if not torch.equal(chosen, earlier.usable[:, m]) or int(differ.sum()) * _FEW > len(chosen) or count < 2:
        return False
    if not differ.any():
        return True
    now = found.vectors[:, m] @ found.consensus[differ, m].mT
    before = found.vectors[:, m] @ earlier.consensus[differ, m].mT
    near = chosen & (torch.maximum(now, before).amax(1) >= earlier.reach[:, m] - _ROUNDING)
    nearest, _ = nearest_cosines(found.vectors[near, m], found.consensus[chosen, m], count)
    found.closeness[near, m, 0], found.reach[near, m] = _but_the_nearest(nearest), nearest.amin(1)
    found.closeness[differ, m, 1] = _but_the_nearest(now[chosen].mT.topk(count).values)
    return True


def agreement(reference: Reference, batch: Batch, kept: Tensor | None = None) -> Agreement:
    """Return how the instances of a batch agree with themselves, measured against a reference.

    Args:
        reference: what is near is sought there; the instances of the batch may be among it.
        batch: unit vectors.
        kept: (B, K) which of them the consensus is made of; None for all.
    """
    centred = centre(batch, reference.means)
    consensus, usable = _consensus(centred, kept)
    closeness = torch.zeros(*usable.shape, 2)
    for m in range(usable.shape[1]):
        closeness[:, m] = _closeness(reference, centred.embeddings[:, m], consensus[:, m], m)
    return _agreement(centred.embeddings, consensus, usable, closeness)


def _agreement(vectors: Tensor, consensus: Tensor, usable: Tensor, closeness: Tensor) -> Agreement:
    cosine = (vectors * consensus).sum(-1).double()
    score = cosine - closeness.double().mean(-1)
    return Agreement(*(values.masked_fill(~usable, torch.nan).numpy() for values in (cosine, score)))


def _closeness(reference: Reference, vectors: Tensor, consensus: Tensor, modality: int) -> Tensor:
    """Return (B, 2) mean cosines with the nearest of the reference: of vectors with consensus, and the other way."""
    chosen = reference.usable[:, modality]
    found = torch.zeros(len(vectors), 2)
    most = min(NEIGHBOURS + 1, int(chosen.sum()))
    if most < 2:
        return found
    sides = ((vectors, reference.consensus[chosen, modality]), (consensus, reference.vectors[chosen, modality]))
    for side, (queries, gallery) in enumerate(sides):
        found[:, side] = _but_the_nearest(nearest_cosines(queries, gallery, most)[0])
    return found


def _but_the_nearest(nearest: Tensor) -> Tensor:
    """Return (B,) means of (B, most) cosines but the greatest.

    That is the partner where there is one in the reference, be the instance mispaired or not, so that other instances
    are left, and mispaired scores are comparable with those of the instances.
    """
    return (nearest.sum(1) - nearest.amax(1)) / (nearest.shape[1] - 1)
