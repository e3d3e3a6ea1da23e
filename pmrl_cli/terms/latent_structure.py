"""Formulas that keep or build structure in a shared space: separation, bridge, geometry and neighbourhood.

Source: Jiang et al., "Understanding and Constructing Latent Modality Structures in Multi-Modal Representation
    Learning", CVPR 2023 (arXiv 2303.05952); geometry also Goel et al., "CyCLIP: Cyclic Contrastive Language-Image
    Pretraining", NeurIPS 2022; neighbourhood: Groeger et al., "With Limited Data for Multimodal Alignment, Let the
    STRUCTURE Guide You", 2025 (arXiv 2506.16895). All of them depart in being masked and written for k modalities.

Everywhere ``vectors`` are (B, K, d), unit length where present and anything finite elsewhere, and ``present`` is
(B, K) bool.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = [
    "bridge_distance",
    "cross_geometry",
    "neighbourhood_divergence",
    "orthogonality",
    "uniformity",
    "view_geometry",
]

_TINY = 1e-12


def _masked(vectors: Tensor, present: Tensor) -> Tensor:
    return vectors.masked_fill(~present[..., None], 0)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp_min(1)


def _each_with_each(has: Tensor) -> Tensor:
    """Return (..., B, B) bool, whether both of two instances are in ``has`` (..., B)."""
    return has[..., :, None] & has[..., None, :]


def cross_geometry(vectors: Tensor, present: Tensor) -> Tensor:
    """Return how much the geometry of one modality differs from that of another.

    For modalities m < n and the N instances that have both,
    (1/N) sum_jk (<z_mj, z_nk> - <z_mk, z_nj>)^2 + (<z_mj, z_mk> - <z_nj, z_nk>)^2, the mean over pairs of modalities
    that two instances share; 0 if there is none. It grows with the batch, as published.
    """
    vectors = _masked(vectors, present)
    each = [(m, n) for m in range(vectors.shape[1]) for n in range(m + 1, vectors.shape[1])]
    if not each:
        return vectors[:0].sum()
    first, second = (vectors[:, [pair[side] for pair in each]].transpose(0, 1) for side in (0, 1))
    both = torch.stack([present[:, m] & present[:, n] for m, n in each])
    count = both.sum(1)
    cross = first @ second.mT
    squares = (cross - cross.mT).square() + (first @ first.mT - second @ second.mT).square()
    sums = (squares * _each_with_each(both)).sum((1, 2))
    return _mean(sums / count.clamp_min(1), count > 1)


def view_geometry(vectors: Tensor, views: Tensor, present: Tensor) -> Tensor:
    """Return how much the geometry of a modality changes from one view of the instances to another.

    Within each modality (1/N) sum_jk (<z_mj, z_mk> - <z'_mj, z'_mk>)^2, and between modalities m < n
    (1/N) sum_j (<z_mj, z_nj> - <z'_mj, z'_nj>)^2; the mean over modalities plus the mean over pairs.

    Args:
        vectors: see above.
        views: (B, K, d), the same instances seen otherwise (noise, dropout).
        present: see above.
    """
    first, second = _masked(vectors, present), _masked(views, present)
    grams = [v.transpose(0, 1) @ v.permute(1, 2, 0) for v in (first, second)]
    count = present.sum(0)
    sums = ((grams[0] - grams[1]).square() * _each_with_each(present.T)).sum((1, 2))
    within = _mean(sums / count.clamp_min(1), count > 1)
    modalities = range(vectors.shape[1])
    between, shared = [], []
    for m in modalities:
        for n in range(m + 1, vectors.shape[1]):
            cosines = [(v[:, m] * v[:, n]).sum(1) for v in (first, second)]
            both = present[:, m] & present[:, n]
            between.append(_mean((cosines[0] - cosines[1]).square(), both))
            shared.append(both.any())
    if not between:
        return within
    return within + _mean(torch.stack(between), torch.stack(shared))


def bridge_distance(vectors: Tensor, views: Tensor, present: Tensor, share: float = 0.25) -> Tensor:
    """Return how far a second view of a modality is from the bridge between it and another modality.

    ||z'_m - mu||^2 with mu = normalise(t z_m + (1 - t) z_n), the mean over ordered pairs m != n and instances that
    have both. Written out it is
    2 - 2 (t <z_m, z'_m> + (1 - t) <z_n, z'_m>) / sqrt(t^2 + (1 - t)^2 + 2 t (1 - t) <z_m, z_n>);
    the paper's second line lacks the "2 - 2", the root and the sign.

    What to know: it draws what only one modality has out of its vector, which the test of this term measures.

    Args:
        vectors: see above.
        views: (B, K, d), the same instances seen otherwise.
        present: see above.
        share: t, the place on the bridge: 1 at the modality itself, 0 at the other.
    """
    first, second = _masked(vectors, present), _masked(views, present)
    ends = share * first[:, :, None] + (1 - share) * first[:, None]  # (B, m, n, d)
    middle = ends / ends.norm(dim=3, keepdim=True).clamp_min(_TINY)
    distances = (second[:, :, None] - middle).square().sum(3)
    pairs = present[:, :, None] & present[:, None]
    different = ~torch.eye(vectors.shape[1], dtype=torch.bool, device=vectors.device)
    return _mean(distances, pairs & different)


def orthogonality(vectors: Tensor, unique: Tensor, present: Tensor) -> Tensor:
    """Return the mean of <z, u>^2 over modalities and instances that have them.

    Zero says that the two vectors of an instance are at right angles, not that they are independent of each other.

    Args:
        vectors: see above.
        unique: (B, K, d), unit length where present: what the modality alone has.
        present: see above.
    """
    cosines = (_masked(vectors, present) * _masked(unique, present)).sum(2)
    return _mean(cosines.square(), present)


def uniformity(vectors: Tensor, present: Tensor) -> Tensor:
    """Return log of the mean of exp(-2 ||u_j - u_k||^2) over modalities and j, k, also the same.

    At most 0 (all vectors the same) and at least about -4 (spread evenly). The published sum is divided by N, here
    by the number of its terms, which shifts it by a constant.
    """
    masked = _masked(vectors, present).transpose(0, 1)
    kernel = (-4 * (1 - masked @ masked.mT)).exp()
    pairs = _each_with_each(present.T)
    # An empty batch has no mean: log of 1, and so a zero of the graph.
    empty = ~pairs.any()
    return (((kernel * pairs).sum() + empty) / pairs.sum().clamp_min(1)).log()


def _neighbour_shares(vectors: Tensor, has: Tensor, temperature: float) -> Tensor:
    """Return (B, B) rows of shares that each instance gives its others: softmax of centred cosines."""
    count = has.sum().clamp_min(1)
    vectors = vectors.masked_fill(~has[:, None], 0)
    centred = (vectors - vectors.sum(0) / count).masked_fill(~has[:, None], 0)
    unit = centred / (centred.square().sum(1, keepdim=True) + _TINY).sqrt()
    # An absent row gives all its weight to itself, which is masked later and has no NaN in its gradient.
    others = has[None, :] | torch.eye(len(has), dtype=torch.bool, device=has.device)
    return (unit @ unit.mT / temperature).masked_fill(~others, -torch.inf).softmax(1)


def _jensen_shannon(first: Tensor, second: Tensor) -> Tensor:
    """Return (B,) divergence of the rows, in nats, in [0, log 2]."""
    middle = ((first + second) / 2).clamp_min(_TINY).log()
    return sum((p * (p.clamp_min(_TINY).log() - middle)).sum(1) for p in (first, second)) / 2  # type: ignore[return-value]


def neighbourhood_divergence(
    vectors: Tensor, components: Sequence[Tensor], present: Tensor, *, hops: int = 2, temperature: float = 0.1
) -> Tensor:
    """Return how much the neighbourhoods of a modality differ before and after its map.

    P is the softmax over a batch of the centred cosines of a modality over a temperature, P^l where l hops lead:
    (1/L) sum_l (1/l) JS(P^l before || P^l after), the mean over rows, then over modalities that three instances
    have. In nats, 0 where nothing changes.

    Args:
        vectors: see above.
        components: per modality (B, p_m), before the map.
        present: see above.
        hops: L.
        temperature: divides the cosines.
    """
    parts, counted = [], []
    for m, before in enumerate(components):
        has = present[:, m]
        wanted = _neighbour_shares(before.detach().to(vectors.dtype), has, temperature)
        found = _neighbour_shares(vectors[:, m], has, temperature)
        wanted_hop, found_hop = wanted, found
        value = vectors[:0].sum()
        for hop in range(1, hops + 1):
            if hop > 1:
                wanted_hop, found_hop = wanted_hop @ wanted, found_hop @ found
            value = value + _mean(_jensen_shannon(wanted_hop, found_hop), has) / (hop * hops)
        parts.append(value)
        counted.append(has.sum() > 2)
    return _mean(torch.stack(parts), torch.stack(counted))
