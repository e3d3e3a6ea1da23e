"""npy: one array; of records, a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pmrl_cli.errors import Place, PolicyError
from pmrl_cli.files.formats.arrays import Header, npy_column, npy_vectors
from pmrl_cli.files.formats.contents import Column, Contents, ProbeOptions, Vectors, reading
from pmrl_cli.files.formats.tables import Table, contents_of

__all__ = ["check_header", "probe"]


def probe(path: Path, options: ProbeOptions) -> Contents:
    """Return the one array of an npy file, or the fields of its records.

    Raises: DataError if it cannot be read or is cut short; PolicyError if it is pickled.
    """
    vectors: list[Vectors] = []
    columns: list[Column] = []
    others, unpooled = [], []
    with reading(str(path)):
        with path.open("rb") as file:
            header = Header(file)
        check_header(path, None, header, path.stat().st_size)
        if header.dtype.names is not None and len(header.shape) == 1:
            return contents_of(path, lambda: _records(path), options, path.stat().st_size)
        found = npy_vectors(path, None, lambda: path.open("rb"), header, options.pool)
        column = npy_column(path, None, lambda: path.open("rb"), header)
        if isinstance(found, Vectors) and column is None:
            vectors.append(found)
        elif column is not None:
            columns.append(column)
        elif isinstance(found, str):
            unpooled.append(found)
        else:
            others.append(f"{path.name} ({header.native} of shape {header.shape})")
    return Contents(str(path), tuple(vectors), tuple(columns), tuple(others), unpooled=tuple(unpooled))


class _Records:
    """An array of records as a table: a column for each field of numbers or text, of up to two axes."""

    def __init__(self, path: Path) -> None:
        with path.open("rb") as file:
            empty = 0 in Header(file).shape  # which cannot be mapped
        self._array: npt.NDArray[Any] = np.load(path, mmap_mode=None if empty else "r", allow_pickle=False)
        fields = {name: _field_type(self._array.dtype[name]) for name in self._array.dtype.names or ()}
        self.schema = pa.schema([(name, kind) for name, kind in fields.items() if kind is not None])
        self.rows = len(self._array)

    def batches(self, names: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield some fields in order."""
        schema = pa.schema([self.schema.field(name) for name in names])
        for start in range(0, self.rows, rows):
            part = self._array[start : start + rows]
            columns = [_field(np.ascontiguousarray(part[name]), schema.field(name).type) for name in names]
            yield pa.record_batch(columns, schema=schema)


def _field_type(kind: np.dtype[Any]) -> pa.DataType | None:
    base, shape = kind.subdtype or (kind, ())
    if base.kind not in "iufbSU" or len(shape) > 2:
        return None
    if base.kind in "SU":
        return None if shape else pa.large_string() if base.kind == "U" else pa.large_binary()
    of = pa.from_numpy_dtype(base.newbyteorder("="))
    for size in reversed(shape):
        of = pa.list_(of, size)
    return of


def _field(values: npt.NDArray[Any], kind: pa.DataType) -> pa.Array:
    if values.dtype.kind in "SU":
        return pa.array(values.tolist(), kind)
    flat = pa.array(values.reshape(-1).astype(values.dtype.newbyteorder("="), copy=False))
    for size in reversed(values.shape[1:]):
        flat = pa.FixedSizeListArray.from_arrays(flat, size)
    return flat.cast(kind)


@contextmanager
def _records(path: Path) -> Iterator[Table]:
    yield _Records(path)


def check_header(path: Path, name: str | None, header: Header, size: int) -> None:
    """Hold a header to the bytes that follow it.

    Raises: PolicyError if it announces pickled objects; EOFError if there are fewer bytes than it says.
    """
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
