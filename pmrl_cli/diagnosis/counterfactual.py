"""What would help: cheap remedies, each fitted on one half of the reservoir and measured on the other.

The difference to doing nothing is paired, query by query, so that its interval is narrow; a remedy whose interval
reaches 0 is no advice. Intervals are over queries, for the gallery and the fit at hand.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pmrl_cli.diagnosis.remedies import Remedy, remedies_for
from pmrl_cli.diagnosis.suspects import FLAGGED
from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.retrieval.metrics import hits_in_gallery
from pmrl_cli.retrieval.ranks import Ranks
from pmrl_cli.stats.statistic import Statistic, clustered_error

__all__ = ["Counterfactual", "counterfactuals"]

Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

_GALLERIES = (1000, 100, 10)
_FEWEST = 20


@dataclass(frozen=True)
class Counterfactual:
    """A remedy and what it does to retrieval.

    Args:
        action: ``centre`` each modality, ``csls`` (after centring, less the nearness of the neighbours at search),
            ``linear`` (an adapter fitted on the embeddings), ``drop_modality`` from fused queries, or
            ``drop_suspects`` from the fit of that adapter.
        subject: the modality that is dropped; else empty.
        metric: ``R@1@N`` in a gallery of N, the mean over directions; ``mixed R@1@N`` where both modalities are
            candidates, ``fused R@1@N`` where all others ask.
        before: of doing without: as it is; for ``csls`` centred; for ``drop_suspects`` the adapter fitted on all.
        after: with it.
        delta: the paired difference.
    """

    action: str
    subject: tuple[str, ...]
    metric: str
    before: Statistic
    after: Statistic
    delta: Statistic

    @property
    def helps(self) -> bool:
        """Whether the whole interval of the difference lies above 0."""
        return self.delta.ci is not None and self.delta.ci[0] > 0

    def as_dict(self) -> dict[str, Any]:
        """Return JSON values."""
        return {
            "action": self.action,
            "subject": list(self.subject),
            "metric": self.metric,
            "before": self.before.as_dict(),
            "after": self.after.as_dict(),
            "delta": self.delta.as_dict(),
            "fit": "cross_fit_2",
        }


class _Trial(NamedTuple):
    """Ranks of the same queries without and with a remedy, in one direction of one half."""

    rows: npt.NDArray[np.int64]
    before: Ranks
    after: Ranks


def counterfactuals(
    batch: Batch,
    names: Sequence[str],
    half: Mask,
    groups: npt.NDArray[np.int64],
    *,
    probability: Array | None = None,
    seed: int = 0,
) -> list[Counterfactual]:
    """Measure every remedy that can be asked of these instances, the largest gain first.

    Args:
        batch: the reservoir, unit vectors.
        names: of the modalities.
        half: (B,) which instances are in the first half; no group in both.
        groups: (B,) independent units of the intervals.
        probability: (B,) of being mispaired; None leaves ``drop_suspects`` out.
        seed: of the choice of the ridge.
    """
    if min(half.sum(), (~half).sum()) < _FEWEST:
        return []
    clean = None if probability is None or (probability < FLAGGED).all() else probability < FLAGGED
    found = []
    for remedy in remedies_for(names, groups, clean=clean, seed=seed):
        trials = []
        for chosen in (half, ~half):
            own, other = _part(batch, chosen), _part(batch, ~chosen)
            trials += [_Trial(own.rows[before.rows], before, after) for before, after in remedy.ranks(own, other)]
        measured = _measure(remedy, trials, batch, groups)
        if measured is not None:
            found.append(measured)
    return sorted(found, key=lambda one: -(one.delta.value or 0.0))


def _part(batch: Batch, chosen: Mask) -> Batch:
    """Return some instances; their rows are positions in the whole batch."""
    return Batch(np.flatnonzero(chosen), batch.embeddings[chosen], batch.present[chosen])


def _measure(
    remedy: Remedy, trials: list[_Trial], batch: Batch, groups: npt.NDArray[np.int64]
) -> Counterfactual | None:
    """Return the means over directions and halves, and their errors by group."""
    trials = [trial for trial in trials if len(trial.rows)]
    smallest = min((trial.before.gallery for trial in trials), default=0)
    size = next((size for size in _GALLERIES if size <= smallest), None)
    if size is None:
        return None
    values = [(hits_in_gallery(trial.before, 1, size), hits_in_gallery(trial.after, 1, size)) for trial in trials]
    statistics = []
    for which, chance, within in ((0, 1 / size, (0, 1)), (1, 1 / size, (0, 1)), (2, 0.0, (-1, 1))):
        ones = [(pair[1] - pair[0]) if which == 2 else pair[which] for pair in values]
        influence = np.zeros(len(batch.rows))
        for trial, one in zip(trials, ones, strict=True):
            influence[trial.rows] += (one - one.mean()) / (len(one) * len(trials))
        error = clustered_error(influence * len(influence), groups)
        mean = float(np.mean([one.mean() for one in ones]))
        queries = sum(map(len, ones))
        statistics.append(Statistic.normal(mean, error, within=within, chance=chance, n=queries, null="closed_form"))
    return Counterfactual(remedy.action, remedy.subject, f"{remedy.kind}R@1@{size}", *statistics)
