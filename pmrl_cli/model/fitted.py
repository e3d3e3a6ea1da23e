"""FittedModel: everything that embedding with a model, evaluating and saving it need."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from pmrl_cli.data.dataset import OWN_AXES, Dataset, Features, FloatArray
from pmrl_cli.encoders.rows import RowMap
from pmrl_cli.errors import Place, StateError, UsageError
from pmrl_cli.files.durable.atomic import to_json
from pmrl_cli.model.members import Member, row_maps
from pmrl_cli.model.texts import Texts

__all__ = ["FittedModel", "check_features"]


@dataclass(frozen=True)
class FittedModel:
    """A model as a fit leaves it and as its folder holds it.

    Args:
        names: of its K modalities, in order.
        members: each one alignment of the features.
        seen: sorted hashes of the ids that trained and that validated, and of the vectors that trained.
        texts: its text files by name: config, metrics, history, card, ...
        inputs: what it was fitted on: digest of the ids, and by modality rows, dim and digest.
        origin: where it comes from, for errors.
        axes: (d, d) principal axes of the members' vectors together; None for a model of an older version.
        kept: how many of them its space has; None: the members' vectors as they are.
    """

    names: tuple[str, ...]
    members: tuple[Member, ...]
    seen: Mapping[str, npt.NDArray[np.uint64]]
    texts: Mapping[str, str]
    inputs: Mapping[str, Any]
    origin: str
    axes: FloatArray | None = None
    kept: int | None = None

    @property
    def config(self) -> dict[str, Any]:
        """What ``config.json`` says."""
        config: dict[str, Any] = json.loads(self.texts["config.json"])
        return config

    @property
    def settings(self) -> dict[str, Any]:
        """Those of the fit, by name."""
        return dict(self.config["settings"])

    @cached_property
    def dim(self) -> int:
        """Dimension of the shared space."""
        return int(self.config["dim"])

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Columns of the features of each modality, in order."""
        return tuple(projection.dim for projection in self.members[0].projections)

    @property
    def codes(self) -> FloatArray | None:
        """(N, dim) codes of the space, None for a model without any."""
        codes = [member.encoder.codes() for member in self.members]
        return codes[0].cpu().numpy() if len(codes) == 1 and codes[0] is not None else None

    @property
    def reduction(self) -> FloatArray | None:
        """(d, dim) axes that the members' vectors are taken along; None where they are taken as they are."""
        return None if self.axes is None or self.kept is None else self.axes[:, : self.kept]

    def __getstate__(self) -> dict[str, object]:
        """Return what is to be pickled: maps of a few rows hold functions, and are made again."""
        return {name: value for name, value in vars(self).items() if name != "row_maps"}

    @cached_property
    def row_maps(self) -> tuple[RowMap, ...] | None:
        """By modality the map of a few rows of its features, see ``members.row_maps``."""
        return row_maps(self.members, self.reduction)

    def in_dims(self, dim: int) -> FittedModel:
        """Return the model with a space of fewer dimensions.

        Raises: UsageError for more dimensions than it has, or codes, which are of the whole space; StateError for a
            model without axes.
        """
        if dim > self.dim or self.codes is not None:
            raise UsageError(
                what="dimensions that the model cannot be reduced to",
                found=f"--dim {dim} and a model of {self.dim}{' with codes' if self.codes is not None else ''}",
                expected=f"{self.dim} or fewer, and a model without codes",
                next_step="Lower it, or leave --dim out.",
            )
        if self.axes is None:
            raise StateError(
                what="model without principal axes",
                at=Place(self.origin),
                found="none, as in models of earlier versions",
                expected="those that every fit now keeps",
                next_step="Fit that model again, or leave --dim out.",
            )
        config = to_json(self.config | {"dim": dim, "reduced": dim})
        texts = Texts({"config.json": config}, {name: partial(self.texts.__getitem__, name) for name in self.texts})
        return replace(self, kept=dim, texts=texts)

    def indices(self, dataset: Dataset) -> list[int]:
        """Return the place of each modality of a data set among those of the model.

        Raises: StateError for a modality or a dimension that the model does not know.
        """
        unknown = [name for name in dataset.names if name not in self.names]
        if unknown:
            likely = self._likely(unknown[0])
            raise StateError(
                what="modality that the model does not have",
                at=Place(self.origin),
                found=", ".join(unknown),
                expected=f"some of {', '.join(self.names)}",
                next_step=f"Give it its name in the model (a file: {likely}=FILE), or leave it out.",
            )
        indices = [self.names.index(name) for name in dataset.names]
        for index, features in zip(indices, dataset.modalities, strict=True):
            axes = self.inputs.get("modalities", {}).get(features.name, {}).get("axes", "")
            check_features(features, self.widths[index], axes, self.origin)
        return indices

    def _likely(self, name: str) -> str:
        """Return which name of the model is the likeliest for another one.

        Names of files lose the parts that all of them share: what was ``audio`` beside ``x_text.h5`` is ``x_audio``
        where that file is given alone. But ``audio_old`` holds it too, so that the user is asked.
        """
        held = [own for own in self.names if f"_{_joined(own)}_" in f"_{_joined(name)}_"]
        return held[0] if held else self.names[0]


def _joined(name: str) -> str:
    """Return a name with its parts divided by one character."""
    return re.sub(r"[-_.]+", "_", name)


def check_features(features: Features, expected: int, axes: object, origin: str) -> None:
    """Hold features to those that a model was fitted on.

    Args:
        features: of one modality.
        expected: columns of those of the model.
        axes: their ``Features.axes``.
        origin: of the model.

    Raises: StateError for another dimension, or columns that are principal axes of another matrix.
    """
    if features.axes and features.axes != axes:
        raise StateError(
            what="columns are not those of the model",
            at=Place(origin),
            found=f"modality {features.name!r}, the truncated SVD of another matrix than the model was fitted on",
            expected="the same matrix, or a store made of it",
            next_step=OWN_AXES,
        )
    if features.dim != expected:
        raise StateError(
            what="dimension differs from the model",
            at=Place(origin),
            found=f"modality {features.name!r} with {features.dim} columns",
            expected=f"{expected}, as the model was fitted on",
            next_step="Give the features of the same encoder, or fit again.",
        )
