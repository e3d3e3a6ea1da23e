"""npy: one array."""

from __future__ import annotations

from pathlib import Path

from pmrl_cli.errors import Place, PolicyError
from pmrl_cli.files.formats.arrays import Header, npy_column, npy_vectors
from pmrl_cli.files.formats.contents import Column, Contents, ProbeOptions, Vectors, reading

__all__ = ["check_header", "probe"]


def probe(path: Path, options: ProbeOptions) -> Contents:
    """Return the one array of an npy file.

    Raises: DataError if it cannot be read or is cut short; PolicyError if it is pickled.
    """
    vectors: list[Vectors] = []
    columns: list[Column] = []
    others, unpooled = [], []
    with reading(str(path)):
        with path.open("rb") as file:
            header = Header(file)
        check_header(path, None, header, path.stat().st_size)
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
