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


class Tally:
    """Scores beyond those of the right answers, one each for n queries, counted tile by tile.

    Args:
        own: (n,) float32 scores of the right answers.
    """

    def __init__(self, own: Tensor) -> None:
        self._edges = torch.stack([own + TIE_BAND, own - TIE_BAND])
        self._counts = torch.zeros_like(self._edges, dtype=torch.float64)  # whole numbers

    def add(self, scores: Tensor, piece: slice = slice(None), *, by: int, flags: Tensor | None = None) -> None:
        """Count a tile of scores, minus infinity where an answer is right.

        Args:
            scores: (q, c) float32.
            piece: which of the n queries its rows or columns are.
            by: 1 where its rows are those queries, 0 where its columns are.
            flags: memory of the shape of the scores, for fresh memory is slow.
        """
        # Sums of whole float flags are exact to 2^24, and several times as fast as those of booleans.
        flags = torch.empty_like(scores) if flags is None else flags
        for edge, beyond in enumerate((torch.gt, torch.ge)):
            beyond(scores, self._edges[edge, piece].unsqueeze(by), out=flags)
            self._counts[edge, piece] += flags.sum(by)

    @property
    def counts(self) -> Tensor:
        """(2, n) float64: how many scores are greater, and how many are no less."""
        return self._counts

    def greater_and_tied(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return (n,) how many scores are greater, and how many tie."""
        greater, not_less = self._counts.long().cpu().numpy()
        return greater, not_less - greater
