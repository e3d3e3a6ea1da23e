"""npy, npz and safetensors: arrays whose rows are plain bytes, read with ordinary sequential reads."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import cycle
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from safetensors import safe_open

from pmrl_cli.errors import Place, PolicyError
from pmrl_cli.files.formats.contents import (
    BFLOAT16,
    Block,
    Column,
    Contents,
    Vectors,
    reading,
    refuse_bomb,
    rows_per_block,
)

__all__ = ["probe_npy", "probe_npz", "probe_safetensors"]

_SAFETENSORS = {"F16": "float16", "F32": "float32", "F64": "float64", "BF16": BFLOAT16}
_SAFETENSORS |= {
    f"{sign}{bits}": f"{name}{bits}" for sign, name in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)
}

Opener = Callable[[], AbstractContextManager[IO[bytes]]]


def probe_npy(path: Path) -> Contents:
    """Return the one array of an npy file.

    Raises: DataError if it cannot be read or is cut short; PolicyError if it is pickled.
    """
    with reading(str(path)):
        return _contents(path, [_member(path, None, lambda: path.open("rb"), path.stat().st_size)])


def probe_npz(path: Path) -> Contents:
    """Return the arrays of an npz file: 2-D ones as vectors, 1-D ones as columns.

    Raises: DataError if it cannot be read or is cut short; PolicyError if a member is pickled.
    """

    def opener(name: str) -> Opener:
        @contextmanager
        def opened() -> Iterator[IO[bytes]]:
            with zipfile.ZipFile(path) as archive, archive.open(name) as file:
                yield file

        return opened

    with reading(str(path)), zipfile.ZipFile(path) as archive:
        members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        for info in members:
            refuse_bomb(Place(str(path), info.filename[:-4]), info.file_size, info.compress_size)
        return _contents(
            path, [_member(path, info.filename[:-4], opener(info.filename), info.file_size) for info in members]
        )


class _Header:
    """Shape, type, order and start of the bytes of an array in the npy format."""

    def __init__(self, file: IO[bytes]) -> None:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        self.shape, self.fortran, self.dtype = read(file)
        self.start = file.tell()

    @property
    def bytes(self) -> int:
        return int(np.prod(self.shape, dtype=object)) * int(self.dtype.itemsize)


def _member(path: Path, name: str | None, opener: Opener, size: int) -> Vectors | Column | str:
    with opener() as file:
        header = _Header(file)
    if header.dtype.hasobject:
        raise PolicyError(
            what="refused",
            at=Place(str(path), name),
            found="pickled Python objects",
            expected="an array of numbers or text",
            next_step="Save it again with a numeric or string dtype.",
        )
    if size < header.start + header.bytes:
        message = f"{size} bytes where the header says {header.start + header.bytes}"
        raise EOFError(message)
    native = header.dtype.newbyteorder("=")
    if len(header.shape) == 2 and native.kind in "fiu" and header.shape[1] > 0:
        rows, dim = header.shape
        blocks = _npy_blocks(path, name, opener, header)
        return Vectors(str(path), name, int(rows), int(dim), native.name, blocks)
    if len(header.shape) == 1 and native.kind in "SUiufb":
        return Column(name or path.name, int(header.shape[0]), native.kind in "SUiu", _npy_column(path, name, opener))
    return f"{name or path.name} ({native} of shape {header.shape})"


def _npy_blocks(path: Path, name: str | None, opener: Opener, header: _Header) -> Callable[[], Iterator[Block]]:
    rows, dim = header.shape

    def blocks() -> Iterator[Block]:
        with reading(str(path), name), opener() as file:
            file.read(header.start)
            if header.fortran:
                # stored column by column: no block of rows is contiguous, so the array is held whole
                whole = np.empty((dim, rows), dtype=header.dtype)
                _fill(file, whole)
                yield np.ascontiguousarray(whole.T, dtype=header.dtype.newbyteorder("=")), None
            else:
                yield from _stream(file, rows, dim, header.dtype)

    return blocks


def _npy_column(path: Path, name: str | None, opener: Opener) -> Callable[..., pa.Array]:
    def load(*, text: bool = False) -> pa.Array:
        with reading(str(path), name), opener() as file:
            values: npt.NDArray[Any] = np.lib.format.read_array(file, allow_pickle=False)
        if values.dtype.kind in "SU":
            return pa.array(values.tolist(), pa.large_binary() if values.dtype.kind == "S" else pa.large_string())
        return pa.array(values.astype(values.dtype.newbyteorder("=")))

    return load


def _contents(path: Path, found: list[Vectors | Column | str]) -> Contents:
    return Contents(
        str(path),
        tuple(item for item in found if isinstance(item, Vectors)),
        tuple(item for item in found if isinstance(item, Column)),
        tuple(item for item in found if isinstance(item, str)),
    )


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        message = "a name stands twice in its header"
        raise ValueError(message)
    return found


def probe_safetensors(path: Path) -> Contents:
    """Return the 2-D arrays of a safetensors file; the library checks its header, the rows are read as bytes.

    Raises: DataError if it cannot be read.
    """
    vectors: list[Vectors] = []
    others: list[str] = []
    with reading(str(path)):
        with safe_open(path, framework="np") as checked:
            names = sorted(checked.keys())
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(length), object_pairs_hook=_each_once)
        for name in names:
            entry = header[name]
            shape, kind = entry["shape"], _SAFETENSORS.get(entry["dtype"])
            if kind is None or len(shape) != 2 or shape[1] == 0:
                others.append(f"{name} ({entry['dtype']} of shape {tuple(shape)})")
                continue
            start = 8 + length + entry["data_offsets"][0]
            rows, dim = (int(size) for size in shape)
            vectors.append(Vectors(str(path), name, rows, dim, kind, _tensor_blocks(path, name, start, shape, kind)))
    return Contents(str(path), tuple(vectors), (), tuple(others))


def _tensor_blocks(path: Path, name: str, start: int, shape: list[int], kind: str) -> Callable[[], Iterator[Block]]:
    stored = np.dtype("uint16" if kind == BFLOAT16 else kind).newbyteorder("<")

    def blocks() -> Iterator[Block]:
        with reading(str(path), name), path.open("rb") as file:
            file.seek(start)
            yield from _stream(file, shape[0], shape[1], stored)

    return blocks


def _stream(file: IO[bytes], rows: int, dim: int, dtype: np.dtype[Any]) -> Iterator[Block]:
    step = max(1, min(rows, rows_per_block(dim, dtype.itemsize)))
    buffers = cycle([np.empty((step, dim), dtype=dtype) for _ in range(2)])
    for start in range(0, rows, step):
        block = next(buffers)[: min(step, rows - start)]
        _fill(file, block)
        yield block.astype(dtype.newbyteorder("="), copy=False), None


def _fill(file: IO[bytes], array: npt.NDArray[Any]) -> None:
    view = memoryview(array.reshape(-1).view(np.uint8).data)
    while view:
        count = file.readinto(view)  # type: ignore[attr-defined] # every binary file has it
        if not count:
            message = "the file ends before its array does"
            raise EOFError(message)
        view = view[count:]
