"""The model that a fit goes on from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Self

import numpy as np
import numpy.typing as npt

from pmrl_cli.closed_form.init import GccaConfig
from pmrl_cli.closed_form.projection import FeatureMap
from pmrl_cli.data.dataset import Dataset, Features
from pmrl_cli.encoders.residual import Residual
from pmrl_cli.errors import DataError, Place, StateError, UsageError
from pmrl_cli.methods import REGISTRY, method_class
from pmrl_cli.methods.protocol import Method
from pmrl_cli.model.fitted import FittedModel, check_features
from pmrl_cli.model.members import Member
from pmrl_cli.train.objectives import objectives_of
from pmrl_cli.train.settings import FitSettings

__all__ = ["Base"]

_NOTHING = np.zeros(0, dtype=np.uint64)


@dataclass(frozen=True)
class Base:
    """A model to go on from.

    Args:
        names: its modalities, in order.
        members: of its space.
        configs: closed form of each member.
        seen: sorted hashes of the ids that trained it, and of those that only chose.
        inputs: what it was fitted on, by modality: rows, dim, digest.
        digest: SHA-256 of its weights.
        path: its folder.
        axes: (d, d) principal axes of its space; None for a model of an older version.
        reduced: how many of them its space has; None: all.
    """

    names: tuple[str, ...]
    members: tuple[Member, ...]
    configs: tuple[GccaConfig, ...]
    seen: Mapping[str, npt.NDArray[np.uint64]]
    inputs: Mapping[str, Mapping[str, object]]
    digest: str
    path: str
    axes: npt.NDArray[np.float32] | None = None
    reduced: int | None = None

    @classmethod
    def of(cls, model: FittedModel, path: str) -> Self:
        """Return the model of a folder as one to go on from."""
        configs = tuple(
            GccaConfig(
                FeatureMap(about["features"], squash=about["squash"]), about["ridge"], about["power"], about["dim"]
            )
            for about in model.config["members"]
        )
        digest = sha256()
        for member in model.members:
            for projection in member.projections:
                for array in projection.arrays().values():
                    digest.update(array.tobytes())
            for tensor in member.encoder.state()[1].values():
                digest.update(tensor.numpy().tobytes())
        inputs = model.inputs["modalities"]
        return cls(
            model.names, model.members, configs, model.seen, inputs, digest.hexdigest(), path, model.axes, model.kept
        )

    def check(self, settings: FitSettings, dataset: Dataset) -> None:
        """Raise the error that fits if these settings and data cannot go on from it."""
        self._check_settings(settings)
        self._check_encoders(settings)
        if not set(self.names) & set(dataset.names):
            raise DataError(
                what="nothing in common with the model to continue from",
                at=Place(self.path),
                found=f"modalities {', '.join(dataset.names)}",
                expected=f"one or more of {', '.join(self.names)} among them",
                next_step=f"Name them as the model does, as in {self.names[0]}=FILE.",
            )
        for features in dataset.modalities:
            if features.name in self.names:
                width = self.members[0].projections[self.names.index(features.name)].dim
                axes = self.inputs.get(features.name, {}).get("axes", "")
                check_features(features, width, axes, self.path)

    @staticmethod
    def _check_settings(settings: FitSettings) -> None:
        what = "a setting that the model to continue from has decided"
        for name, unchanged in (("dim", None), ("adapter", "auto")):
            value = getattr(settings, name)
            if value != unchanged:
                raise UsageError(
                    what,
                    found=f"--{name} {value}",
                    expected=f"no --{name} beside --continue-from",
                    next_step="Leave it out.",
                )
        for objective in objectives_of(settings):
            if objective in REGISTRY and method_class(objective).encoder is not Method.encoder:
                raise UsageError(
                    what="objective cannot continue from a model",
                    found=f"--objective {objective}, which has an encoder of its own",
                    expected="one that trains an adapter for each modality, such as pmrl or infonce",
                    next_step="Choose another --objective, or fit without --continue-from.",
                )

    def _check_encoders(self, settings: FitSettings) -> None:
        encoders = [member.encoder for member in self.members]
        if not all(isinstance(encoder, Residual) for encoder in encoders):
            raise StateError(
                what="model cannot be continued from",
                at=Place(self.path),
                found="an encoder of its own kind",
                expected="an adapter for each modality",
                next_step="Fit a model with --objective pmrl first, and continue from that.",
            )
        if settings.protect != "none" and any(isinstance(e, Residual) and e.seen is None for e in encoders):
            raise StateError(
                what="model does not record what it was trained on",
                at=Place(self.path),
                found="no moments of its training instances, as in models of earlier versions",
                expected="those that every fit now keeps",
                next_step="Fit that model again, or add --protect none to continue without protection.",
            )

    def widened(
        self, dataset: Dataset, excluded: npt.NDArray[np.bool_] | None
    ) -> tuple[Dataset, npt.NDArray[np.bool_] | None]:
        """Return the data set with the modalities of the model that it lacks: every instance lacks them.

        Args:
            dataset: of this fit.
            excluded: (n, k) as for ``fit``, returned for as many modalities.
        """
        missing = [name for name in self.names if name not in dataset.names]
        nothing = np.zeros(1, dtype=np.float32)
        features = list(dataset.modalities)
        present = [dataset.present[:, m] for m in range(len(features))]
        for name in missing:
            dim = self.members[0].projections[self.names.index(name)].dim
            features.append(Features(name, np.broadcast_to(nothing, (len(dataset), dim)), digest="absent"))
            present.append(np.zeros(len(dataset), dtype=bool))
        order = sorted(range(len(features)), key=lambda m: features[m].name.encode())
        whole = replace(
            dataset,
            modalities=tuple(features[m] for m in order),
            present=np.stack([present[m] for m in order], axis=1),
            hashes=None,
        )
        if excluded is None:
            return whole, None
        columns = [*excluded.T, *(np.zeros(len(dataset), dtype=bool) for _ in missing)]
        return whole, np.stack([columns[m] for m in order], axis=1)

    def with_ids(self, seen: Mapping[str, npt.NDArray[np.uint64]]) -> dict[str, npt.NDArray[np.uint64]]:
        """Return the hashes of what trained, and of the ids that only chose, the model or what went on from it."""
        both = {
            part: np.union1d(self.seen.get(part, _NOTHING), seen.get(part, _NOTHING)) for part in {*self.seen, *seen}
        }
        return both | {"validation": np.setdiff1d(both["validation"], both["train"], assume_unique=True)}

    def with_inputs(self, inputs: Mapping[str, dict[str, object]]) -> dict[str, dict[str, object]]:
        """Return what was fitted by modality; of one that no new instance has, what the model says."""
        return {name: dict(self.inputs[name]) if not about["rows"] else about for name, about in inputs.items()}

    def places(self, names: Sequence[str]) -> tuple[int | None, ...]:
        """Return per modality of a fit its place in the model, None for a new one."""
        return tuple(self.names.index(name) if name in self.names else None for name in names)
