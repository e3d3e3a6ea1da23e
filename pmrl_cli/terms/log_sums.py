"""Sums of exponentials over batches of similarities, with a gradient that needs no second matrix."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["Pairs", "log_sums"]

Pairs = Sequence[tuple[int, int]]
"""Which of M matrices of vectors are contrasted with which of N others."""

_HELD = 2**20
"""Elements of a chunk of the gradient on a CPU; smaller chunks slow the products."""

_TOGETHER = 2**16
"""Similarities on a CPU up to which several pairs are computed together: on small matrices calls take longer than
their arithmetic, and larger ones do not stay in the cache."""


class _Sums(torch.autograd.Function):
    """(first (M, b, d), second (N, B, d), masks, pairs, start, shift) -> the terms of InfoNCE of P pairs.

    Returns, for each pair, (b,) log of the row sums of exp(first second' - shift), (B,) log of its column sums, and
    (b,) the logits first second' of the instances with themselves, whose columns begin at ``start``. Masked rows and
    columns are in no sum, nor are the places (b, B) that are left out; an empty sum is ``NOTHING``. A masked vector
    is zero, so that it adds nothing to the gradient of others; the caller drops its own gradient. No size waits for
    the device.
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
        pairs: Pairs,
        start: int,
        shift: float,
    ) -> tuple[Tensor, ...]:
        has_rows, has_columns = (_chosen(has, pairs, side) for side, has in enumerate((has_first, has_second)))
        counted_rows, counted_columns = has_rows.to(first.dtype)[:, None], has_columns.to(first.dtype)[:, :, None]
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        kept: list[Tensor] = []
        for part in _parts(pairs, first.shape[1] * second.shape[1], first.device):
            terms = torch.bmm(_chosen(first, pairs[part], 0), _chosen(second, pairs[part], 1).mT)
            own = terms.diagonal(start, 1, 2).clone()
            if shift:
                terms.sub_(shift)
            terms.exp_()
            if left_out is not None:
                terms.masked_fill_(left_out, 0)
            rows, columns = torch.bmm(terms, counted_columns[part]), torch.bmm(counted_rows[part], terms)
            found.append((rows[:, :, 0], columns[:, 0], own))
            kept.append(terms)
        rows, columns, own = found[0] if len(found) == 1 else (torch.cat(each) for each in zip(*found, strict=True))
        rows, columns = rows.masked_fill(~has_rows, 0), columns.masked_fill(~has_columns, 0)
        ctx.pairs, ctx.start = pairs, start
        ctx.save_for_backward(first, second, rows, columns, *kept)
        return (*(sums.log().masked_fill_(sums == 0, _Sums.NOTHING) for sums in (rows, columns)), own)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any,  # noqa: ANN401 - torch does not type what it passes
        grad_rows: Tensor,
        grad_columns: Tensor,
        grad_own: Tensor,
    ) -> tuple[Tensor | None, ...]:
        first, second, rows, columns, *kept = ctx.saved_tensors
        per_row = (grad_rows / rows).masked_fill_(rows == 0, 0)[:, :, None]
        per_column = (grad_columns / columns).masked_fill_(columns == 0, 0)[:, None]
        grad_first, grad_second = first.new_zeros(first.shape), second.new_zeros(second.shape)
        for part, terms in zip(_parts(ctx.pairs, kept[0][0].numel(), first.device), kept, strict=True):
            # On a CPU some rows at a time, in memory that is used again: new memory costs as much as a product.
            size, height, width = terms.shape
            few = max(1, min(height, _HELD // max(1, size * width) if terms.device.type == "cpu" else height))
            held = terms.new_empty(size * few * width)
            for begin in range(0, height, few):
                here = slice(begin, min(begin + few, height))
                grad = held[: size * (here.stop - begin) * width].view(size, -1, width)
                torch.add(per_row[part, here], per_column[part], out=grad)
                grad *= terms[:, here]
                grad.diagonal(ctx.start + begin, 1, 2).add_(grad_own[part, here])
                for (m, n), of_one in zip(ctx.pairs[part], grad, strict=True):
                    grad_first[m, here].addmm_(of_one, second[n])
                    grad_second[n].addmm_(of_one.mT, first[m, here])
        return grad_first, grad_second, None, None, None, None, None, None


def _parts(pairs: Pairs, similarities: int, device: torch.device) -> Iterator[slice]:
    """Yield which pairs are computed together."""
    together = len(pairs) if device.type != "cpu" else max(1, _TOGETHER // max(1, similarities))
    for begin in range(0, len(pairs), together):
        yield slice(begin, begin + together)


def _chosen(tensors: Tensor, pairs: Pairs, side: int) -> Tensor:
    """Return those of one side of pairs; a view of that of one pair."""
    if len(pairs) == 1:
        at = pairs[0][side]
        return tensors[at : at + 1]
    return torch.stack([tensors[pair[side]] for pair in pairs])


def log_sums(
    first: Tensor,
    second: Tensor,
    has_first: Tensor,
    has_second: Tensor,
    pairs: Pairs = ((0, 0),),
    *,
    left_out: Tensor | None = None,
    start: int = 0,
    shift: float = 0.0,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return log sums of exp(first second' - shift) over columns and over rows, and the products of each with itself.

    Args:
        first: (M, b, d) of this process, zero where absent.
        second: (N, B, d) of all processes, likewise.
        has_first: (M, b) bool.
        has_second: (N, B) bool.
        pairs: P pairs of one of M and one of N.
        left_out: (b, B) bool, what is in no sum; None: nothing.
        start: where the instances of ``first`` begin among those of ``second``.
        shift: to be subtracted from the logits. Cosines over a temperature of ``LearnedTemperature.LOW`` or more
            need none: exp neither overflows nor vanishes, in any row or column.

    Returns: (P, b) for every row, (P, B) for every column, (P, b) the logits themselves.
    """
    rows, columns, own = _Sums.apply(first, second, has_first, has_second, left_out, pairs, start, shift)  # type: ignore[no-untyped-call]
    return rows, columns, own
