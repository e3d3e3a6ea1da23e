"""Eigen-decompositions of many small symmetric matrices at once, none of which makes the host wait for a device.

The batch comes last, so that every entry of the matrices is one contiguous run of numbers and all arithmetic runs
along it: (K, K, ...). Two and three rows have closed forms. Above that LAPACK is the fastest on the CPU; its
counterparts on a device report failures through the host, so there a fixed number of Jacobi sweeps takes its place.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["eigh"]

SWEEPS = 7
"""Of Jacobi rotations. Six leave 1e-14 of eight rows and five 1e-8 (the matrices of the tests): one is to spare."""

_SMALLEST = 1e-150
"""Spread of eigenvalues below which a 3 x 3 matrix is a multiple of the identity; its square is still a number."""


def eigh(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Return the eigenvalues, descending, and the eigenvectors of symmetric matrices.

    Args:
        matrices: (K, K, ...) float64, entries of at most about 1; both triangles are read. NaN in a matrix makes its
            eigenvalues NaN and leaves the others alone.

    Returns: (K, ...) eigenvalues and (K, K, ...) eigenvectors, of unit length and mutually orthogonal: ``[:, j]``
        belongs to eigenvalue ``j``.
    """
    if len(matrices) == 2:
        return _two(matrices)
    if len(matrices) == 3:
        return _three(matrices)
    return _lapack(matrices) if matrices.device.type == "cpu" else _jacobi(matrices)


def _product(first: Tensor, second: Tensor) -> Tensor:
    """Return the matrix products of (I, J, ...) and (J, K, ...)."""
    return (first[:, :, None] * second[None]).sum(1)


def _two(matrices: Tensor) -> tuple[Tensor, Tensor]:
    first, last, off = matrices[0, 0], matrices[1, 1], matrices[0, 1]
    middle, half = (first + last) / 2, (first - last) / 2
    radius = torch.hypot(half, off)
    angle = torch.atan2(off, half) / 2
    cosine, sine = angle.cos(), angle.sin()
    vectors = torch.stack([cosine, -sine, sine, cosine]).view(matrices.shape)
    return torch.stack([middle + radius, middle - radius]), vectors


def _three(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Centre and scale to trace 0 and squared norm 6, whose eigenvalues are 2 cos((arccos(det / 2) + 2 pi j) / 3).

    The determinant of such a matrix is a third of the trace of its cube. With the sign that makes it positive the
    largest eigenvalue is at least sqrt(3) above the other two, so it and its eigenvector lose no digits, whatever
    those two do; what is left is a 2 x 2 matrix in the plane across.
    """
    middle = matrices.diagonal(dim1=0, dim2=1).mean(-1)
    centred = matrices.clone()
    centred.diagonal(dim1=0, dim2=1).sub_(middle[..., None])
    size = (centred.square().sum((0, 1)) / 6).sqrt()
    centred /= size.clamp_min(_SMALLEST)
    square = _product(centred, centred)
    half_determinant = (square * centred).sum((0, 1)) / 6
    sign = torch.ones_like(half_determinant).copysign(half_determinant)
    centred *= sign
    largest = 2 * (half_determinant.abs().clamp_max(1).acos() / 3).cos()

    # The adjugate of centred - largest * I: a positive multiple of u u', and of I where centred is 0.
    adjugate = torch.addcmul(square, largest, centred)
    diagonal = adjugate.diagonal(dim1=0, dim2=1)
    diagonal += (largest.square() - square.diagonal(dim1=0, dim2=1).sum(-1) / 2)[..., None]
    one, two, three = diagonal.unbind(-1)
    longest = torch.where(two > one, adjugate[1], adjugate[0])
    longest = torch.where(three > torch.maximum(one, two), adjugate[2], longest)
    isolated = longest / longest.square().sum(0).sqrt()

    # The other columns of the reflection that takes the first axis to it.
    tail, side = isolated[1:], torch.ones_like(largest).copysign(isolated[0])
    lower = -tail[:, None] * (tail / (1 + isolated[0].abs()))
    lower.diagonal(dim1=0, dim2=1).add_(1)
    plane = torch.cat([-(side * tail)[None], lower])
    others, turn = _two(_product(plane.transpose(0, 1), _product(centred, plane)))

    values = torch.cat([largest[None], others])
    vectors = torch.cat([isolated[:, None], _product(plane, turn)], 1)
    flipped = sign < 0
    values = torch.where(flipped, -values.flip(0), values) * size + middle
    return values, torch.where(flipped, vectors.flip(1), vectors)


def _lapack(matrices: Tensor) -> tuple[Tensor, Tensor]:
    bad = matrices.sum((0, 1)).isnan()  # LAPACK raises on NaN, which would end a batch for one bad row
    # It sorts ascending, hence the minus.
    rows = matrices.neg().masked_fill_(bad, 0).movedim((0, 1), (-2, -1)).contiguous()
    values, vectors = torch.linalg.eigh(rows)
    values = values.movedim(-1, 0).neg().masked_fill_(bad, torch.nan)
    return values.contiguous(), vectors.movedim((-2, -1), (0, 1)).contiguous()


def _jacobi(matrices: Tensor) -> tuple[Tensor, Tensor]:
    """Turn all pairs (i, K - 1 - i) at once, then move the indices on by one: every pair meets once in a sweep."""
    size = len(matrices)
    half = size // 2
    fixed = 1 - size % 2  # an even circle turns around its first index
    rows = torch.eye(size, dtype=matrices.dtype, device=matrices.device)
    rows = rows.view(size, size, *[1] * (matrices.ndim - 2)).expand_as(matrices)

    def turned(these: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
        first, last = these[:half], these[size - half :].flip(0)
        moved = cosine * first + sine * last, these[half : size - half], (cosine * last - sine * first).flip(0)
        around = torch.cat(moved)
        return torch.cat([around[:fixed], around[-1:], around[fixed:-1]])

    for _ in range(SWEEPS * (size - fixed)):
        diagonal = matrices.diagonal(dim1=0, dim2=1).movedim(-1, 0)
        difference = diagonal[:half] - diagonal[size - half :].flip(0)
        off = matrices.flip(1).diagonal(dim1=0, dim2=1).movedim(-1, 0)[:half]
        # The smaller of the two angles, at most pi / 4, without which the sweeps need not converge.
        angle = torch.atan2(2 * off.copysign(off * difference), difference.abs())[:, None] / 2
        cosine, sine = angle.cos(), angle.sin()
        matrices = turned(turned(matrices, cosine, sine).transpose(0, 1), cosine, sine)
        rows = turned(rows, cosine, sine)
    values, order = matrices.diagonal(dim1=0, dim2=1).sort(-1, descending=True)
    vectors = rows.gather(0, order.movedim(-1, 0)[:, None].expand_as(rows)).transpose(0, 1)
    return values.movedim(-1, 0), vectors
