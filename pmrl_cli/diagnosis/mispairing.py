"""Mispaired instances of a data set: a model of them from the reservoir, and what it says of every instance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pmrl_cli.array_types import Array, Mask
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.instances import InstanceRows
from pmrl_cli.diagnosis.mispair_model import MispairModel, Separation, Suspicion, mispair_model
from pmrl_cli.diagnosis.mispair_rates import places_of
from pmrl_cli.retrieval.batches import Batch, read_batch
from pmrl_cli.stats.consensus import Agreement, Reference, agreement, reference_of, reference_without
from pmrl_cli.stats.instances import instance_statistics

__all__ = ["FLAGGED", "FirstLook", "Mispairs", "RowRun"]

FLAGGED = 0.5
"""Probability from which an instance is listed as a suspect."""

IN_A_RUN = 0.95
"""Probability of an instance in a run of rows that do not belong to their ids."""

_TOP = 50


@dataclass(frozen=True)
class RowRun:
    """A run of rows that do not belong to their ids.

    Args:
        modality: whose vectors, by number.
        first: row of the data set.
        last: the row after its last.
        place: mean of P(a mispaired vector agrees less) over the run; .5 for mispaired ones.
        shift: row i of the modality belongs to row i - shift of the others, where a shift of up to five corrects it.
    """

    modality: int
    first: int
    last: int
    place: float
    shift: int | None


@dataclass(frozen=True)
class FirstLook:
    """What the reservoir says of three modalities or more before suspects are left out of the consensus.

    Args:
        reference: the reservoir.
        found: how its instances agree.
        mispaired: (K, bins) counts of mispaired scores.
        separation: how far apart the two are.
    """

    reference: Reference
    found: Agreement
    mispaired: npt.NDArray[np.int64]
    separation: Separation

    @classmethod
    def of(cls, reference: Reference) -> FirstLook:
        """Take the reservoir."""
        found, mispaired = reference.agreement(), reference.mispaired(like=())[0]
        return cls(reference, found, mispaired, Separation.of(found.score, mispaired))

    def unsuspected(self, score: Array) -> Tensor:
        """Return (B, K) which vectors the consensus of their instance takes: not those more like a mispaired one."""
        evidence, suspect_modality = self.separation.evidence(score)
        unsuspected = np.ones(score.shape, dtype=bool)
        suspect = np.flatnonzero(evidence > 0)
        unsuspected[suspect, suspect_modality[suspect]] = False
        return torch.from_numpy(unsuspected)


@dataclass(frozen=True)
class Mispairs:
    """What mispaired instances look like here.

    Args:
        names: of the modalities.
        reference: the reservoir.
        found: how its instances agree.
        mispaired: (nulls, K, bins) counts of mispaired scores, and of those mispaired with an instance like them.
        model: what follows from both.
        first: what was learned before the suspects were left out of the consensus; None of two modalities.
        runs: of rows of the data set that do not belong to their ids: they are suspects, whatever their scores.
    """

    names: tuple[str, ...]
    reference: Reference
    found: Agreement
    mispaired: npt.NDArray[np.int64]
    model: MispairModel
    first: FirstLook | None = None
    runs: tuple[RowRun, ...] = ()

    @classmethod
    def of(cls, batch: Batch, names: tuple[str, ...], groups: npt.NDArray[np.int64]) -> Self:
        """Learn from the reservoir, twice: the second time the consensus leaves out what the first found suspect."""
        reference, first = reference_of(batch), None
        if len(names) > 2:
            first = FirstLook.of(reference)
            unsuspected = first.unsuspected(first.found.score)
            if not unsuspected.all():
                reference = reference_without(reference, batch, unsuspected)
        found, mispaired = reference.agreement(), reference.mispaired()
        return cls(names, reference, found, mispaired, mispair_model(found, mispaired, groups), first)

    def places(self) -> Array:
        """Return (B, K) P(a mispaired vector agrees less) of the reservoir, before suspects are left out."""
        if self.first is None:
            return places_of(self.found.score, self.mispaired[0])
        return places_of(self.first.found.score, self.first.mispaired)

    def agreement(self, batch: Batch) -> Agreement:
        """Return how the instances of a batch agree with themselves."""
        if self.first is None:
            return agreement(self.reference, batch)
        unsuspected = self.first.unsuspected(agreement(self.first.reference, batch).score)
        return agreement(self.reference, batch, unsuspected)

    def suspect_name(self, suspect_modality: int) -> str:
        """Return a modality's name; of two modalities, the pair, for it is not known which of them is wrong."""
        return "|".join(self.names) if len(self.names) == 2 else self.names[suspect_modality]

    def suspicion(self, score: Array, rows: npt.NDArray[np.int64] | None, present: Mask) -> Suspicion:
        """Return how suspect instances are: by their scores, and by the runs of rows that they are in.

        Args:
            score: (B, K) of ``agreement``.
            rows: (B,) of the data set; None where it is not known.
            present: (B, K).
        """
        found = self.model.suspicion(score)
        if rows is None:
            return found
        for run in self.runs:
            inside = (rows >= run.first) & (rows < run.last) & present[:, run.modality]
            found.suspect_modality[inside] = run.modality
            found.probability[inside] = np.maximum(found.probability[inside], IN_A_RUN)
        return found

    def section(self, ids: Sequence[str], rows: npt.NDArray[np.int64] | None, present: Mask) -> dict[str, Any]:
        """Return the ``suspects`` section, of the reservoir: its ids, rows of the data set and presence."""
        suspicion = self.suspicion(self.found.score, rows, present)
        known = np.flatnonzero(suspicion.suspect_modality >= 0)
        order = known[np.argsort(-suspicion.evidence[known], kind="stable")]
        flagged = int((suspicion.probability[known] >= FLAGGED).sum())
        return {"instances": len(known), "flagged": flagged, "top": self._top(suspicion, order[:_TOP], ids)}

    def _top(self, suspicion: Suspicion, rows: npt.NDArray[np.int64], ids: Sequence[str]) -> list[dict[str, Any]]:
        return [
            {
                "id": ids[row],
                "score": float(suspicion.evidence[row]),
                "suspect_modality": self.suspect_name(int(suspicion.suspect_modality[row])),
                "probability": float(suspicion.probability[row]),
            }
            for row in rows
        ]

    def instances(self, dataset: Dataset) -> Iterator[InstanceRows]:
        """Yield what is known of every instance with two modalities or more: a second pass over the data.

        Args:
            dataset: the one the reservoir is from (or one of its space).
        """
        for rows in dataset.blocks(np.flatnonzero(dataset.present.sum(1) >= 2)):
            batch = read_batch(dataset, rows)
            statistics, agreed = instance_statistics(batch), self.agreement(batch)
            suspicion = self.suspicion(agreed.score, batch.rows, batch.present.numpy())
            yield InstanceRows(
                dataset.ids.take(batch.rows),
                statistics.rho,
                statistics.signed,
                agreed.cosine,
                suspicion.evidence,
                [self.suspect_name(int(modality)) for modality in suspicion.suspect_modality],
                suspicion.probability,
            )
