"""A codebook of unit vectors: k-means with seeds far apart, the same on every machine."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pmrl_cli.errors import DataError

__all__ = ["fit_codebook", "nearest_codes"]

_ROUNDS = 25
_BLOCK = 8192

Vectors = npt.NDArray[np.float32]


def _nearest(vectors: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """Return (n,) nearest code of each vector and the squared distance to it."""
    codes, distances = [], []
    for block in torch.split(vectors, _BLOCK):
        squared = codebook.square().sum(1) - 2 * block @ codebook.T + block.square().sum(1, keepdim=True)
        least, code = squared.min(1)
        codes.append(code)
        distances.append(least.clamp_min(0))
    return torch.cat(codes), torch.cat(distances)


def nearest_codes(vectors: Vectors, codebook: Vectors) -> npt.NDArray[np.int32]:
    """Return (n,) number of the code nearest to each vector by Euclidean distance; of equals the first.

    Args:
        vectors: (n, d), n of 0 or more.
        codebook: (N, d).
    """
    if len(vectors) == 0:
        return np.zeros(0, dtype=np.int32)
    codes, _ = _nearest(torch.from_numpy(np.ascontiguousarray(vectors)), torch.from_numpy(codebook))
    return codes.numpy().astype(np.int32)


def _seeds(vectors: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return (count, d) vectors, each drawn by its squared distance to those before it."""
    first = int(torch.randint(len(vectors), (1,), generator=generator))
    chosen = [first]
    distances = (vectors - vectors[first]).square().sum(1)
    for _ in range(count - 1):
        total = distances.cumsum(0, dtype=torch.float64)
        if float(total[-1]) == 0:
            raise _too_few(len(chosen), count)
        draw = torch.rand(1, generator=generator, dtype=torch.float64) * total[-1]
        at = min(int(torch.searchsorted(total, draw)), len(vectors) - 1)
        chosen.append(at)
        distances = torch.minimum(distances, (vectors - vectors[at]).square().sum(1))
    return vectors[chosen].clone()


def _too_few(distinct: int, count: int) -> DataError:
    return DataError(
        what="too few vectors for the codebook",
        found=f"{distinct:,} distinct vectors for {count:,} codes",
        expected=f"{count:,} or more",
        next_step=f"Lower --codes to {max(2, distinct // 4)}.",
    )


def fit_codebook(vectors: Vectors, count: int, *, seed: int = 0) -> Vectors:
    """Return (count, d) codes, each the mean of the vectors nearest to it.

    Lloyd's rounds from k-means++ seeds, until nothing changes. A code that is left without vectors takes the vector
    that is farthest from its own code, so that all codes are used.

    Args:
        vectors: (n, d) of all modalities together, n of ``count`` or more.
        count: codes.
        seed: of the seeds.

    Raises: DataError for fewer distinct vectors than codes.

    Source: Arthur, Vassilvitskii, "k-means++: The Advantages of Careful Seeding", SODA 2007.
    """
    pool = torch.from_numpy(np.ascontiguousarray(vectors, dtype=np.float32))
    if len(pool) == 0:
        raise _too_few(0, count)
    codebook = _seeds(pool, count, torch.Generator().manual_seed(seed))
    codes = torch.full((len(pool),), -1)
    for _ in range(_ROUNDS):
        found, distances = _nearest(pool, codebook)
        used = torch.bincount(found, minlength=count)
        for empty in (used == 0).nonzero()[:, 0].tolist():
            farthest = int(distances.argmax())
            used[found[farthest]] -= 1
            found[farthest], distances[farthest], used[empty] = empty, 0, 1
        if bool((found == codes).all()):
            break
        codes = found
        sums = torch.zeros(count, pool.shape[1], dtype=torch.float64).index_add_(0, codes, pool.double())
        codebook = (sums / torch.bincount(codes, minlength=count)[:, None]).float()
    return codebook.numpy()
