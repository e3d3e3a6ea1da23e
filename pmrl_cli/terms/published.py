"""PMRL as published: the leading singular value by softmax, and the instance contrast of leading directions."""

from __future__ import annotations

import torch

from pmrl_cli.batch import SINGLE, BatchGroup, Encoded, Inputs, Loss
from pmrl_cli.spectrum import spectrum
from pmrl_cli.terms.contrast import masked_mean, matches
from pmrl_cli.terms.log_sums import log_sums
from pmrl_cli.terms.protocol import Term

__all__ = ["PublishedPrincipal"]


class PublishedPrincipal(Term):
    """Principled multimodal representation learning, exactly the published value.

    The spectrum part is -log softmax(sigma / temperature_spectrum)_1, the instance part
    log(1 + sum_{j != i} exp((u_i . u_j - 1) / temperature_instance)), each the mean over instances; the loss is
    their sum. It was written for complete instances: here one that lacks modalities contributes with those it has,
    and one that has none does not.

    Args:
        temperature_spectrum: divides the singular values, > 0.
        temperature_instance: divides the cosines of leading directions, > 0.

    Source: Liu, Xia, Ng, Chua, "Principled Multimodal Representation Learning", 2025 (arXiv 2507.17343), and the
        code published with it; departs: missing modalities, and the sign of u is fixed (there it is arbitrary).
    """

    on_device = True

    def __init__(self, *, temperature_spectrum: float = 0.05, temperature_instance: float = 0.1) -> None:
        super().__init__()
        self.temperature_spectrum = temperature_spectrum
        self.temperature_instance = temperature_instance

    def forward(self, encoded: Encoded, inputs: Inputs, group: BatchGroup = SINGLE) -> Loss:
        """Return the loss of a batch."""
        embeddings, present = encoded.vectors, encoded.present
        singular_values, direction, _ = spectrum(embeddings, present)
        count = present.sum(1)
        rank = torch.arange(present.shape[1], device=present.device)
        logits = singular_values / self.temperature_spectrum
        # Every instance keeps one logit, so that an empty one is a finite zero to be masked.
        logits = logits.masked_fill(rank >= count.clamp_min(1)[:, None], -torch.inf)
        spectrum_part = masked_mean(logits.logsumexp(1) - logits[:, 0], count > 0)

        # The logarithm of 1 and the sum over all others is that of the sum over all, itself (a cosine of 1) included.
        has, scaled = count > 0, direction / self.temperature_instance
        rows, _, own = log_sums(
            scaled[None],
            direction[None],
            has[None],
            has[None],
            left_out=matches(inputs),
            shift=1 / self.temperature_instance,
        )
        instance_part = masked_mean((rows - own)[0] + 1 / self.temperature_instance, has)

        parts = {"spectrum": spectrum_part.detach(), "instance": instance_part.detach()}
        return Loss(spectrum_part + instance_part, parts)
