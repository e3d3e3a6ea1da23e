"""What a feature file holds, whatever its format: arrays that can be streamed by block, and columns.

Every format has one ``probe`` that returns ``Contents`` without reading a value, so discovery can choose among
all files before any of them is read.
"""

from __future__ import annotations

import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tokenize import TokenError
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from safetensors import SafetensorError

from pmrl_cli.errors import Place, PolicyError
from pmrl_cli.files.formats.regular import unreadable

__all__ = [
    "BFLOAT16",
    "FLOATS",
    "MAX_DIM",
    "READ_BYTES",
    "Block",
    "Column",
    "Contents",
    "ProbeOptions",
    "Refused",
    "Vectors",
    "bytes_of",
    "reading",
    "refuse_bomb",
    "rows_per_block",
    "signature",
    "text_column",
    "to_float32",
]

Block = tuple[npt.NDArray[np.generic], npt.NDArray[np.bool_] | None]
"""Consecutive rows in the file's own type, and which of them are null (None: none can be). The array is valid
until the block after the next is asked for, so that one can be hashed while the next is checked."""

BFLOAT16 = "bfloat16"
FLOATS = ("float16", "float32", "float64", BFLOAT16)

READ_BYTES = 8 * 2**20
"""Bytes one block of one array may take."""

MAX_DIM = 2**23
"""Columns beyond which a row is no vector of features: one row must fit a block that two processes share."""


@dataclass(frozen=True)
class Vectors:
    """One array of features in one file.

    Args:
        file: path as the user typed it.
        name: HDF5 dataset, column or member; None where the file is the array.
        rows: n, at least 0.
        dim: d_m.
        dtype: one of ``FLOATS``, or an integer type (which discovery refuses by name).
        blocks: streams all rows in file order.
        ids: name of the column that names its rows, where the format itself names it (keys of a file, the index of
            a data frame); None to go by the names of columns.
        modality: what the format calls it, which is then taken before others; ``""`` if the name of the file says
            more. None to go by the names of files and arrays.
        axes: which matrix its columns are principal axes of, where they are found in that matrix itself: equal
            columns of another matrix mean something else. Empty for columns that mean the same in every file.
    """

    file: str
    name: str | None
    rows: int
    dim: int
    dtype: str
    blocks: Callable[[], Iterator[Block]]
    ids: str | None = None
    modality: str | None = None
    axes: str = ""

    def __str__(self) -> str:
        return f"{self.name or Path(self.file).name} ({self.rows} x {self.dim} {self.dtype})"


@dataclass(frozen=True)
class Column:
    """One scalar per row: ids, a label, a group.

    Args:
        name: as in the file; HDF5 datasets by full path.
        rows: n.
        nameable: True for text and integers, which can be ids.
        load: reads it as an Arrow array; ``text=True`` keeps what is written (leading zeros of a CSV).
        index: it is the index of a data frame without a name: the ids if no other column is.
    """

    name: str
    rows: int
    nameable: bool
    load: Callable[..., pa.Array]
    index: bool = False


@dataclass(frozen=True)
class ProbeOptions:
    """What a probe is asked beside the path.

    Args:
        pool: how several vectors of one instance become one, ``mean``, ``max`` or ``first``; None: they do not.
        columns: numeric columns of a table that together are a vector: names with commas between, or a pattern such
            as ``f*``; None to go by their names. A single name is left to the choice among arrays.
        members: names of the files of a folder to read; none for all.
        components: of the truncated SVD that sparse matrices are read as; None: they are not read.
    """

    pool: str | None = None
    columns: str | None = None
    members: tuple[str, ...] = ()
    components: int | None = None


class Refused(NamedTuple):
    """An array or a column that pmrl does not read.

    Args:
        name: as in the file.
        found: what it is.
        expected: what is read instead.
        next_step: what helps.
    """

    name: str
    found: str
    expected: str
    next_step: str = "Copy the values themselves into a plain file."


@dataclass(frozen=True)
class Contents:
    """What one file holds.

    Args:
        file: path as the user typed it.
        vectors: arrays that could be features, of floats or integers.
        columns: scalar columns.
        others: what else was seen and why it cannot be features, one phrase each.
        notes: sentences worth showing (slow compression).
        side: names of the columns that describe the instances beside their features: side columns of the data set
            without being asked for.
        unpooled: arrays that hold several vectors of each instance, one phrase each: read once ``pool`` is given.
        refused: arrays and columns that pmrl does not read.
    """

    file: str
    vectors: tuple[Vectors, ...] = ()
    columns: tuple[Column, ...] = ()
    others: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    side: tuple[str, ...] = ()
    unpooled: tuple[str, ...] = ()
    refused: tuple[Refused, ...] = ()


def text_column(name: str, values: Sequence[str], *, index: bool = False) -> Column:
    """Return a column of texts that are known already."""

    def load(*, text: bool = False) -> pa.Array:
        return pa.array(values, pa.large_string())

    return Column(name, len(values), nameable=True, load=load, index=index)


_OPENING_BYTES = 2**16
_BOMB_BYTES = 256 * 2**20
_BOMB_RATIO = 1000


def refuse_bomb(place: Place, declared: int, stored: int) -> None:
    """Refuse an array that claims far more than the file can hold: features do not compress a thousandfold.

    Args:
        place: the array.
        declared: bytes of its shape and type.
        stored: bytes it takes in the file.

    Raises: PolicyError.
    """
    if declared > _BOMB_BYTES and declared > _BOMB_RATIO * stored:
        raise PolicyError(
            what="refused",
            at=place,
            found=f"{declared} declared bytes over {stored} stored",
            expected="stored values",
            next_step="Write the values themselves into the file.",
        )


def rows_per_block(dim: int, itemsize: int) -> int:
    """Rows whose vectors fill ``READ_BYTES`` (at least 1)."""
    return max(1, READ_BYTES // max(1, dim * itemsize))


def to_float32(block: npt.NDArray[np.generic], dtype: str) -> npt.NDArray[np.float32]:
    """Return a block as float32; a value beyond float32 becomes Inf, which the row check refuses.

    Args:
        block: (B, d) of the type ``dtype`` says; bfloat16 as uint16 bits.
        dtype: one of ``FLOATS``.
    """
    if dtype == BFLOAT16:
        return (block.astype(np.uint32) << 16).view(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        return block.astype(np.float32, copy=False)


def _files(path: Path, members: Sequence[str]) -> list[os.stat_result]:
    if members:
        return [(path / name).stat() for name in members]
    if not path.is_dir():
        return [path.stat()]
    return [(Path(folder) / name).stat() for folder, _, names in sorted(os.walk(path)) for name in sorted(names)]


def signature(path: Path, members: Sequence[str] = ()) -> tuple[int, ...]:
    """Return what changes when a file, or one in a folder, does: its size, its time of change in ns, its inode.

    Args:
        path: the file or folder.
        members: the files of the folder that are meant; none for all.

    Raises: OSError.
    """
    return tuple(n for status in _files(path, members) for n in (status.st_size, status.st_mtime_ns, status.st_ino))


def bytes_of(path: Path, members: Sequence[str] = ()) -> int:
    """Return the size of a file, or of all files in a folder with what it costs to open each.

    Raises: OSError.
    """
    return sum(status.st_size + _OPENING_BYTES for status in _files(path, members))


@contextmanager
def reading(file: str, dataset: str | None = None) -> Iterator[None]:
    """Turn what the format libraries raise on a damaged or unreadable file into one DataError.

    The list is what HDF5, Arrow, zip and safetensors were seen to raise on damaged files; OSError alone is not
    enough.
    """
    try:
        yield
    except (
        OSError,
        RuntimeError,
        SystemError,  # what h5py makes of an error inside a visit
        KeyError,
        ValueError,  # with UnicodeDecodeError and ArrowInvalid
        TypeError,
        EOFError,
        tarfile.TarError,
        TokenError,  # numpy reads npy headers with a tokenizer
        pa.ArrowException,
        zipfile.BadZipFile,
        zlib.error,
        SafetensorError,
    ) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        if isinstance(error, FileNotFoundError):  # Arrow's says only the path
            reason = "No such file or directory"
        raise unreadable(file, dataset, " ".join(reason.split())[:120]) from error
