"""Whether instances that evaluate a model share vectors with those that trained it, under whatever ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.repeats import hashes_of, repeats_of

__all__ = ["VECTORS", "Leaks", "find_leaks", "trained_vectors"]

VECTORS = "vectors."
"""Before the name of a modality, in what a model holds of the instances it has seen."""

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Leaks:
    """Evaluated instances that share vectors with those that trained.

    Args:
        judged: evaluated instances that did not train themselves.
        sharing: those of them of which some modality holds a vector that trained.
        modalities: the same of each modality.
    """

    judged: int
    sharing: int
    modalities: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return the counts: JSON values."""
        return {"judged": self.judged, "sharing": self.sharing, "modalities": dict(self.modalities)}

    def sentence(self) -> str | None:
        """Return what is shared, None where nothing is."""
        if not self.sharing:
            return None
        each = ", ".join(f"{name} {count:,}" for name, count in self.modalities.items() if count)
        return f"{self.sharing:,} of {self.judged:,} evaluated instances hold vectors that trained the model ({each})"


def trained_vectors(dataset: Dataset, rows: npt.NDArray[np.bool_]) -> dict[str, Hashes]:
    """Return the sorted hashes of the vectors of some instances, by modality; templates are none.

    Args:
        dataset: whose vectors are hashed, if they are not yet.
        rows: (n,) which instances.
    """
    hashes, found = hashes_of(dataset), {}
    for m, (name, repeats) in enumerate(repeats_of(dataset).items()):
        templates = hashes[[template.first for template in repeats.templates], m]
        found[name] = np.setdiff1d(hashes[rows & dataset.present[:, m], m], templates)
    return found


def find_leaks(hashes: Hashes, trained: Mapping[str, Hashes], names: tuple[str, ...]) -> Leaks:
    """Count the evaluated instances that share vectors with those that trained.

    Args:
        hashes: (q, K) of the evaluated, 0 where absent.
        trained: of ``trained_vectors``, of some modalities.
        names: of the K modalities.
    """
    shared = np.zeros(hashes.shape, dtype=np.bool_)
    for m, name in enumerate(names):
        if name in trained:
            shared[:, m] = np.isin(hashes[:, m], trained[name]) & (hashes[:, m] > 0)
    counts = dict(zip(names, shared.sum(axis=0).tolist(), strict=True))
    return Leaks(len(hashes), int(shared.any(axis=1).sum()), counts)
