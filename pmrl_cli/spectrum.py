"""The one kernel: singular values and leading direction of the modalities of each instance.

An instance is a d x K matrix Z whose columns are the unit vectors of its modalities. Everything here is read off
its K x K Gram matrix: vectors of any length go in, their norms are the diagonal of the raw Gram, and besides a few
streaming passes over the vectors all arithmetic is K x K, in float64. The gradient is written by hand: that of
``torch.linalg.svd`` divides by every gap between singular values and is NaN for identical, orthonormal,
equicorrelated and zero columns; ours uses only gaps to the leading one, and those regularised.

Lifted (``lifted=True``) the kernel takes the spectrum of the shifted relation R = (1 + cos) / 2, the Gram matrix of
[z; 1] / sqrt(2). Plain singular values cannot tell z from -z; here every entry is non-negative, so the loadings are
too (Perron-Frobenius) and a modality that points the other way is the worst case instead of a perfect one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["Spectrum", "leave_one_out_directions", "spectrum", "subset_spectra"]

GAP_WIDTH = 1e-3
"""1 / gap becomes gap / (gap^2 + GAP_WIDTH^2): off by (GAP_WIDTH / gap)^2, at most 500, and 0 at a tie, where the
leading direction is not defined and no gradient is right."""

SIGMA_FLOOR = 1e-3
"""Smallest singular value a gradient is divided by. Those of a float32 Gram are noise below 3e-4; a floor ten times
lower multiplies that noise into gradients 100 times too large, one ten times higher damps honest ones."""

RESULTANT_FLOOR = 1e-3
"""Lifted loadings whose weighted sum of unit vectors is shorter than this cancel (z and -z): no shared direction."""

ORIENTATION_FLOOR = 1e-4
"""Sum of loadings below which its sign is rounding (z and -z: exactly 0), so that another rule must orient them."""

_SQUARE_RANGE = (1e-30, 1e30)  # squared lengths that float32 holds with room for the inner products


class Spectrum(NamedTuple):
    """What the kernel returns; ``...`` is (B,) or, for subsets, (B, Q).

    Args:
        singular_values: (..., K), descending; their squares sum to the number K_i of modalities that are present
            and not zero, and all but the first K_i are exactly 0.
        leading_direction: (..., d), unit length (zero where nothing is present).
        loadings: (..., K), the right singular vector of the leading one: unit length, 0 where absent.
    """

    singular_values: Tensor
    leading_direction: Tensor
    loadings: Tensor


def spectrum(vectors: Tensor, present: Tensor | None = None, *, lifted: bool = False) -> Spectrum:
    """Return the singular values, leading direction and loadings of each instance.

    The leading direction points towards the sum of the present unit vectors; where that says nothing, towards the
    first modality that loads on it at least half as much as the strongest. Lifted, it is Z v1 renormalised (d
    entries) and, where that vanishes because the modalities cancel, the vector of the first present one. A present
    vector of length zero counts as absent. Values and gradients are those of the sub-matrix of the present
    modalities, whatever stands in the other rows, NaN included. Sums are in float32 for float32, bfloat16 and
    float16 vectors, even under autocast, and in float64 for float64; NaN or Inf in a present row makes the results
    of its instance NaN. Twice differentiable it is not.

    Args:
        vectors: (B, K, d) floating point, any length: they are normalised here.
        present: (B, K) bool; everything by default.
        lifted: take the sign-aware spectrum of (1 + cos) / 2 instead of that of cos.

    Returns: the spectrum, in float32 (float64 for float64 vectors).
    """
    if present is None:
        present = torch.ones(vectors.shape[:2], dtype=torch.bool, device=vectors.device)
    values, direction, loadings = subset_spectra(vectors, present[:, None], lifted=lifted)
    return Spectrum(values[:, 0], direction[:, 0], loadings[:, 0])


def subset_spectra(vectors: Tensor, subsets: Tensor, *, lifted: bool = False) -> Spectrum:
    """Return the spectra of Q subsets of the modalities of each instance, from one Gram matrix.

    Args:
        vectors: (B, K, d) floating point, any length.
        subsets: (B, Q, K) bool, the members of each subset: only modalities that are present.
        lifted: as in ``spectrum``.

    Returns: the spectra, with (B, Q) instead of (B,).
    """
    vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    used = subsets.any(1)
    if not used.all():
        vectors = vectors.masked_fill(~used[..., None], 0)
    gram = _raw_gram(vectors)
    squares = gram.diagonal(dim1=-2, dim2=-1)
    low, high = _SQUARE_RANGE
    if ((squares < low) & used | (squares > high)).any():
        # Nothing depends on the length of a row, so it may be divided by any constant.
        largest = vectors.detach().abs().amax(-1, keepdim=True)
        vectors = vectors / largest.masked_fill(largest == 0, 1)
        gram = _raw_gram(vectors)
    return Spectrum(*_SubsetSpectra.apply(vectors, gram, subsets, lifted))  # type: ignore[no-untyped-call]


def leave_one_out_directions(vectors: Tensor, present: Tensor) -> Tensor:
    """Return, for every modality, the lifted leading direction of the other present modalities.

    Args:
        vectors: (B, K, d) floating point, any length.
        present: (B, K) bool.

    Returns: (B, K, d), unit length; zero where no other modality is present.
    """
    others = ~torch.eye(present.shape[1], dtype=torch.bool, device=present.device)
    return subset_spectra(vectors, present[:, None] & others, lifted=True).leading_direction


def _raw_gram(vectors: Tensor) -> Tensor:
    """Return the (B, K, K) inner products in the precision of the vectors, outside autograd and autocast."""
    with torch.autocast(vectors.device.type, enabled=False):
        return torch.bmm(vectors.detach(), vectors.detach().mT)


def _eigh(relation: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues, descending, and eigenvectors (columns) of symmetric (..., K, K) matrices; NaN gives NaN."""
    if relation.shape[-1] == 2:
        first, last, off = relation[..., 0, 0], relation[..., 1, 1], relation[..., 0, 1]
        middle, half = (first + last) / 2, (first - last) / 2
        radius = torch.hypot(half, off)
        angle = torch.atan2(off, half) / 2
        cosine, sine = angle.cos(), angle.sin()
        values = torch.stack([middle + radius, middle - radius], -1)
        return values, torch.stack([cosine, -sine, sine, cosine], -1).view(relation.shape)
    # LAPACK raises on NaN, which would end a batch for one bad row.
    bad = ~relation.isfinite().flatten(-2).all(-1)
    values, vectors = torch.linalg.eigh(relation.masked_fill(bad[..., None, None], 0))
    return values.flip(-1).masked_fill(bad[..., None], torch.nan), vectors.flip(-1)


def _orient(loadings: Tensor) -> Tensor:
    """Return loadings (..., K) with the sign of their sum, or of the first large one where the sum is rounding."""
    total = loadings.sum(-1, keepdim=True)
    size = loadings.abs()
    first_large = (size >= size.amax(-1, keepdim=True) / 2).to(torch.uint8).argmax(-1, keepdim=True)
    decisive = torch.where(total.abs() > ORIENTATION_FLOOR, total, loadings.gather(-1, first_large))
    return torch.where(decisive < 0, -loadings, loadings)


class _SubsetSpectra(torch.autograd.Function):
    """(vectors (B, K, d), raw gram (B, K, K), subsets (B, Q, K), lifted) -> the fields of ``Spectrum``."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch does not type what it passes
        vectors: Tensor,
        gram: Tensor,
        subsets: Tensor,
        lifted: bool,  # noqa: FBT001 - apply takes positions only
    ) -> tuple[Tensor, ...]:
        gram = gram.double()
        squares = gram.diagonal(dim1=-2, dim2=-1)
        zero = squares == 0
        inverse = squares.rsqrt().masked_fill(zero, 0)
        gram = gram * inverse[:, :, None] * inverse[:, None, :]
        member = subsets & ~zero[:, None]

        relation = ((gram + 1) / 2 if lifted else gram)[:, None]
        relation = relation * (member[..., :, None] & member[..., None, :])
        # An eigenvalue of its own (-1) keeps an absent modality out of the eigenvectors of the present ones.
        relation.diagonal(dim1=-2, dim2=-1).sub_((~member).double())
        eigenvalues, eigenvectors = _eigh(relation)
        sigma = eigenvalues.clamp_min(0).sqrt()
        loadings = eigenvectors[..., 0].masked_fill(~member, 0)
        # If R >= 0 entrywise and v leads, so does |v|: with the lifted relation nothing is left to orient.
        loadings = loadings.abs() if lifted else _orient(loadings)

        weights, cancelled = loadings, None
        if lifted:
            squared_length = 2 * eigenvalues[..., 0] - loadings.sum(-1).square()
            cancelled = (squared_length < RESULTANT_FLOOR**2)[..., None]
            first = member & (member.cumsum(-1) == 1)
            weights = torch.where(cancelled, first.to(weights.dtype), weights)
            length = torch.where(cancelled[..., 0], 1, squared_length).sqrt()
        else:
            length = sigma[..., 0].masked_fill(~member.any(-1), 1)
        scaled = weights / length[..., None]
        with torch.autocast(vectors.device.type, enabled=False):
            direction = torch.bmm((scaled * inverse[:, None]).to(vectors.dtype), vectors)
        if lifted:  # the length was a difference; unlike sigma_1 it can be small, and then it is not exact
            correction = direction.norm(dim=-1, keepdim=True)
            correction.masked_fill_(correction == 0, 1)
            direction /= correction
            scaled = scaled / correction

        ctx.set_materialize_grads(False)
        ctx.lifted = lifted
        ctx.save_for_backward(vectors, inverse, gram, member, eigenvalues, eigenvectors, loadings, scaled, cancelled)
        return sigma.to(vectors.dtype), direction, loadings.to(vectors.dtype)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401 - torch does not type what it passes
        grad_sigma: Tensor | None,
        grad_direction: Tensor | None,
        grad_loadings: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        vectors, inverse, gram, member, eigenvalues, eigenvectors, loadings, scaled, cancelled = ctx.saved_tensors
        relation_share = 1 if ctx.lifted else 2  # dR = Z'dZ + dZ'Z, halved when lifted
        to_loadings = torch.zeros_like(loadings)
        mixed = torch.zeros_like(gram)
        along = torch.zeros_like(inverse)  # z_m . dL/dz_m, which normalisation removes
        with torch.autocast(vectors.device.type, enabled=False):
            if grad_direction is not None:
                grad_direction = grad_direction.contiguous()
                inner = torch.bmm(grad_direction, vectors.mT).double() * inverse[:, None]
                radial = (scaled * inner).sum(-1, keepdim=True)
                inverse_length = scaled.norm(dim=-1, keepdim=True)  # weights have unit length
                to_loadings = (inner - (scaled @ gram) * radial) * inverse_length
                if cancelled is not None:
                    to_loadings = to_loadings.masked_fill(cancelled, 0)
                mixed = mixed - (scaled.mT * radial.mT) @ scaled
                along = (scaled * inner).sum(1)
            if grad_loadings is not None:
                to_loadings = to_loadings + grad_loadings
            if grad_direction is not None or grad_loadings is not None:
                to_loadings = to_loadings * member
                gap = eigenvalues[..., :1] - eigenvalues
                components = (
                    (to_loadings[..., None, :] @ eigenvectors)[..., 0, :] * gap / (gap.square() + GAP_WIDTH**2)
                )
                turn = (eigenvectors @ components[..., None])[..., 0]
                half = relation_share / 2 * (turn.mT @ loadings)
                mixed = mixed + half + half.mT
            if grad_sigma is not None:
                share = grad_sigma / (2 * eigenvalues.clamp_min(SIGMA_FLOOR**2).sqrt())
                share = share.masked_fill(eigenvalues < -0.5, 0)
                mixed = mixed + relation_share * ((eigenvectors * share[..., None, :]) @ eigenvectors.mT).sum(1)
            along = along + (gram * mixed).sum(-1)
            mixed.diagonal(dim1=-2, dim2=-1).sub_(along)
            mixed = mixed * inverse[:, :, None] * inverse[:, None, :]
            grad = torch.bmm(mixed.to(vectors.dtype), vectors)
            if grad_direction is not None:
                grad.baddbmm_((scaled * inverse[:, None]).mT.to(vectors.dtype), grad_direction)
        return grad, None, None, None
