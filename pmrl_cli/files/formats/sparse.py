"""Sparse matrices, read as their truncated singular value decomposition."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pmrl_cli.errors import Place, UsageError
from pmrl_cli.files.formats.contents import Block, Refused, Vectors, reading, rows_per_block
from pmrl_cli.files.formats.regular import unreadable
from pmrl_cli.files.formats.tree import Node, Tree

__all__ = ["Sparse", "reduced", "sparse_of"]

_KINDS = {"csr_matrix": "csr", "csc_matrix": "csc", "csr": "csr", "csc": "csc"}
_LOOKED_AT = 2**16
"""Values of a matrix that tell it from others, beside how many each of its rows (or columns) has."""

_USUAL = 50
"""Components that a refusal names, where the matrix has as many."""


@dataclass(frozen=True)
class Sparse:
    """A sparse matrix in a tree: its values, where they stand, and where its rows (or columns) begin.

    Args:
        tree: that holds it.
        name: of its group.
        kind: ``csr`` or ``csc``.
        shape: (n, d).
        parts: the arrays ``data``, ``indices`` and ``indptr``.
    """

    tree: Tree
    name: str
    kind: str
    shape: tuple[int, int]
    parts: tuple[Node, Node, Node]


def sparse_of(tree: Tree, name: str) -> Sparse | Refused | None:
    """Return the sparse matrix that a group is, why it is not read, or None if it is none."""
    if tree.group(name) is None:
        return None
    kind = tree.attribute(name, "encoding-type") or tree.attribute(name, "h5sparse_format")
    shape = tree.attribute(name, "shape")
    shape = tree.attribute(name, "h5sparse_shape") if shape is None else shape
    sizes = [] if shape is None else [int(size) for size in np.asarray(shape).reshape(-1)]
    parts = [tree.node(f"{name}/{part}") for part in ("data", "indices", "indptr")]
    found = [one for one in parts if one is not None and one.shape is not None and len(one.shape) == 1]
    if str(kind) not in _KINDS or len(sizes) != 2 or len(found) < 3:
        return Refused(
            f"/{name}", f"a group ({kind or 'of no known kind'})", "an array, or a sparse matrix (CSR, CSC)"
        )
    for part in found:
        stored = tree.stored(part)
        if isinstance(stored, Refused):
            return stored
    return Sparse(tree, name, _KINDS[str(kind)], (sizes[0], sizes[1]), (found[0], found[1], found[2]))


def reduced(matrix: Sparse | Refused, components: int | None) -> Vectors | Refused:
    """Return the truncated SVD of a sparse matrix X, its rows U_k S_k: the first k principal coordinates, uncentred.

    Without ``components`` it is refused, with how many to ask for.

    Raises: UsageError for as many components as the matrix has rows or columns.
    """
    if isinstance(matrix, Refused):
        return matrix
    (rows, columns), name, file = matrix.shape, f"/{matrix.name}", str(matrix.tree.path)
    most = min(rows, columns) - 1
    shown = f"a sparse matrix ({matrix.kind}, {rows} x {columns})"
    if most < 1:
        return Refused(name, shown, "two rows and two columns or more")
    if components is None:
        usual = min(_USUAL, most)
        return Refused(
            name,
            shown,
            "a dense embedding in obsm, or how many components to take",
            f"Pass --components {usual} to take its truncated SVD.",
        )
    if not 0 < components <= most:
        raise UsageError(
            what="components out of range",
            at=Place(file, name),
            found=f"{components} of {shown}",
            expected=f"1 to {most}",
            next_step=f"Pass --components {min(_USUAL, most)}.",
        )

    def blocks() -> Iterator[Block]:
        with reading(file, name):
            values = _scores(matrix, components)
        step = rows_per_block(components, values.itemsize)
        for start in range(0, rows, step):
            yield values[start : start + step], None

    return Vectors(file, name, rows, components, "float32", blocks, axes=_fingerprint(matrix))


def _fingerprint(matrix: Sparse) -> str:
    """Return what tells a matrix from others: its shape, where its rows begin, and its first values."""
    digest = sha256(f"{matrix.kind} {matrix.shape}".encode())
    data, indices, starts = matrix.parts
    with reading(str(matrix.tree.path), f"/{matrix.name}"), matrix.tree.reader() as rows_of:
        for part, most in ((data, _LOOKED_AT), (indices, _LOOKED_AT), (starts, None)):
            digest.update(np.ascontiguousarray(rows_of(part.name, slice(None, most), None)).tobytes())
    return digest.hexdigest()


def _scores(matrix: Sparse, components: int) -> npt.NDArray[np.float32]:
    """Return U_k S_k (n, k) by Lanczos iteration (ARPACK), the same each time.

    Signs are chosen so that the largest weight of each right singular vector is positive. Components beyond the rank,
    at numpy.linalg.matrix_rank's tolerance, are zero.
    """
    from scipy.sparse import csc_array, csr_array
    from scipy.sparse.linalg import svds

    with matrix.tree.reader() as rows_of:
        data, indices, starts = (rows_of(part.name, slice(None), None) for part in matrix.parts)
    if not np.isfinite(data).all():
        raise unreadable(str(Path(matrix.tree.path)), f"/{matrix.name}", "NaN or Inf among its values")
    make = csr_array if matrix.kind == "csr" else csc_array
    x: Any = make((data.astype(np.float64), indices, starts), shape=matrix.shape)
    x.check_format(full_check=True)  # places out of range would be written to
    u, s, vt = svds(x, k=components, v0=np.ones(min(matrix.shape)))
    # Beyond the rank a component is rounding, other each time, and whitening would make it as large as the others.
    s[s <= s.max(initial=0) * max(matrix.shape) * np.finfo(np.float64).eps] = 0
    order = np.argsort(s)[::-1]
    signs = np.sign(vt[np.arange(components), np.abs(vt).argmax(axis=1)])
    scores: npt.NDArray[np.float32] = ((u * (s * signs))[:, order]).astype(np.float32)
    return scores
