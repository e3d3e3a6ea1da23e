"""AnnData and MuData, in HDF5 or zarr: observations with embeddings and annotations.

The observations are the instances: ``obs_names`` are their ids, ``obs`` their side columns. Of each AnnData the
embedding is a modality: ``obsm/X_pca``, or the one embedding there is, or else ``X``, a sparse one by its truncated
SVD if asked for. What describes variables or pairs (``varm``, ``varp``, ``uns``, ``obsp``, ``layers``) is never
taken.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa

from pmrl_cli.errors import printable
from pmrl_cli.files.formats.contents import Column, Contents, ProbeOptions, Refused, Vectors, reading
from pmrl_cli.files.formats.names import never_features
from pmrl_cli.files.formats.sparse import reduced, sparse_of
from pmrl_cli.files.formats.tree import Tree, arrow_of, column_of, vectors_of

__all__ = ["annotated", "is_annotated"]

_IDS = "obs_names"


def is_annotated(tree: Tree) -> bool:
    """Return whether a tree says that it is an AnnData or MuData."""
    return str(tree.attribute("", "encoding-type") or "").lower() in ("anndata", "mudata")


def annotated(tree: Tree, options: ProbeOptions) -> Contents:
    """Return what an AnnData or MuData holds.

    Raises: PolicyError for a declared size out of proportion to what is stored; UsageError for more components than
        a sparse matrix has.
    """
    mods = tree.group("mod")
    if mods is None:
        return _Part(tree, "", options).contents()
    vectors: list[Vectors] = []
    columns: list[Column] = []
    others: list[str] = []
    notes: list[str] = []
    refused: list[Refused] = []
    for name in mods:
        part = _Part(tree, f"mod/{name}/", options).contents()
        ids = f"{name}/{_IDS}" if any(one.name == _IDS for one in part.columns) else None
        taken = [one for one in part.vectors if one.modality is not None]
        for one in part.vectors:
            modality = name if one in taken and len(taken) == 1 else one.modality and f"{name}_{one.modality}"
            vectors.append(replace(one, ids=ids, modality=modality))
        columns += [replace(one, name=f"{name}/{one.name}") for one in part.columns]
        others += part.others
        notes += [note.replace(tree.path.name, f"{tree.path.name}, {name}", 1) for note in part.notes]
        refused += part.refused
    side = [one.name for one in columns if not one.name.endswith(f"/{_IDS}")]
    return Contents(
        str(tree.path),
        tuple(vectors),
        (*columns, *_observations(tree, "")),
        tuple(others),
        tuple(notes),
        tuple(side),
        refused=tuple(refused),
    )


class _Part:
    """One AnnData: a tree, or a group of one."""

    def __init__(self, tree: Tree, prefix: str, options: ProbeOptions) -> None:
        self.tree, self.prefix, self.options = tree, prefix, options
        self.refused: list[Refused] = []
        self.others: list[str] = []
        self.notes: list[str] = []

    def contents(self) -> Contents:
        """Return the embedding and the annotations of the observations."""
        file = self.tree.path.name
        columns = _observations(self.tree, self.prefix)
        embeddings = self._embeddings()
        usable = [one for one in embeddings if not never_features(one.name or "")]
        x = self._x()
        chosen = next((one for one in usable if (one.name or "").endswith("/X_pca")), None)
        if chosen is None and len(usable) == 1:
            chosen = usable[0]
        if chosen is None and not usable:
            chosen = x
        everything = [*embeddings, *([x] if x is not None else [])]
        ids = _IDS if columns and columns[0].name == _IDS else None
        # alone, the name of the file says more
        called = "X" if self.prefix else ""
        vectors = [replace(one, ids=ids, modality=called if one is chosen else None) for one in everything]
        if chosen is not None and (chosen is not x or len(everything) > 1):
            self.notes.append(printable(f"{file}: took {chosen.name}."))
        side = tuple(one.name for one in columns if one.name != _IDS)
        return Contents(
            str(self.tree.path),
            tuple(vectors),
            tuple(columns),
            tuple(self.others),
            tuple(self.notes),
            side,
            refused=tuple(self.refused),
        )

    def _embeddings(self) -> list[Vectors]:
        names = self.tree.group(f"{self.prefix}obsm") or []
        found = [self._dense(f"{self.prefix}obsm/{name}") for name in names]
        return [one for one in found if one is not None]

    def _dense(self, name: str) -> Vectors | None:
        node = self.tree.node(name)
        if node is None:
            if self.tree.group(name) is None:
                self.refused.append(Refused(f"/{name}", "a link", "values stored in the file itself"))
            else:
                kind = self.tree.attribute(name, "encoding-type") or "a group"
                self.others.append(f"/{name} ({kind})")
            return None
        if node.shape is None or len(node.shape) != 2 or node.dtype.kind != "f":
            self.others.append(f"/{node}")
            return None
        stored = self.tree.stored(node)
        if isinstance(stored, Refused):
            self.refused.append(stored)
            return None
        one = vectors_of(self.tree, node, None)
        return one if isinstance(one, Vectors) else None

    def _x(self) -> Vectors | None:
        """Return a dense X, or of a sparse one its truncated SVD."""
        name = f"{self.prefix}X"
        if self.tree.node(name) is not None:
            return self._dense(name)
        matrix = sparse_of(self.tree, name)
        if matrix is None:
            return None
        found = reduced(matrix, self.options.components)
        if isinstance(found, Refused):
            self.refused.append(found)
            return None
        read = f"/{name} is sparse, read as its truncated SVD of {found.dim} columns, which fit no other matrix"
        self.notes.append(printable(f"{self.tree.path.name}: {read}."))
        return found


def _observations(tree: Tree, prefix: str) -> list[Column]:
    """Return the names of the observations, and their annotations."""
    group = f"{prefix}obs"
    names = tree.group(group)
    if names is None:
        return []
    index = str(tree.attribute(group, "_index") or "_index")
    columns: list[Column] = []
    for name in sorted(names, key=lambda one: (one != index, one)):
        found = _annotation(tree, f"{group}/{name}")
        if found is not None:
            columns.append(replace(found, name=_IDS if name == index else name))
    return columns


def _annotation(tree: Tree, name: str) -> Column | None:
    """Return a column of ``obs``: an array, or a group of categories and codes or of values and a mask."""
    node = tree.node(name)
    if node is not None:
        usable = node.shape is not None and len(node.shape) == 1 and (node.text or node.dtype.kind in "iufb")
        return column_of(tree, node) if usable and not isinstance(tree.stored(node), Refused) else None
    codes, categories = tree.node(f"{name}/codes"), tree.node(f"{name}/categories")
    values, mask = tree.node(f"{name}/values"), tree.node(f"{name}/mask")
    parts = (codes, categories) if codes is not None and categories is not None else (values, mask)
    if any(one is None or one.shape is None or isinstance(tree.stored(one), Refused) for one in parts):
        return None
    first, second = (one for one in parts if one is not None)
    rows = int((first.shape or (0,))[0])

    def load(*, text: bool = False) -> pa.Array:
        with reading(str(tree.path), f"/{name}"), tree.reader() as rows_of:
            one, other = (rows_of(part.name, slice(None), None) for part in (first, second))
        if first is codes:
            at = one.astype(np.int64)
            return arrow_of(other).take(pa.array(at, mask=at < 0))
        everything = arrow_of(one)
        return everything.take(pa.array(np.arange(len(one)), mask=other.astype(np.bool_)))

    nameable = first is codes or first.text or first.dtype.kind in "iu"
    return Column(f"/{name}", rows, nameable, load)
