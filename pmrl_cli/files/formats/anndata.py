"""AnnData (``.h5ad``) and MuData (``.h5mu``), read as the HDF5 that they are.

The observations are the instances: ``obs_names`` are their ids, ``obs`` their side columns. Of each AnnData the
embedding is a modality: ``obsm/X_pca``, or the one embedding there is, or else a dense ``X``. What describes
variables or pairs (``varm``, ``varp``, ``uns``, ``obsp``, ``layers``) is never taken.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa

from pmrl_cli.errors import printable
from pmrl_cli.files.formats.contents import (
    Column,
    Contents,
    ProbeOptions,
    Vectors,
    reading,
)
from pmrl_cli.files.formats.hdf5 import arrow_of, column_of, inside, storage_of, vectors_of
from pmrl_cli.files.formats.layout import Array
from pmrl_cli.files.formats.names import never_features

__all__ = ["probe"]

_SPARSE = ("csr_matrix", "csc_matrix")
_IDS = "obs_names"


def probe(path: Path, options: ProbeOptions) -> Contents:
    """Return what an AnnData or MuData file holds.

    Raises: DataError if it cannot be read; PolicyError for a declared size out of proportion to what is stored.
    """
    with reading(str(path)), h5py.File(path) as file:
        mods = inside(file, "mod")
        if not isinstance(mods, h5py.Group):
            return _Part(path, file, "", options).contents()
        parts = [(name, _Part(path, file, f"mod/{name}/", options).contents()) for name in sorted(mods)]
        whole = _obs(path, file, "")
    vectors: list[Vectors] = []
    columns: list[Column] = []
    others: list[str] = []
    notes: list[str] = []
    refused: list[tuple[str, str, str]] = []
    for name, part in parts:
        ids = f"{name}/{_IDS}"
        taken = [one for one in part.vectors if one.modality is not None]
        for one in part.vectors:
            modality = name if one in taken and len(taken) == 1 else one.modality and f"{name}_{one.modality}"
            vectors.append(replace(one, ids=ids, modality=modality))
        columns += [replace(one, name=f"{name}/{one.name}") for one in part.columns]
        others += part.others
        notes += [note.replace(path.name, f"{path.name}, {name}") for note in part.notes]
        refused += part.refused
    side = [one.name for one in columns if not one.name.endswith(f"/{_IDS}")]
    return Contents(
        str(path),
        tuple(vectors),
        (*columns, *whole),
        tuple(others),
        tuple(notes),
        tuple(side),
        refused=tuple(refused),
    )


class _Part:
    """One AnnData: a file, or a group of one."""

    def __init__(self, path: Path, file: h5py.File, prefix: str, options: ProbeOptions) -> None:
        self.path, self.file, self.prefix, self.options = path, file, prefix, options
        self.refused: list[tuple[str, str, str]] = []
        self.others: list[str] = []
        self.notes: list[str] = []

    def contents(self) -> Contents:
        """Return the embedding and the annotations of the observations."""
        columns = _obs(self.path, self.file, self.prefix)
        embeddings = self._embeddings()
        usable = [one for one in embeddings if not never_features(one.name or "")]
        x = self._x()
        chosen = next((one for one in usable if (one.name or "").endswith("/X_pca")), None)
        if chosen is None and len(usable) == 1:
            chosen = usable[0]
        if chosen is None and isinstance(x, Vectors) and not usable:
            chosen = x
        if chosen is not None and (usable != [chosen] or x is not None) and chosen is not x:
            self.notes.append(printable(f"{self.path.name}: took {chosen.name}."))
        everything = [*embeddings, *([x] if isinstance(x, Vectors) else [])]
        ids = _IDS if columns and columns[0].name == _IDS else None
        vectors = [
            replace(one, ids=ids, modality=None) if one is not chosen else replace(one, ids=ids, modality="X")
            for one in ([chosen] if chosen is not None else []) + [one for one in everything if one is not chosen]
        ]
        if not self.prefix and chosen is not None:  # the file's name says more
            vectors = [replace(vectors[0], modality=None)]
            left = [str(one) for one in everything if one is not chosen]
            if left:
                self.notes.append(printable(f"{self.path.name}: left out: {', '.join(left)}."))
        side = tuple(one.name for one in columns if one.name != _IDS)
        return Contents(
            str(self.path),
            tuple(vectors),
            tuple(columns),
            tuple(self.others),
            tuple(self.notes),
            side,
            refused=tuple(self.refused),
        )

    def _embeddings(self) -> list[Vectors]:
        group = inside(self.file, f"{self.prefix}obsm")
        found = []
        for name in sorted(group) if isinstance(group, h5py.Group) else ():
            found += self._dense(f"{self.prefix}obsm/{name}")
        return found

    def _dense(self, name: str) -> list[Vectors]:
        dataset = inside(self.file, name)
        if dataset is None:
            self.refused.append((f"/{name}", "a link", "values stored in the file itself"))
            return []
        if not isinstance(dataset, h5py.Dataset) or dataset.ndim != 2 or dataset.dtype.kind != "f":
            kind = dataset.attrs.get("encoding-type", "a group") if isinstance(dataset, h5py.Group) else dataset.dtype
            self.others.append(f"/{name} ({kind})")
            return []
        stored = storage_of(self.path, name, dataset)
        if isinstance(stored[0], str):
            self.refused.append(stored)
            return []
        native = dataset.dtype.newbyteorder("=").name
        one = vectors_of(self.path, Array(name, dataset.shape, native), dataset, None)
        return [one] if isinstance(one, Vectors) else []

    def _x(self) -> Vectors | str | None:
        """Return a dense X; of a sparse one its rows, which are read dense block by block."""
        name = f"{self.prefix}X"
        x = inside(self.file, name)
        if x is None:
            return None
        if isinstance(x, h5py.Dataset):
            found = self._dense(name)
            return found[0] if found else None
        kind = str(x.attrs.get("encoding-type", ""))
        shape = tuple(int(size) for size in x.attrs.get("shape", ()))
        self.refused.append(
            (
                f"/{name}",
                f"a sparse matrix ({kind or 'a group'} of shape {shape})",
                "a dense embedding in obsm: reduce X first, as scanpy.pp.pca does",
            )
        )
        return "sparse"


def _obs(path: Path, file: h5py.File, prefix: str) -> list[Column]:
    """Return the names of the observations, and their annotations."""
    group = inside(file, f"{prefix}obs")
    if not isinstance(group, h5py.Group):
        return []
    index = group.attrs.get("_index", "_index")
    index = index.decode() if isinstance(index, bytes) else str(index)
    columns: list[Column] = []
    for name in sorted(group, key=lambda one: (one != index, one)):
        shown = _IDS if name == index else name
        item = inside(group, name)
        if isinstance(item, h5py.Group):
            if not all(isinstance(inside(item, one), h5py.Dataset) for one in ("codes", "categories")):
                continue
            columns.append(_categorical(path, f"{prefix}obs/{name}", item, shown))
        elif (
            isinstance(item, h5py.Dataset)
            and item.ndim == 1
            and not isinstance(storage_of(path, f"{prefix}obs/{name}", item)[0], str)
        ):
            text = item.dtype.kind in "SU" or h5py.check_string_dtype(item.dtype) is not None
            if text or item.dtype.kind in "iufb":
                columns.append(replace(column_of(path, f"{prefix}obs/{name}", item), name=shown))
    return columns


def _categorical(path: Path, name: str, group: h5py.Group, shown: str) -> Column:
    rows = int(group["codes"].shape[0])

    def load(*, text: bool = False) -> pa.Array:
        with reading(str(path), f"/{name}"), h5py.File(path) as file:
            codes = file[name]["codes"][()].astype(np.int64)
            values = arrow_of(file[name]["categories"][()])
        return values.take(pa.array(codes, mask=codes < 0))

    return Column(shown, rows, nameable=True, load=load)
