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

from pmrl_cli.batch import Encoded, Inputs
from pmrl_cli.closed_form.arithmetic import arithmetic_on, as_tensor
from pmrl_cli.closed_form.projection import Projection
from pmrl_cli.data.dataset import FloatArray
from pmrl_cli.encoders.protocol import Encoder
from pmrl_cli.encoders.rows import RowMap, unit_rows

__all__ = ["Member", "row_maps", "side_by_side", "together"]


@dataclass(frozen=True)
class Member:
    """One alignment of the features.

    Args:
        projections: per modality, features to whitened components.
        encoder: components to its part of the space, on the CPU, in evaluation mode.
    """

    projections: tuple[Projection, ...]
    encoder: Encoder

    def embed(
        self,
        modalities: Sequence[int],
        features: Sequence[npt.NDArray[np.floating]],
        present: Tensor,
    ) -> Encoded:
        """Return what the encoder makes of features; arguments as for ``inputs``."""
        encoded: Encoded = self.encoder(self.inputs(modalities, features, present))
        return encoded

    def inputs(
        self,
        modalities: Sequence[int],
        features: Sequence[npt.NDArray[np.floating]],
        present: Tensor,
    ) -> Inputs:
        """Return what the encoder takes: it has a place for every modality of the model.

        Args:
            modalities: which of the model's these are.
            features: each (B, d_m).
            present: (B, len(modalities)) bool, on the device where the encoder is.
        """
        device, rows = present.device, len(present)
        arithmetic = arithmetic_on(device)
        given = {
            m: as_tensor(self.projections[m].on(arithmetic).scores(arithmetic.send(block)))
            for m, block in zip(modalities, features, strict=True)
        }
        if list(given) == list(range(len(self.projections))):
            return Inputs(list(given.values()), present)
        nothing = torch.zeros((), device=device)
        components = [
            given[m] if m in given else nothing.expand(rows, projection.components)
            for m, projection in enumerate(self.projections)
        ]
        everywhere = torch.zeros(rows, len(components), dtype=torch.bool, device=device)
        everywhere[:, list(modalities)] = present
        return Inputs(components, everywhere)


def side_by_side(embeddings: Sequence[Tensor]) -> Tensor:
    """Return the (..., d1 + d2 + ...) unit vectors whose cosines are the means of those of (..., d_i) unit ones."""
    return embeddings[0] if len(embeddings) == 1 else torch.cat(list(embeddings), dim=-1) / len(embeddings) ** 0.5


def together(encoded: Sequence[Encoded]) -> Encoded:
    """Return what several members make of the same instances as one: vectors side by side.

    A modality is present that is so for every member; of the extra outputs those are kept that every member has.
    """
    first = encoded[0]
    present = first.present
    for other in encoded[1:]:
        present = present & other.present
    return Encoded(
        side_by_side([one.vectors for one in encoded]),
        present,
        {
            name: side_by_side([one.extra[name] for one in encoded])
            for name in first.extra
            if all(name in one.extra for one in encoded)
        },
    )


def row_maps(members: Sequence[Member], axes: FloatArray | None) -> tuple[RowMap, ...] | None:
    """Return, by modality, the map from (B, d_m) features of a few rows to unit vectors, in NumPy on the CPU.

    It differs from what ``Member.embed`` and ``together`` make of them by rounding.

    Args:
        members: of a model.
        axes: (d, r) that their vectors together are taken along, see ``reduction``; None for the vectors as they are.

    Returns: None where an encoder has no such maps.
    """
    by_member = []
    for member in members:
        maps = member.encoder.row_maps()
        if maps is None:
            return None
        by_member.append(list(zip((projection.scores for projection in member.projections), maps, strict=True)))

    def of_modality(m: int) -> RowMap:
        parts = [maps[m] for maps in by_member]

        def vectors(features: FloatArray) -> FloatArray:
            found = [unit(scores(features)) for scores, unit in parts]
            whole = found[0] if len(found) == 1 else np.concatenate(found, axis=1)
            if len(found) > 1:
                whole /= np.float32(len(found) ** 0.5)
            return whole if axes is None else unit_rows(whole @ axes)

        return vectors

    return tuple(of_modality(m) for m in range(len(members[0].projections)))
