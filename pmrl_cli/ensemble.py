"""Members: a model is one alignment of the features, or a few whose cosines are averaged.

Members differ in what their scores are made of and in how they were regularised, and err differently; the mean of
their cosines ranks better than most of them alone. Unit vectors side by side, each divided by the root of how many
there are, are unit vectors whose cosine is that mean: so an ensemble is one space like any other, of the
dimensions of its members together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from pmrl_cli.adapters import Adapters
from pmrl_cli.projection import Projection

__all__ = ["Member", "side_by_side"]


@dataclass(frozen=True)
class Member:
    """One alignment of the features.

    Args:
        projections: per modality, features to whitened scores.
        adapters: whitened scores to its share of the space, CPU, evaluation mode.
    """

    projections: tuple[Projection, ...]
    adapters: Adapters

    def embed(
        self, modalities: Sequence[int], features: Sequence[npt.NDArray[np.floating]], device: torch.device
    ) -> Tensor:
        """Return (B, K, d) unit embeddings.

        Args:
            modalities: which K of the model's these are.
            features: each (B, d_m).
            device: where the adapters are.
        """
        scores = (self.projections[m].scores(block) for m, block in zip(modalities, features, strict=True))
        outputs = [
            self.adapters.each[m](torch.from_numpy(s).to(device)) for m, s in zip(modalities, scores, strict=True)
        ]
        return functional.normalize(torch.stack(outputs, dim=1), dim=2)


def side_by_side(embeddings: Sequence[Tensor]) -> Tensor:
    """Return the (B, K, d1 + d2 + ...) unit vectors whose cosines are the means of those of (B, K, d_i) unit ones."""
    return embeddings[0] if len(embeddings) == 1 else torch.cat(list(embeddings), dim=2) / len(embeddings) ** 0.5
