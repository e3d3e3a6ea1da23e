"""What an export does to vectors beside writing them: channels left out, codes added."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pmrl_cli.codes.channels import choose_channels
from pmrl_cli.codes.kmeans import fit_codebook, nearest_codes
from pmrl_cli.data.dataset import EmbeddedBlock
from pmrl_cli.errors import DataError

__all__ = ["Compression", "compression_from_vectors"]

REFERENCE_CODES = 256
"""Codes that channels are chosen by, where none are asked for; fewer where there are fewer than four vectors each."""

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Compression:
    """Which dimensions of a space are kept, and what vectors are numbered by.

    Args:
        codebook: (N, d) codes of the whole space; None numbers nothing.
        channels: (c,) ascending dimensions that are kept; None keeps all.
    """

    codebook: Vectors | None = None
    channels: npt.NDArray[np.int64] | None = None

    def dim(self, dim: int) -> int:
        """Return the dimensions that are left of ``dim``."""
        return dim if self.channels is None else len(self.channels)

    def applied(self, blocks: Iterator[EmbeddedBlock]) -> Iterator[EmbeddedBlock]:
        """Yield blocks with codes, of the whole vectors, and with the kept dimensions at unit length again."""
        for block in blocks:
            whole = block.embeddings
            if self.codebook is not None:
                codes = nearest_codes(whole.reshape(-1, whole.shape[2]), self.codebook).reshape(block.present.shape)
                block = replace(block, codes=codes)
            if self.channels is not None:
                kept, fused = whole[..., self.channels], block.fused[..., self.channels]
                block = replace(block, embeddings=_unit(kept), fused=_unit(fused))
            yield block


def _unit(vectors: Vectors) -> Vectors:
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit: Vectors = np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
    return unit


def compression_from_vectors(
    vectors: Vectors, *, codes: int | None, keep: int | None, codebook: Vectors | None = None, seed: int = 0
) -> Compression:
    """Return codes and channels for a space, from some of its vectors.

    Args:
        vectors: (n, d) of all modalities, unit length.
        codes: how many codes to find among them by k-means; None for none.
        keep: how many dimensions to keep; None for all.
        codebook: (N, d) codes that the space has already: they are taken in place of others.
        seed: of k-means.

    Raises: DataError for fewer vectors than codes; UsageError for more dimensions than there are.
    """
    if codebook is None and codes is not None:
        codebook = fit_codebook(vectors, codes, seed=seed)
    if keep is None:
        return Compression(codebook)
    reference = codebook
    if reference is None:
        count = min(REFERENCE_CODES, len(vectors) // 4)
        if count < 2:
            raise DataError(
                what="too few vectors to choose channels by",
                found=f"{len(vectors):,}",
                expected="8 or more",
                next_step="Export more instances, or take the channels of another export with --like.",
            )
        reference = fit_codebook(vectors, count, seed=seed)
    return Compression(codebook, choose_channels(reference, keep))
