"""Arrays of plain bytes, read with ordinary sequential reads: what npy, npz and safetensors share."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import cycle
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pmrl_cli.files.formats.contents import (
    MAX_DIM,
    Block,
    Column,
    Vectors,
    reading,
    rows_per_block,
)
from pmrl_cli.files.formats.layout import Array, dims_of, rows_and_dim, shaped

__all__ = ["Header", "Opener", "fill", "npy_array", "npy_column", "npy_vectors", "read_array", "stream"]

Opener = Callable[[], AbstractContextManager[IO[bytes]]]

_VERSIONS = ((1, 0), (2, 0), (3, 0))


class Header:
    """Shape, type, order and start of the bytes of an array in the npy format.

    Raises: ValueError, or what NumPy raises, for a header that is none.
    """

    def __init__(self, file: IO[bytes]) -> None:
        version = np.lib.format.read_magic(file)
        if version not in _VERSIONS:
            message = f"npy format {version[0]}.{version[1]}, known are 1.0, 2.0 and 3.0"
            raise ValueError(message)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of headers that Python 2 wrote: read all the same
            self.shape, self.fortran, self.dtype = read(file)
        if any(size < 0 for size in self.shape):
            message = f"a shape of {self.shape}"
            raise ValueError(message)
        self.start = file.tell()

    @property
    def bytes(self) -> int:
        """Bytes of all elements."""
        return int(np.prod(self.shape, dtype=object)) * int(self.dtype.itemsize)

    @property
    def native(self) -> np.dtype[Any]:
        """The type in this machine's byte order."""
        return self.dtype.newbyteorder("=")


def npy_array(name: str, header: Header) -> Array | None:
    """Return the array of numbers that a header announces, None if it can be no features."""
    native = header.native
    single = len(header.shape) > 1 and dims_of(header.shape) == 1 and native.kind in "iu"
    usable = 1 <= len(header.shape) <= 4 and native.kind in "fiu" and dims_of(header.shape) <= MAX_DIM and not single
    return Array(name, tuple(int(size) for size in header.shape), native.name) if usable else None


def npy_vectors(
    path: Path, name: str | None, opener: Opener, header: Header, pool: str | None
) -> Vectors | str | None:
    """Return an array of two axes or more as vectors, a phrase if it must be pooled, None if it is no features."""
    array = npy_array(name or path.name, header)
    sizes = None if array is None else rows_and_dim(array.shape)
    if array is None or sizes is None:
        return None
    rows, length, dim = sizes

    def blocks() -> Iterator[Block]:
        with reading(str(path), name), opener() as file:
            if header.fortran and len(header.shape) > 1:
                # stored column by column: no block of rows is contiguous, so the array is held whole
                yield np.ascontiguousarray(read_array(file)).reshape(rows, -1), None
            else:
                file.read(header.start)
                yield from stream(file, rows, length * dim, header.dtype)

    return shaped(Vectors(str(path), name, rows, dim, header.native.name, blocks), array.shape, pool)


def read_array(file: IO[bytes]) -> npt.NDArray[Any]:
    """Return the whole array of an npy file, in this machine's byte order."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
    return values.astype(values.dtype.newbyteorder("="), copy=False)


def npy_column(path: Path, name: str | None, opener: Opener, header: Header) -> Column | None:
    """Return an array of one value a row as a column, None if it is none."""
    native, shape = header.native, header.shape
    single = len(shape) > 1 and dims_of(shape) == 1 and native.kind in "SUiu"
    if native.kind not in "SUiufb" or not (len(shape) == 1 or single):
        return None

    def load(*, text: bool = False) -> pa.Array:
        with reading(str(path), name), opener() as file:
            values = read_array(file).reshape(-1)
        if values.dtype.kind in "SU":
            return pa.array(values.tolist(), pa.large_binary() if values.dtype.kind == "S" else pa.large_string())
        return pa.array(values)

    return Column(name or path.name, int(shape[0]), native.kind in "SUiu", load)


def stream(file: IO[bytes], rows: int, width: int, dtype: np.dtype[Any]) -> Iterator[Block]:
    """Yield rows of so many numbers, which follow each other in a file from where it stands."""
    step = max(1, min(rows, rows_per_block(width, dtype.itemsize)))
    buffers = cycle([np.empty((step, width), dtype=dtype) for _ in range(2)])
    for start in range(0, rows, step):
        block = next(buffers)[: min(step, rows - start)]
        fill(file, block)
        yield block.astype(dtype.newbyteorder("="), copy=False), None


def fill(file: IO[bytes], array: npt.NDArray[Any]) -> None:
    """Fill an array with the next bytes of a file.

    Raises: EOFError if there are too few.
    """
    view = memoryview(array.reshape(-1).view(np.uint8).data)
    while view:
        count = file.readinto(view)  # type: ignore[attr-defined] # every binary file has it
        if not count:
            message = "the file ends before its array does"
            raise EOFError(message)
        view = view[count:]
