"""The evidence bound of a multimodal variational autoencoder, its posterior refined, then distilled."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from pmrl_cli.batch import SINGLE, BatchGroup, Encoded, Inputs, Loss
from pmrl_cli.encoders.gaussian import (
    Refinement,
    divergence,
    draw_noise,
    evidence_bound,
    product_of_posteriors,
    refine,
)
from pmrl_cli.encoders.protocol import Encoder, Init
from pmrl_cli.encoders.variational import Variational
from pmrl_cli.terms.protocol import Term

__all__ = ["RefinedEvidence"]

SAMPLES = 2
"""Of a posterior, for its bound and for the gradient of it: an opposite pair."""


class RefinedEvidence(Term):
    """-mean_t bound(q_t) + distillation * sum_m KL(q_T || q_m), in nats a component.

    q_0 is the product of the posteriors of an instance's modalities, q_1 ... q_T its refinements. The last one is the
    teacher of each modality's own posterior, and is taken as a number there: else it would be drawn towards what one
    modality can say (with the gradient left in, the gap to the best posterior grew tenfold at the last step).

    Every process computes the whole batch with the same draws: the loss does not depend on how many there are.

    Args:
        iterations: T.
        beta: weight of KL(q || N(0, I)) in the bound.
        distillation: weight of the divergence from the refined posterior to each modality's own.
        hidden: width of the refinement's network.
    """

    def __init__(self, *, iterations: int, beta: float, distillation: float, hidden: int) -> None:
        super().__init__()
        self.iterations, self.beta, self.distillation, self.hidden = iterations, beta, distillation, hidden

    def extend(self, encoder: Encoder, init: Init) -> Encoder:
        """Keep the encoder, and make the refinement of its posterior, which is not stored."""
        self._encoders = [cast("Variational", encoder)]  # in a list: the weights are the encoder's
        self.refinement = Refinement(init.maps[0].shape[1], hidden=self.hidden)
        return encoder

    def forward(self, encoded: Encoded, inputs: Inputs, group: BatchGroup = SINGLE) -> Loss:
        """Return the loss of a batch."""
        encoder = self._encoders[0]
        components, present = list(inputs.components), inputs.present
        posteriors = encoder.posteriors(inputs._replace(components=components))
        start = product_of_posteriors(posteriors, present)
        decoders = encoder.decoder_list
        path = refine(
            start,
            self.refinement,
            decoders,
            components,
            present,
            iterations=self.iterations,
            samples=SAMPLES,
            beta=self.beta,
        )
        noise = draw_noise(start, SAMPLES)
        any_present = present.any(1)
        count = any_present.sum().clamp_min(1) * sum(c.shape[1] for c in components)

        def mean(values: Tensor) -> Tensor:
            return values.masked_fill(~any_present, 0).sum() / count

        bounds = [mean(evidence_bound(q, decoders, components, present, noise, beta=self.beta)) for q in path]
        teacher = path[-1].detached()
        gaps = [divergence(teacher, own).masked_fill(~present[:, m], 0) for m, own in enumerate(posteriors)]
        distilled = mean(torch.stack(gaps).sum(0))
        value = -torch.stack(bounds).mean() + self.distillation * distilled
        parts = {"bound": bounds[-1], "gain": bounds[-1] - bounds[0], "distilled": distilled}
        return Loss(value, {name: part.detach() for name, part in parts.items()})
