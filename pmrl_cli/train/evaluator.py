"""The evaluation of an encoder in training: held-out retrieval, and the statistics of diagnosis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from pmrl_cli.batch import Inputs
from pmrl_cli.encoders.protocol import Encoder
from pmrl_cli.methods.protocol import Method
from pmrl_cli.process_group import ProcessGroup
from pmrl_cli.terms.weighted import WeightedTerms
from pmrl_cli.train.heldout import HeldOut, ValidationSet, held_out_retrieval, mean_rho
from pmrl_cli.train.progress import CRITERION
from pmrl_cli.train.watch import held_out_statistics

__all__ = ["Evaluator"]


@dataclass(frozen=True)
class Evaluator:
    """Evaluates an encoder on the validation instances.

    Args:
        inputs: of the instances, on the device.
        validation: which they are, and what is right for which.
        names: of the modalities.
        seed: of the shuffled pairs.
        method: whose facts are followed.
        terms: what is minimised.
        processes: the processes that train together, of which rank 0 evaluates.
    """

    inputs: Inputs
    validation: ValidationSet
    names: Sequence[str]
    seed: int
    method: Method
    terms: WeightedTerms
    processes: ProcessGroup

    def __call__(self, encoder: Encoder) -> tuple[float, HeldOut, dict[str, float]]:
        """Return mean share, held-out retrieval and the statistics of diagnosis, as rank 0 finds them."""
        found = self._evaluate(encoder) if self.processes.rank == 0 else (math.nan, HeldOut(math.nan, math.nan), {})
        share, quality, statistics = self.processes.broadcast_json(found)
        return share, HeldOut(*quality), statistics

    def _evaluate(self, encoder: Encoder) -> tuple[float, HeldOut, dict[str, float]]:
        encoder.eval()
        present, key = self.inputs.present, self.method.spectrum_temperature
        with torch.no_grad():
            encoded = encoder(self.inputs)
            embeddings = encoded.vectors
            share = mean_rho(embeddings, present)
            if not math.isfinite(share):
                return share, HeldOut(math.nan, math.nan), {}
            quality = held_out_retrieval(embeddings, present, self.validation.labels, self.validation.relevance)
            statistics = held_out_statistics(
                embeddings,
                present,
                self.names,
                seed=self.seed,
                temperature=getattr(self.method.settings, key) if key else None,
                sign_aware=self.method.sign_aware,
            )
            own = self.method.criterion(encoder, encoded, self.inputs)
            if own is None and not self.terms.closed_form_stands_in:
                # What shapes the space or adds an output is not evaluated by retrieval.
                own = -float(self.terms(encoded, self.inputs).value)
            if own is not None:
                # In the order of names, as a checkpoint gives them back.
                statistics = dict(sorted({**statistics, CRITERION: own}.items()))
        encoder.train()
        # Sorted, so that a history read back from a checkpoint is the same to the byte.
        return share, quality, dict(sorted(statistics.items()))
