"""Pickled files, which run the code they hold when they are opened: recognised by their first bytes, never opened."""

from __future__ import annotations

import zipfile
from pathlib import Path

from pmrl_cli.errors import Place, PolicyError
from pmrl_cli.files.formats.contents import reading
from pmrl_cli.files.formats.word_vectors import HEADER

__all__ = ["refuse_pickle"]

_SUFFIXES = frozenset({".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib", ".dill"})


def refuse_pickle(path: Path) -> None:
    """Refuse a pickle or a PyTorch archive, whatever its suffix says it is.

    Args:
        path: a regular file.

    Raises: PolicyError; DataError if it cannot be read.
    """
    suffix = path.suffix.lower()
    with reading(str(path)):
        with path.open("rb") as file:
            head = file.read(2)
        # the header of a safetensors file of that length begins alike
        plain = len(head) == 2 and head[0] == 0x80 and 2 <= head[1] <= 5 and suffix != ".safetensors"
        with path.open("rb") as file:
            words = suffix == ".bin" and HEADER.fullmatch(file.readline(64)) is not None
        pickled = plain or (suffix in _SUFFIXES and not words)
        if head == b"PK" and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                pickled = pickled or any(name.endswith(".pkl") for name in archive.namelist())
    if pickled:
        raise PolicyError(
            what="refused",
            at=Place(str(path)),
            found="a pickle, or a file that is one by its suffix",
            expected="a format that cannot run code",
            next_step="Save the arrays as npy, safetensors, HDF5 or Parquet.",
        )
