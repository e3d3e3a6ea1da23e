"""The numbers of an instance that a pass summarises, and where each stands."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pmrl_cli.stats.instances import InstanceStatistics, pairs_of

__all__ = ["Columns", "numbers_of", "ranges_of"]


class Columns:
    """Where each number stands among the columns of ``numbers_of``.

    Args:
        k: modalities.

    Attributes:
        rho: columns of rho with 2, 3, .. K modalities.
        signed: column.
        mixed: column.
        load: columns, by modality.
        cosine: columns, in the order of ``pairs_of``.
    """

    def __init__(self, k: int) -> None:
        self.rho = range(k - 1)
        self.signed, self.mixed = k - 1, k
        self.load = range(k + 1, 2 * k + 1)
        self.cosine = range(2 * k + 1, 2 * k + 1 + len(pairs_of(k)))


def ranges_of(k: int) -> tuple[list[float], list[float]]:
    """Return the least and greatest value of each column of ``numbers_of``."""
    pairs = len(pairs_of(k))
    lows = [1 / k] * (k - 1) + [0.0, 0.0] + [0.0] * k + [-1.0] * pairs
    highs = [1.0] * (k - 1) + [1.0, 1.0] + [k**0.5] * k + [1.0] * pairs
    return lows, highs


def numbers_of(found: InstanceStatistics, present: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return the numbers that are summarised, NaN where an instance has none.

    Returns: (B, S): rho by number of modalities (2 .. K), signed, mixed, K loadings, P cosines.
    """
    k = present.shape[1]
    rho = np.full((len(present), k - 1), np.nan)
    rho[np.arange(len(present)), found.number - 2] = found.rho
    return np.concatenate([rho, found.signed[:, None], found.mixed[:, None], found.loading, found.cosine], axis=1)
