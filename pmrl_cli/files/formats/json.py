"""JSON: one object of vectors by id, or a list of objects, read whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa

from pmrl_cli.errors import DataError, Place
from pmrl_cli.files.formats.contents import Contents, ProbeOptions, reading
from pmrl_cli.files.formats.tables import Table, contents_of, from_batches

__all__ = ["probe"]

_IDS = "keys"


def probe(path: Path, options: ProbeOptions) -> Contents:
    """Return what a JSON file holds: ``{id: vector}``, ``{id: {name: vector}}``, ``[{"id": …, …}]`` or columns.

    Raises: DataError if it cannot be read, or holds something else.
    """
    return contents_of(path, lambda: _opened(path), options, path.stat().st_size)


class _Objects:
    def __init__(self, path: Path) -> None:
        with reading(str(path)):
            content = json.loads(path.read_bytes())
        self._whole = _table(path, content)
        about = json.dumps({"index_columns": [_IDS], "columns": [{"name": _IDS, "field_name": _IDS}]}).encode()
        metadata = {b"pandas": about} if _IDS in self._whole.schema.names else None
        self.schema: pa.Schema = self._whole.schema.with_metadata(metadata)
        self.rows = len(self._whole)

    def batches(self, names: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Yield some columns in order."""
        for batch in self._whole.select(list(names)).to_batches(max_chunksize=rows):
            yield from from_batches(batch, rows)


def _table(path: Path, content: object) -> pa.Table:
    if isinstance(content, list) and content and all(isinstance(one, dict) for one in content):
        return pa.Table.from_pylist(content)
    if isinstance(content, dict) and content:
        values = list(content.values())
        if all(isinstance(one, list) for one in values):
            vectors = [bool(one) and isinstance(one[0], list) for one in values]
            if any(vectors) and not all(vectors) and len(set(map(len, values))) == 1:
                return pa.table(content)  # columns: ids, and vectors
            return pa.table({_IDS: list(content), "vectors": list(content.values())})
        if all(isinstance(one, dict) for one in content.values()):
            return pa.Table.from_pylist([{_IDS: key, **one} for key, one in content.items()])
    raise DataError(
        what="no features",
        at=Place(str(path)),
        found=f"JSON of a {type(content).__name__}",
        expected="an object of vectors by id, or of columns, or a list of objects",
        next_step="Write one object for each instance, with its id and its vector.",
    )


@contextmanager
def _opened(path: Path) -> Iterator[Table]:
    yield _Objects(path)
