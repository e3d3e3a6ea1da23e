"""How many scores lie above a right answer's, and how many tie with it: the one comparison behind all ranks.

Scores are float32 cosines. The same pair of vectors scores differently in different matrix products, by some 1e-7:
a comparison without tolerance lets 45 % of exact copies count themselves. So right answers are excluded by their
places, and scores within ``TIE_BAND`` of a right answer's tie with it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["TIE_BAND", "Tally"]

TIE_BAND = 2e-6
"""Cosines closer than this tie: ten times the rounding of a float32 product of 512 columns."""

_WORD = 8  # flags in one integer that are added at once
_MOST = 255  # integers whose eight sums of flags fit in a byte each


class Tally:
    """Scores beyond those of the right answers, one each for n queries, counted tile by tile.

    Args:
        own: (n,) float32 scores of the right answers.
    """

    def __init__(self, own: Tensor) -> None:
        self._edges = torch.stack([own + TIE_BAND, own - TIE_BAND])
        self._counts = torch.zeros(self._edges.shape, dtype=torch.int64, device=own.device)
        self._memory = np.empty(0, dtype=np.bool_)  # fresh memory is slow

    def add(self, scores: Tensor, piece: slice = slice(None), *, by: int) -> None:
        """Count a tile of scores, minus infinity where an answer is right.

        Args:
            scores: (q, c) float32.
            piece: which of the n queries its rows or columns are.
            by: 1 where its rows are those queries, 0 where its columns are.
        """
        edges, counts = self._edges[:, piece], self._counts[:, piece]
        if scores.device.type != "cpu":
            counts[0] += (scores > edges[0].unsqueeze(by)).sum(by)
            counts[1] += (scores >= edges[1].unsqueeze(by)).sum(by)
            return
        flags = self._flags(*scores.shape)
        for edge, beyond in enumerate((np.greater, np.greater_equal)):
            beyond(scores.numpy(), np.expand_dims(edges[edge].numpy(), by), out=flags[:, : scores.shape[1]])
            _add_flags(flags, counts[edge].numpy(), by)

    def _flags(self, rows: int, columns: int) -> npt.NDArray[np.bool_]:
        """Return memory for the flags of a tile: whole words of columns, False beyond those of the tile."""
        width = -(-columns // _WORD) * _WORD
        if len(self._memory) < rows * width:
            self._memory = np.empty(rows * width, dtype=np.bool_)
        flags = self._memory[: rows * width].reshape(rows, width)
        flags[:, columns:] = False
        return flags

    @property
    def counts(self) -> Tensor:
        """(2, n) int64: how many scores are greater, and how many are no less."""
        return self._counts

    def greater_and_tied(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return (n,) how many scores are greater, and how many tie."""
        greater, not_less = self._counts.cpu().numpy()
        return greater, not_less - greater


def _add_flags(flags: npt.NDArray[np.bool_], counts: npt.NDArray[np.int64], by: int) -> None:
    """Add the sums of (q, w) flags along a dimension to counts: eight flags are one integer, of a byte for each."""
    words = flags.view(np.uint64)
    for start in range(0, words.shape[by], _MOST):
        some = slice(start, start + _MOST)
        if by == 1:
            counts += words[:, some].sum(1).view(np.uint8).reshape(-1, _WORD).sum(1, dtype=np.int64)
        else:
            counts += words[some].sum(0).view(np.uint8)[: len(counts)]
