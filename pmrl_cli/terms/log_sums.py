"""Sums of exponentials over a batch of similarities, with a gradient that needs no second matrix."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["Pair", "log_sums"]


class Pair(NamedTuple):
    """Which vectors are contrasted with which.

    Args:
        first: (b, d) of this process, divided by the temperature; zero where absent.
        has_first: (b,) bool.
        second: (B, d) of all processes, unit length; zero where absent.
        has_second: (B,) bool.
    """

    first: Tensor
    has_first: Tensor
    second: Tensor
    has_second: Tensor


_HELD = 2**20
"""Elements of a chunk of the gradient on a CPU; smaller chunks slow the products."""


class _Sums(torch.autograd.Function):
    """(first (b, d), second (B, d), masks, start, shift) -> the terms of InfoNCE, from one product of their size.

    Returns (b,) log of the row sums of exp(first second' - shift), (B,) log of its column sums, and (b,) the logits
    first second' of the instances with themselves, whose columns begin at ``start``. Masked rows and columns are in
    no sum, nor are the places (b, B) that are left out; an empty sum is ``NOTHING``. A masked vector is zero, so that
    it adds nothing to the gradient of others; the caller drops its own gradient. Nothing is copied
    but to be kept, and no size waits for the device.
    """

    NOTHING = -1e4
    """Log of an empty sum: no share of any other, and finite, so that a masked gradient is 0 and not NaN."""

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ANN401 - torch does not type what it passes
        first: Tensor,
        second: Tensor,
        has_first: Tensor,
        has_second: Tensor,
        left_out: Tensor | None,
        start: int,
        shift: float,
    ) -> tuple[Tensor, ...]:
        terms = torch.mm(first, second.mT)
        own = terms.diagonal(start).clone()
        if shift:
            terms.sub_(shift)
        terms.exp_()
        if left_out is not None:
            terms.masked_fill_(left_out, 0)
        rows, columns = terms @ has_second.to(terms.dtype), has_first.to(terms.dtype) @ terms
        rows, columns = rows.masked_fill_(~has_first, 0), columns.masked_fill_(~has_second, 0)
        ctx.start = start
        ctx.save_for_backward(first, second, terms, rows, columns)
        return (*(sums.log().masked_fill(sums == 0, _Sums.NOTHING) for sums in (rows, columns)), own)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401 - torch does not type what it passes
        grad_rows: Tensor,
        grad_columns: Tensor,
        grad_own: Tensor,
    ) -> tuple[Tensor | None, ...]:
        first, second, terms, rows, columns = ctx.saved_tensors
        per_row = (grad_rows / rows).masked_fill(rows == 0, 0)
        per_column = (grad_columns / columns).masked_fill(columns == 0, 0)
        grad_first, grad_second = torch.empty_like(first), torch.zeros_like(second)
        # On a CPU some rows at a time, in memory that is used again: new memory costs as much as a product.
        few = max(1, min(len(terms), _HELD // max(1, len(second)) if terms.device.type == "cpu" else len(terms)))
        held = terms.new_empty(few, len(second))
        for begin in range(0, len(terms), few):
            here = slice(begin, begin + few)
            grad = torch.add(per_row[here, None], per_column, out=held[: len(per_row[here])])
            grad *= terms[here]
            grad.diagonal(ctx.start + begin).add_(grad_own[here])
            torch.mm(grad, second, out=grad_first[here])
            grad_second.addmm_(grad.mT, first[here], beta=float(begin > 0))
        return grad_first, grad_second, None, None, None, None, None


def log_sums(
    first: Tensor,
    second: Tensor,
    has_first: Tensor,
    has_second: Tensor,
    *,
    left_out: Tensor | None = None,
    start: int = 0,
    shift: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return log sums of exp(first second' - shift) over columns and over rows, and the products of each with itself.

    Args:
        first: (b, d), zero where absent.
        second: (B, d), likewise.
        has_first: (b,) bool.
        has_second: (B,) bool.
        left_out: (b, B) bool, what is in no sum; None: nothing.
        start: where the instances of ``first`` begin among those of ``second``.
        shift: to be subtracted from the logits. Cosines over a temperature of ``LearnedTemperature.LOW`` or more
            need none: exp neither overflows nor vanishes, in any row or column.

    Returns: (b,) for every row, (B,) for every column, (b,) the logits themselves.
    """
    rows, columns, own = _Sums.apply(first, second, has_first, has_second, left_out, start, shift)  # type: ignore[no-untyped-call]
    return rows, columns, own
