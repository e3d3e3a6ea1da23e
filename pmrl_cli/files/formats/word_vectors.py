"""Word vectors as word2vec, GloVe and fastText write them: a line for each word, or binary; the words are the ids."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from pmrl_cli.files.formats.contents import (
    MAX_DIM,
    Block,
    Contents,
    ProbeOptions,
    Vectors,
    reading,
    rows_per_block,
    text_column,
)

__all__ = ["HEADER", "probe"]

HEADER = re.compile(rb"\s*(\d{1,12})[ \t](\d{1,8})\s*")
"""The first line of word2vec's and fastText's files: how many words, of how many dimensions. GloVe has none."""

_LONGEST = 2**24
"""A line, or a word, is read no further than this."""

Entry = tuple[str, npt.NDArray[np.float32]]


def probe(path: Path, options: ProbeOptions) -> Contents:
    """Return the vectors of a file of words; one of plain text holds none.

    Raises: DataError if it cannot be read, or is cut short.
    """
    with reading(str(path)):
        binary = path.suffix.lower() == ".bin"
        dim = _dim(path)
        if not 1 < dim <= MAX_DIM:
            return Contents(str(path), others=("text without a word and its numbers in each line",))
        with path.open("rb") as file:
            words = [word for word, _ in _entries(file, dim, binary=binary)]

    def blocks() -> Iterator[Block]:
        step = rows_per_block(dim, 4)
        block = np.empty((min(step, len(words)), dim), dtype=np.float32)
        filled = 0
        with reading(str(path)), path.open("rb") as file:
            for _, vector in _entries(file, dim, binary=binary):
                block[filled] = vector
                filled += 1
                if filled == len(block):
                    yield block.copy(), None
                    filled = 0
        if filled:
            yield block[:filled].copy(), None

    vectors = Vectors(str(path), None, len(words), dim, "float32", blocks, ids="words")
    return Contents(str(path), (vectors,), (text_column("words", words),))


def _dim(path: Path) -> int:
    """Return the numbers behind the first word, 0 if there are none."""
    with path.open("rb") as file:
        first = file.readline(_LONGEST)
    header = HEADER.fullmatch(first)
    if header is not None:
        return int(header[2])
    numbers = 0
    for part in reversed(re.split(rb"[ \t]", first.strip())[1:]):
        try:
            float(part)
        except ValueError:
            break
        numbers += 1
    return numbers


def _entries(file: BinaryIO, dim: int, *, binary: bool) -> Iterator[Entry]:
    """Yield the words and their vectors.

    Raises: ValueError or EOFError for a file that is not as it begins.
    """
    header = HEADER.fullmatch(file.readline(_LONGEST))
    if header is None:
        file.seek(0)
    count = 0
    for entry in _binary(file, dim, int(header[1]) if header else 0) if binary else _lines(file, dim):
        yield entry
        count += 1
    if header is not None and count != int(header[1]):
        message = f"{count} words where its first line says {int(header[1])}"
        raise ValueError(message)


def _lines(file: BinaryIO, dim: int) -> Iterator[Entry]:
    for line in file:
        if not line.strip():
            continue
        word, *numbers = line.decode().replace("\t", " ").rstrip().rsplit(" ", dim)
        if len(numbers) != dim:
            message = f"{len(numbers)} numbers behind {word[:40]!r}, not {dim}"
            raise ValueError(message)
        yield word, np.array(numbers, dtype=np.float32)


def _binary(file: BinaryIO, dim: int, count: int) -> Iterator[Entry]:
    for _ in range(count):
        word = bytearray()
        while (letter := file.read(1)) != b" ":
            if not letter or len(word) > _LONGEST:
                message = "the file ends before its words do"
                raise EOFError(message)
            word += letter
        values = file.read(4 * dim)
        if len(values) < 4 * dim:
            message = "the file ends before its words do"
            raise EOFError(message)
        yield word.decode().lstrip("\n"), np.frombuffer(values, dtype="<f4").astype(np.float32)
