"""Numbers that only pictures need: bounded, and of the reservoir."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pmrl_cli.data.columns import column_of
from pmrl_cli.data.ids import hash_values
from pmrl_cli.diagnosis.evidence import Evidence
from pmrl_cli.diagnosis.state.reservoir import ReservoirSample
from pmrl_cli.stats.instances import pairs_of

__all__ = ["plot_section"]

_POINTS = 200
_SIDE = 32
_MOST_PAIRS = 6
_DIGITS = 4


def plot_section(evidence: Evidence) -> dict[str, Any]:
    """Return two principal components of some instances, before and after centring, labels and cosines."""
    chosen, names = evidence.sample, evidence.names
    complete = np.flatnonzero(chosen.present.all(1))[:_POINTS]
    pairs = pairs_of(len(names))[:_MOST_PAIRS]
    section: dict[str, Any] = {
        "similarity": {
            f"{names[a]}|{names[b]}": _cosines(chosen, a, b) for a, b in pairs if _both(chosen, a, b).any()
        }
    }
    if len(complete) > 2 and chosen.vectors[0].shape[1] > 1:
        clouds = np.stack([vectors[complete] for vectors in chosen.vectors], axis=1).astype(np.float64)
        section["pca"] = {
            "before": _components(clouds, names),
            "centred": _components(clouds - clouds.mean(0), names),
            "labels": _labels(evidence, complete),
        }
    return section


def _labels(evidence: Evidence, places: npt.NDArray[np.int64]) -> list[str | None]:
    """Return the labels of some of the reservoir; by number where their names are not at hand."""
    header, chosen = evidence.state.header, evidence.sample
    hashes = evidence.state.reservoir.labels[: len(chosen)]
    named: dict[int, str] = {}
    if header.label is not None and evidence.dataset is not None:
        values = column_of(evidence.dataset, header.label).unique()
        named = dict(zip(hash_values(values, header.seed).tolist(), map(str, values.to_pylist()), strict=True))
    return [
        None if chosen.labels[place] < 0 else named.get(int(hashes[place]), f"class {chosen.labels[place] + 1}")
        for place in places.tolist()
    ]


def _both(chosen: ReservoirSample, a: int, b: int) -> npt.NDArray[np.bool_]:
    return np.asarray(chosen.present[:, a] & chosen.present[:, b])


def _cosines(chosen: ReservoirSample, a: int, b: int) -> npt.NDArray[np.float64]:
    rows = np.flatnonzero(_both(chosen, a, b))[:_SIDE]
    cosines: npt.NDArray[np.float64] = chosen.vectors[a][rows].astype(np.float64) @ chosen.vectors[b][rows].T
    return cosines.round(_DIGITS)


def _components(clouds: npt.NDArray[np.float64], names: tuple[str, ...]) -> dict[str, npt.NDArray[np.float64]]:
    """Return (n, 2) coordinates of each of (n, K, d) clouds on the two principal axes of all together."""
    flat = clouds.reshape(-1, clouds.shape[-1])
    centred = flat - flat.mean(0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    axes = axes[:, ::-1][:, :2]
    largest = np.abs(axes).argmax(0)
    axes = axes * np.where(axes[largest, np.arange(axes.shape[1])] < 0, -1, 1)
    points = (centred @ axes).reshape(*clouds.shape[:2], -1).round(_DIGITS)
    return {name: points[:, m] for m, name in enumerate(names)}
