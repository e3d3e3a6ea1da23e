"""The options of an export that make vectors smaller, and what they come to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pmrl_cli.errors import Place, StateError, UsageError
from pmrl_cli.flags import flag

if TYPE_CHECKING:
    from pmrl_cli.aligner import Aligner
    from pmrl_cli.codes.compression import Compression
    from pmrl_cli.data.dataset import Dataset, FloatArray
    from pmrl_cli.files.artifacts.compressed import Compressed

__all__ = ["CompressionOptions", "compressed_by", "compression_of"]

SAMPLE = 20_000
"""Vectors, about, that channels and codes are found among; the instances are chosen by hash."""


@dataclass(frozen=True)
class CompressionOptions:
    """Fewer channels, and codes."""

    PANEL: ClassVar = "Smaller vectors"

    dim: int | None = flag(
        None,
        "--dim",
        metavar="D",
        min=1,
        help="Reduce the space to its D principal axes.",
    )
    keep_channels: int | None = flag(
        None, "--keep-channels", metavar="N", min=1, help="Keep the N dimensions in which codes differ most (TOC)."
    )
    codes: int | None = flag(
        None, "--codes", metavar="K", min=2, help="Number every vector by the nearest of K codes (k-means)."
    )
    like: Path | None = flag(
        None, "--like", metavar="EXPORT", help="Take channels and codes of an earlier export, for vectors that match."
    )

    def given(self) -> dict[str, object]:
        """The options by name."""
        return {"--dim": self.dim, "--keep-channels": self.keep_channels, "--codes": self.codes, "--like": self.like}


def compression_of(asked: CompressionOptions, aligner: Aligner, dataset: Dataset) -> Compression:
    """Return what the options come to: the same in every process and for every shard of the data set.

    Codes that the model has (``fit --objective fcid``) are always written.

    Raises: UsageError for options that contradict each other or the model; StateError for an export of other vectors;
        DataError for too few vectors.
    """
    from pmrl_cli.codes.compression import Compression, compression_from_vectors

    own = aligner.codes
    if asked.like is not None:
        return _like(asked, aligner)
    if own is not None and asked.codes not in (None, len(own)):
        raise UsageError(
            what="model has codes of its own",
            found=f"--codes {asked.codes} and a model of {len(own)} codes",
            expected=f"--codes {len(own)}, or none",
            next_step="Leave --codes out: they are written anyway.",
        )
    if asked.keep_channels is None and (own is not None or asked.codes is None):
        return Compression(own)
    return compression_from_vectors(
        _sample(aligner, dataset), codes=asked.codes, keep=asked.keep_channels, codebook=own
    )


def compressed_by(compression: Compression, dim: int, *, writes: bool) -> Compressed | None:
    """Return what an export says of its compression, None without any; one process writes its codebook."""
    from pmrl_cli.files.artifacts.compressed import Compressed

    codebook, channels = compression.codebook, compression.channels
    if codebook is None and channels is None:
        return None
    return Compressed(dim, codebook, None if channels is None else tuple(channels.tolist()), writes)


def _like(asked: CompressionOptions, aligner: Aligner) -> Compression:
    import numpy as np

    from pmrl_cli.codes.compression import Compression
    from pmrl_cli.files.artifacts.compressed import read_compressed

    assert asked.like is not None
    if asked.keep_channels is not None or asked.codes is not None:
        raise UsageError(
            what="--like with options of its own",
            found=", ".join(name for name, value in asked.given().items() if value is not None and name != "--dim"),
            expected="--like alone: the export says how many",
            next_step="Leave the others out.",
        )
    found = read_compressed(asked.like)
    if found.dim != aligner.dim:
        raise StateError(
            what="export of another space",
            at=Place(str(asked.like)),
            found=f"{found.dim} dimensions before channels were left out",
            expected=f"{aligner.dim}, as the model has",
            next_step="Name an export of the same model.",
        )
    return Compression(found.codebook, None if found.channels is None else np.array(found.channels, dtype=np.int64))


def _sample(aligner: Aligner, dataset: Dataset) -> FloatArray:
    """Return (n, d) vectors of all modalities, of instances chosen by hash."""
    import numpy as np

    from pmrl_cli.data.ids import hash_ids

    count = -(-SAMPLE // len(dataset.names))
    rows = np.arange(len(dataset))
    if len(rows) > count:
        rows = np.sort(np.argsort(hash_ids(dataset.ids, 0), kind="stable")[:count])
    found = [block.embeddings[block.present] for block in aligner.embed(dataset, rows)]
    return np.concatenate(found) if found else np.zeros((0, aligner.dim), dtype=np.float32)
