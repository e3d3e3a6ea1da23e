"""Mispaired instances of a space: learned on the reservoir, asked of any instance."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt

from pmrl_cli.data.dataset import Dataset
from pmrl_cli.diagnosis.suspects import FLAGGED, MispairModel, Suspicion, consensus_auc, mispair_model
from pmrl_cli.retrieval.batches import Batch, read_batch
from pmrl_cli.stats.consensus import EDGES, Agreement, Reference, agreement, reference_of
from pmrl_cli.stats.instances import instance_statistics
from pmrl_cli.stats.statistic import Statistic

__all__ = ["InstanceBlock", "Mispairs"]

Array = npt.NDArray[np.float64]

_TOP = 50
_MERGED_BINS = 16  # of EDGES in one bin of a picture


class InstanceBlock(NamedTuple):
    """What is known of B instances with two modalities or more.

    Args:
        rows: (B,) of the data set.
        rho: (B,) share of the leading eigenvalue.
        signed: (B,) squared length of the mean unit vector.
        agreement: (B, K) cosine of each vector with the consensus of the others, centred; NaN where absent.
        score: (B,) the higher, the more suspect.
        culprit: (B,) modality with the most against it, -1 for none.
        probability: (B,) of being mispaired.
    """

    rows: npt.NDArray[np.int64]
    rho: Array
    signed: Array
    agreement: Array
    score: Array
    culprit: npt.NDArray[np.int64]
    probability: Array


@dataclass(frozen=True)
class Mispairs:
    """What mispaired instances look like here.

    Args:
        names: of the modalities.
        reference: the reservoir.
        found: how its instances agree.
        mispaired: (K, bins) counts of mispaired scores.
        model: what follows from both.
    """

    names: tuple[str, ...]
    reference: Reference
    found: Agreement
    mispaired: npt.NDArray[np.int64]
    model: MispairModel

    @classmethod
    def of(cls, batch: Batch, names: tuple[str, ...], groups: npt.NDArray[np.int64]) -> Self:
        """Learn from the reservoir."""
        reference = reference_of(batch)
        found, mispaired = reference.agreement(), reference.mispaired()
        return cls(names, reference, found, mispaired, mispair_model(found, mispaired, groups))

    def culprit_name(self, culprit: int) -> str:
        """Return a modality's name; of two modalities, the pair, for it cannot be said which of them is wrong."""
        return "|".join(self.names) if len(self.names) == 2 else self.names[culprit]

    def section(self, ids: Sequence[str]) -> dict[str, Any]:
        """Return the ``suspects`` section."""
        suspicion = self.model.judge(self.found.score)
        known = np.flatnonzero(suspicion.culprit >= 0)
        order = known[np.argsort(-suspicion.evidence[known], kind="stable")]
        flagged = int((suspicion.probability[known] >= FLAGGED).sum())
        return {"instances": len(known), "flagged": flagged, "top": self._top(suspicion, order[:_TOP], ids)}

    def _top(self, suspicion: Suspicion, rows: npt.NDArray[np.int64], ids: Sequence[str]) -> list[dict[str, Any]]:
        return [
            {
                "id": ids[row],
                "score": float(suspicion.evidence[row]),
                "culprit": self.culprit_name(int(suspicion.culprit[row])),
                "probability": float(suspicion.probability[row]),
            }
            for row in rows
        ]

    def modality(self, m: int, groups: npt.NDArray[np.int64]) -> dict[str, Any]:
        """Return what a modality's section says of agreement."""
        score, merged = self.found.score[:, m], self.mispaired[m].reshape(-1, _MERGED_BINS).sum(1)
        edges = EDGES[::_MERGED_BINS]
        rate: Statistic = self.model.rates[m]
        return {
            "loo_auc": consensus_auc(score, self.mispaired[m], groups),
            "mispair": rate,
            "suspect_histogram": {
                "edges": edges,
                "observed": np.histogram(score[~np.isnan(score)], edges)[0],
                "shuffled": merged,
            },
        }

    def judge(self, dataset: Dataset) -> Iterator[InstanceBlock]:
        """Yield what is known of every instance with two modalities or more: a second pass over the data.

        Args:
            dataset: the one the reservoir is from (or one of its space).
        """
        for rows in dataset.blocks(np.flatnonzero(dataset.present.sum(1) >= 2)):
            batch = read_batch(dataset, rows)
            statistics, agreed = instance_statistics(batch), agreement(self.reference, batch)
            suspicion = self.model.judge(agreed.score)
            yield InstanceBlock(
                batch.rows,
                statistics.rho,
                statistics.signed,
                agreed.cosine,
                suspicion.evidence,
                suspicion.culprit,
                suspicion.probability,
            )
