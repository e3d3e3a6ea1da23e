"""Imputation: the features of the modalities that an instance lacks, from those it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pmrl_cli.batch import Inputs
from pmrl_cli.encoders.variational import imputer_of
from pmrl_cli.ensemble import Member

__all__ = ["Filled", "can_impute", "impute"]


class Filled(NamedTuple):
    """The modalities of a model, those that an instance lacks filled in.

    Args:
        vectors: (B, K, d) unit vectors: of what is missing, what the encoder of the modality makes of the prediction.
        features: for each modality (B, d_m) predicted features, of every instance.
        deviations: for each modality (B, d_m) their standard deviations.
    """

    vectors: Tensor
    features: list[npt.NDArray[np.float32]]
    deviations: list[npt.NDArray[np.float32]]


def can_impute(members: Sequence[Member]) -> bool:
    """Return whether a model predicts features."""
    return len(members) == 1 and imputer_of(members[0].encoder) is not None


def impute(member: Member, inputs: Inputs) -> Filled:
    """Predict the modalities of instances from those that they have.

    The deviation holds what the latent vector leaves open, the noise of each component and, where features are not
    squashed, the variance outside the components.

    Args:
        member: the one of a model that ``can_impute``.
        inputs: of all modalities of the model, on the encoder's device.
    """
    encoder = imputer_of(member.encoder)
    assert encoder is not None
    predicted = encoder.impute(inputs)
    own = inputs.present
    filled = [
        torch.where(own[:, m, None], given, wanted)
        for m, (given, wanted) in enumerate(zip(inputs.components, predicted.components, strict=True))
    ]
    vectors: Tensor = member.encoder(Inputs(filled, torch.ones_like(own))).vectors
    features, deviations = [], []
    arrays = zip(member.projections, predicted.components, predicted.deviations, encoder.spreads, strict=True)
    for projection, components, deviation, spread in arrays:
        values, errors = projection.features(components.cpu().numpy(), deviation.cpu().numpy(), spread.cpu().numpy())
        features.append(values)
        deviations.append(errors)
    return Filled(vectors, features, deviations)
