"""The one kernel: singular values and leading direction of the modalities of each instance.

An instance is a d x K matrix Z whose columns are the unit vectors of its modalities. Everything here is read off
its K x K Gram matrix: vectors of any length go in, their norms are the diagonal of the raw Gram, and besides a few
streaming passes over the vectors all arithmetic is K x K, in float64. The gradient is written by hand: that of
``torch.linalg.svd`` divides by every gap between singular values and is NaN for identical, orthonormal,
equicorrelated and zero columns; ours uses only gaps to the leading one, and those regularised.

With ``sign_aware=True`` the kernel takes the spectrum of the shifted relation R = (1 + cos) / 2, the Gram matrix of
[z; 1] / sqrt(2). Plain singular values are the same for z and -z; here every entry is non-negative, so the loadings
are too (Perron-Frobenius) and a modality that points the other way is the worst case instead of a perfect one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from pmrl_cli.eigen import eigh

__all__ = ["Spectrum", "leave_one_out_directions", "spectrum", "subset_spectra"]

GAP_WIDTH = 1e-3
"""1 / gap becomes gap / (gap^2 + GAP_WIDTH^2): off by (GAP_WIDTH / gap)^2, at most 500, and 0 at a tie, where the
leading direction is not defined and no gradient is right."""

SIGMA_FLOOR = 1e-3
"""Smallest singular value a gradient is divided by. Those of a float32 Gram are noise below 3e-4; a floor ten times
lower multiplies that noise into gradients 100 times too large, one ten times higher damps true ones."""

RESULTANT_FLOOR = 1e-3
"""Sign-aware loadings whose weighted sum of unit vectors is shorter than this cancel (z, -z): no shared direction."""

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


def spectrum(vectors: Tensor, present: Tensor | None = None, *, sign_aware: bool = False) -> Spectrum:
    """Return the singular values, leading direction and loadings of each instance.

    The leading direction points towards the sum of the present unit vectors; where that says nothing, towards the
    first modality that loads on it at least half as much as the strongest. Sign-aware, it is Z v1 renormalised (d
    entries) and, where that vanishes because the modalities cancel, the vector of the first present one. A present
    vector of length zero counts as absent. Values and gradients are those of the sub-matrix of the present
    modalities, whatever stands in the other rows, NaN included. Sums are in float32 for float32, bfloat16 and
    float16 vectors, even under autocast, and in float64 for float64; NaN or Inf in a present row makes the results
    of its instance NaN. It has no second derivative.

    Args:
        vectors: (B, K, d) floating point, any length: they are normalised here.
        present: (B, K) bool; everything by default.
        sign_aware: take the sign-aware spectrum of (1 + cos) / 2 instead of that of cos.

    Returns: the spectrum, in float32 (float64 for float64 vectors).
    """
    if present is None:
        present = torch.ones(vectors.shape[:2], dtype=torch.bool, device=vectors.device)
    values, direction, loadings = subset_spectra(vectors, present[:, None], sign_aware=sign_aware)
    return Spectrum(values.squeeze(1), direction.squeeze(1), loadings.squeeze(1))


def subset_spectra(vectors: Tensor, subsets: Tensor, *, sign_aware: bool = False) -> Spectrum:
    """Return the spectra of Q subsets of the modalities of each instance, from one Gram matrix.

    Args:
        vectors: (B, K, d) floating point, any length.
        subsets: (B, Q, K) bool, the members of each subset: only modalities that are present.
        sign_aware: as in ``spectrum``.

    Returns: the spectra, with (B, Q) instead of (B,).
    """
    vectors = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    with _float32_products(vectors.device):
        return Spectrum(*_SubsetSpectra.apply(vectors, subsets, sign_aware))  # type: ignore[no-untyped-call]


def leave_one_out_directions(vectors: Tensor, present: Tensor) -> Tensor:
    """Return, for every modality, the sign-aware leading direction of the other present modalities.

    Args:
        vectors: (B, K, d) floating point, any length.
        present: (B, K) bool.

    Returns: (B, K, d), unit length; zero where no other modality is present.
    """
    others = ~torch.eye(present.shape[1], dtype=torch.bool, device=present.device)
    return subset_spectra(vectors, present[:, None] & others, sign_aware=True).leading_direction


@contextmanager
def _float32_products(device: torch.device) -> Iterator[None]:
    """Multiply in the type of the vectors: neither autocast's nor, on a GPU that is allowed it, TF32."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _due(condition: Tensor) -> bool:
    """Whether to make a pass that few batches need. Off the CPU always: to ask is to wait for the device."""
    return condition.device.type != "cpu" or bool(condition)


def _last(tensor: Tensor) -> Tensor:
    """Return (B, ..., K) as contiguous float64 (K, ..., B): the layout in which all that is K x K is done."""
    return tensor.movedim(0, -1).to(torch.float64, memory_format=torch.contiguous_format)


def _first(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """Return (..., B) as contiguous (B, ...) of this type."""
    return tensor.movedim(-1, 0).to(dtype, memory_format=torch.contiguous_format)


def _orient(loadings: Tensor) -> Tensor:
    """Return loadings (K, ...) with the sign of their sum, or of the first large one where the sum is rounding."""
    decisive = loadings.sum(0)
    rounding = decisive.abs() <= ORIENTATION_FLOOR
    if _due(rounding.any()):
        size = loadings.abs()
        large = size >= size.amax(0) / 2
        first_large = loadings[-1]
        for is_large, loading in zip(reversed(large.unbind()), reversed(loadings.unbind()), strict=True):
            first_large = torch.where(is_large, loading, first_large)
        decisive = torch.where(rounding, first_large, decisive)
    return loadings * decisive.sign()


def _gram(vectors: Tensor, used: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Return vectors scaled to where their squares neither vanish nor overflow, their Gram matrix, and the scales.

    Args:
        vectors: (B, K, d).
        used: (B, K) bool, those that matter.

    Returns: (B, K, d); (K, K, B) float64; (K, B), what each was divided by, or None where none had to be.
    """
    gram = torch.bmm(vectors, vectors.mT)
    squares = gram.diagonal(dim1=-2, dim2=-1)
    low, high = _SQUARE_RANGE
    if not _due(((squares < low) & used | (squares > high)).any()):
        return vectors, _last(gram), None
    # Nothing depends on the length of a row, so it may be divided by any constant.
    largest = vectors.abs().amax(-1, keepdim=True)
    largest.masked_fill_(largest == 0, 1)
    vectors = vectors / largest
    return vectors, _last(torch.bmm(vectors, vectors.mT)), _last(largest[..., 0])


class _SubsetSpectra(torch.autograd.Function):
    """(vectors (B, K, d), subsets (B, Q, K), sign_aware) -> the fields of ``Spectrum``.

    Inside, the batch comes last and the modalities first: (K, K, Q, B), (K, Q, B), (K, B).
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch does not type what it passes
        vectors: Tensor,
        subsets: Tensor,
        sign_aware: bool,  # noqa: FBT001 - apply takes positions only
    ) -> tuple[Tensor, ...]:
        used = subsets.any(1)
        if _due(~used.all()):
            vectors = vectors.masked_fill(~used[..., None], 0)
        vectors, gram, shrink = _gram(vectors, used)
        squares = gram.diagonal().mT
        zero = squares == 0
        inverse = squares.rsqrt().masked_fill(zero, 0)
        gram *= inverse[:, None] * inverse
        member = _last(subsets.mT) * ~zero[:, None]

        relation = ((gram + 1) / 2 if sign_aware else gram)[:, :, None]
        relation = relation * (member[:, None] * member)
        # An eigenvalue of its own (-1) keeps an absent modality out of the eigenvectors of the present ones.
        relation.diagonal().add_((member - 1).movedim(0, -1))
        eigenvalues, eigenvectors = eigh(relation)
        sigma = eigenvalues.clamp_min(0).sqrt()
        loadings = eigenvectors[:, 0] * member
        # If R >= 0 entrywise and v leads, so does |v|: with the sign-aware relation nothing is left to orient.
        loadings = loadings.abs() if sign_aware else _orient(loadings)

        weights, cancelled = loadings, None
        if sign_aware:
            squared_length = 2 * eigenvalues[0] - loadings.sum(0).square()
            cancelled = squared_length < RESULTANT_FLOOR**2
            first = member * (member.cumsum(0) == 1)
            weights = torch.where(cancelled, first, weights)
            inverse_length = squared_length.masked_fill_(cancelled, 1).rsqrt()
        else:  # sigma_1 is at least 1, but for rounding, where anything is present
            inverse_length = sigma[0].clamp_min(0.5).reciprocal()
        scaled = weights * inverse_length
        direction = torch.bmm(_first((scaled * inverse[:, None]).transpose(0, 1), vectors.dtype), vectors)
        if sign_aware:  # the length was a difference; unlike sigma_1 it can be small, and then it is not exact
            correction = direction.norm(dim=-1, keepdim=True)
            correction.masked_fill_(correction == 0, 1)
            direction /= correction
            inverse_length /= _last(correction[..., 0])
            scaled = weights * inverse_length

        ctx.set_materialize_grads(False)
        ctx.sign_aware = sign_aware
        spectra = eigenvalues, eigenvectors, loadings
        ctx.save_for_backward(vectors, shrink, inverse, gram, member, *spectra, scaled, inverse_length, cancelled)
        values = _first(sigma.transpose(0, 1), vectors.dtype)
        return values, direction, _first(loadings.transpose(0, 1), vectors.dtype)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401 - torch does not type what it passes
        grad_sigma: Tensor | None,
        grad_direction: Tensor | None,
        grad_loadings: Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        """Return dL/dvectors.

        With r = Z v1 = |r| u, its gradient h = (g_u - u (u.g_u)) / |r| and that of the loadings q = Z'h + g_v, the
        relation R gets N = sym(sum_j v_j (v_j.q) / (lambda_1 - lambda_j) v1') + V diag(g_sigma / (2 sigma)) V' and
        dL/dZ = h v1' + 2 Z N, or Z N when sign-aware (R holds half the Gram). But for the share of g_u in h this is Z
        times a K x K matrix, ``mixed``. Normalisation then takes z (z . dL/dz) off every column.
        """
        vectors, shrink, inverse, gram, member, *spectra, scaled, inverse_length, cancelled = ctx.saved_tensors
        eigenvalues, eigenvectors, loadings = spectra
        relation_share = 1 if ctx.sign_aware else 2
        to_loadings = None if grad_loadings is None else _last(grad_loadings.mT)
        mixed = torch.zeros_like(eigenvectors)
        with _float32_products(vectors.device):
            if grad_direction is not None:
                grad_direction = grad_direction.contiguous()
                inner = _last(torch.bmm(grad_direction, vectors.mT).mT) * inverse[:, None]
                shares = scaled * inner
                radial = shares.sum(0)
                through = torch.addcmul(inner, (gram[:, :, None] * scaled).sum(1), radial, value=-1)
                through *= inverse_length
                if cancelled is not None:
                    through.masked_fill_(cancelled, 0)
                to_loadings = through if to_loadings is None else to_loadings + through
                mixed.addcmul_((scaled * radial)[:, None], scaled, value=-1)
            if to_loadings is not None:
                to_loadings *= member
                gap = eigenvalues[0] - eigenvalues
                components = (eigenvectors * to_loadings[:, None]).sum(0) * gap / (gap.square() + GAP_WIDTH**2)
                turn = (eigenvectors * components).sum(1)
                mixed.addcmul_(turn[:, None], loadings, value=relation_share / 2)
                mixed.addcmul_(loadings[:, None], turn, value=relation_share / 2)
            if grad_sigma is not None:
                share = _last(grad_sigma.mT) / eigenvalues.clamp_min(SIGMA_FLOOR**2).sqrt()
                share.masked_fill_(eigenvalues < -0.5, 0)
                for one, part in zip(eigenvectors.unbind(1), (eigenvectors * share).unbind(1), strict=True):
                    mixed.addcmul_(part[:, None], one, value=relation_share / 2)
            mixed = mixed.sum(2)
            along = (gram * mixed).sum(1)  # z_m . dL/dz_m, which normalisation removes
            if grad_direction is not None:
                along += shares.sum(1)
            mixed.diagonal().sub_(along.mT)
            outer = inverse if shrink is None else inverse / shrink
            mixed *= outer[:, None] * inverse
            grad = torch.bmm(_first(mixed, vectors.dtype), vectors)
            if grad_direction is not None:
                grad.baddbmm_(_first(scaled * outer[:, None], vectors.dtype), grad_direction)
        return grad, None, None
