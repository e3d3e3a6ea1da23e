"""The codebook and the channels of an export: what another export needs for vectors that match."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pmrl_cli.errors import DataError, Place
from pmrl_cli.files.durable.checksums import HashedFile, check_bytes, read_manifest
from pmrl_cli.files.formats.store import EXPORT, STORE

__all__ = ["Compressed", "read_compressed"]

CODEBOOK = "codebook.npy"


@dataclass(frozen=True)
class Compressed:
    """How the vectors of an export were made smaller.

    Args:
        dim: dimensions of the space.
        codebook: (N, dim) codes that vectors are numbered by; None if they are not.
        channels: ascending dimensions that were kept; None for all.
        writes: whether the codebook is written by this process.
    """

    dim: int
    codebook: npt.NDArray[np.float32] | None = None
    channels: tuple[int, ...] | None = None
    writes: bool = True

    def described(self) -> dict[str, object]:
        """Return what the manifest says of it."""
        return {
            "compressed": {
                "dim": self.dim,
                "codes": None if self.codebook is None else len(self.codebook),
                "channels": None if self.channels is None else list(self.channels),
            }
        }

    def write(self, folder: Path) -> dict[Path, str]:
        """Write the codebook, and return the SHA-256 (hex) of the file by its path."""
        if self.codebook is None or not self.writes:
            return {}
        path, content = folder / CODEBOOK, io.BytesIO()
        np.lib.format.write_array(content, np.ascontiguousarray(self.codebook), allow_pickle=False)
        with HashedFile(path) as file:
            file.write(content.getvalue())
        return {path: file.hexdigest()}


def read_compressed(folder: Path) -> Compressed:
    """Return how the vectors of an earlier export were made smaller.

    Raises: DataError for a folder that is no such export; StateError if it has changed.
    """
    manifest = read_manifest(folder)
    found = None if manifest is None or manifest.get("format") not in (EXPORT, STORE) else manifest.get("compressed")
    if manifest is None or found is None:
        raise DataError(
            what="no export with codes or channels",
            at=Place(str(folder)),
            found="another folder" if manifest is None else "an export of whole vectors",
            expected="what pmrl export wrote with --codes or --keep-channels",
            next_step="Name such a folder with --like.",
        )
    codebook = None
    if found["codes"] is not None:
        content = check_bytes(folder / CODEBOOK, manifest["files"][CODEBOOK])
        codebook = np.load(io.BytesIO(content), allow_pickle=False).astype(np.float32, copy=False)
    channels = None if found["channels"] is None else tuple(int(c) for c in found["channels"])
    return Compressed(int(found["dim"]), codebook, channels)
