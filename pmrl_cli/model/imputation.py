"""Imputation: the features of the modalities that an instance lacks, from those it has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pmrl_cli.batch import Inputs
from pmrl_cli.data.dataset import Dataset, EmbeddedBlock, FloatArray, Imputation, Rows
from pmrl_cli.encoders.variational import imputer_of
from pmrl_cli.errors import Place, StateError
from pmrl_cli.model.embedding import embed, read_blocks
from pmrl_cli.model.fitted import FittedModel
from pmrl_cli.model.members import Member

__all__ = ["embed_imputed"]


class _Filled(NamedTuple):
    """The modalities of a model, those that an instance lacks filled in.

    Args:
        vectors: (B, K, d) unit vectors: of what is missing, what the encoder of the modality makes of the prediction.
        features: for each modality (B, d_m) predicted features, of every instance.
        deviations: for each modality (B, d_m) their standard deviations.
    """

    vectors: Tensor
    features: list[npt.NDArray[np.float32]]
    deviations: list[npt.NDArray[np.float32]]


def embed_imputed(
    model: FittedModel, dataset: Dataset, rows: Rows | None, *, fusion: str, device: torch.device
) -> Iterator[EmbeddedBlock]:
    """Yield blocks of all modalities of the model, those missing filled in; see ``Aligner.impute``."""
    indices = model.indices(dataset)
    if len(model.members) > 1 or imputer_of(model.members[0].encoder) is None:
        raise StateError(
            what="model cannot impute",
            at=Place(model.origin),
            found="an encoder without decoders",
            expected="a model of --objective mvae",
            next_step="Fit with --objective mvae.",
        )
    for (ids, _, at, features, mask), block in zip(
        read_blocks(model, dataset, rows, device),
        embed(model, dataset, rows, fusion=fusion, device=device),
        strict=True,
    ):
        with torch.inference_mode():
            inputs = model.members[0].inputs(indices, features, mask)
            filled = _impute(model.members[0], inputs)
            anything = inputs.present.any(1, keepdim=True)
        has = anything.expand_as(inputs.present)[at].cpu().numpy()
        predicted = has & ~inputs.present[at].cpu().numpy()
        vectors = filled.vectors[at].cpu().numpy() * has[:, :, None]
        given = {m: array[at] for m, array in zip(indices, features, strict=True)}
        yield EmbeddedBlock(ids, vectors, has, block.fused, imputed=_imputation(filled, predicted, at, given))


def _imputation(
    filled: _Filled, predicted: npt.NDArray[np.bool_], at: slice, given: Mapping[int, FloatArray]
) -> Imputation:
    """Return the predicted features and their deviations, with what is given where it is."""
    values, errors = [], []
    for m, (found, deviation) in enumerate(zip(filled.features, filled.deviations, strict=True)):
        missing = predicted[:, m, None]
        values.append(np.where(missing, found[at], given.get(m, found[at])).astype(np.float32))
        errors.append(np.where(missing, deviation[at], 0).astype(np.float32))
    return Imputation(predicted, values, errors)


def _impute(member: Member, inputs: Inputs) -> _Filled:
    """Predict the modalities of instances from those that they have.

    The deviation holds what the latent vector leaves open, the noise of each component and, where features are not
    squashed, the variance outside the components.

    Args:
        member: of a model that imputes.
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
    return _Filled(vectors, features, deviations)
