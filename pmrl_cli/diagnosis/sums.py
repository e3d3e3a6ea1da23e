"""Sums of products of all modalities side by side: what covariances are made of."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["MomentSums", "MomentTotals"]

Array = npt.NDArray[np.float64]


class MomentTotals(NamedTuple):
    """Moments of some instances.

    Args:
        edges: (K + 1,) where the columns of each modality begin.
        counts: (K, K) instances that have both.
        sums: (K, D); row b holds the sums of every modality over the instances that have b too.
        products: (D, D); block (a, b) is the sum of x_a x_b^T over the instances that have both.
    """

    edges: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]
    sums: Array
    products: Array

    def _columns(self, m: int) -> slice:
        return slice(int(self.edges[m]), int(self.edges[m + 1]))

    def covariance(self, a: int, b: int) -> Array:
        """Return the (d_a, d_b) covariance over the ``counts[a, b]`` instances that have both; zero of none."""
        at_a, at_b, count = self._columns(a), self._columns(b), max(1, int(self.counts[a, b]))
        centre = np.outer(self.sums[b, at_a] / count, self.sums[a, at_b] / count)
        covariance: Array = self.products[at_a, at_b] / count - centre
        return covariance


class MomentSums:
    """Counts, sums and products of some instances; the rows themselves while that is less."""

    def __init__(self, edges: npt.NDArray[np.int64]) -> None:
        k, width = len(edges) - 1, int(edges[-1])
        self.edges = edges
        self.counts = np.zeros((k, k), dtype=np.int64)  # instances that have a and b
        self.sums = np.zeros((k, width))  # row b: of each modality, over the instances that have b too
        self.rows: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]] = []
        self.held = 0
        self.products: Array | None = None

    def add(self, rows: npt.NDArray[np.float32], present: npt.NDArray[np.bool_]) -> None:
        """Add (B, D) rows, zero where absent, and (B, K) presence."""
        if len(rows) == 0:
            return
        self.rows.append((rows, present))
        self.held += len(rows)
        if self.products is not None or self.held > self.edges[-1]:
            self.fold()

    def fold(self) -> None:
        """Put the rows that are held into the products."""
        width = int(self.edges[-1])
        if self.products is None:
            self.products = np.zeros((width, width))
        for rows, present in self.rows:
            wide = rows.astype(np.float64)
            self.products += wide.T @ wide
            has = present.astype(np.float64)
            self.counts += (has.T @ has).astype(np.int64)
            self.sums += has.T @ wide
        self.rows, self.held = [], 0

    def merge(self, other: MomentSums) -> None:
        """Add the instances another has seen."""
        self.counts += other.counts
        self.sums += other.sums
        self.rows += other.rows
        self.held += other.held
        if other.products is not None:
            self.fold()
            assert self.products is not None
            self.products += other.products
        elif self.products is not None or self.held > self.edges[-1]:
            self.fold()
