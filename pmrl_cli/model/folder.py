"""A fitted model to its folder and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pmrl_cli.closed_form.projection import Projection
from pmrl_cli.data.leaks import VECTORS
from pmrl_cli.encoders import encoder_from_state
from pmrl_cli.errors import DataError, Place
from pmrl_cli.files.artifacts.model import FORMAT, SPLIT, read_model, to_toml, write_model
from pmrl_cli.files.artifacts.tensors import read_tensors, write_tensors
from pmrl_cli.files.durable.atomic import atomic_folder, to_json
from pmrl_cli.files.durable.checksums import check_bytes
from pmrl_cli.model.fitted import FittedModel
from pmrl_cli.model.members import Member
from pmrl_cli.model.texts import Texts

__all__ = ["load_model", "save_model"]

AXES = "axes"
"""Name of the principal axes among the tensors."""


def save_model(
    model: FittedModel,
    folder: Path,
    *,
    force: bool,
    run: Mapping[str, object] | None,
    reading: Mapping[str, object] | None,
) -> None:
    """Write the model folder; see ``Aligner.save``."""
    seen = {part: torch.from_numpy(hashes) for part, hashes in model.seen.items()}
    texts = dict(model.texts)
    if reading is not None:
        texts["resolved.toml"] += to_toml(reading)
    with atomic_folder(folder, kind=FORMAT, force=force) as temporary:
        write_tensors(temporary / "model.safetensors", _tensors_of(model))
        write_tensors(temporary / "seen.safetensors", seen)
        write_model(temporary, texts=texts, inputs=model.inputs, run=run)


def _tensors_of(model: FittedModel) -> dict[str, Tensor]:
    """Return the arrays of all projections and encoders, by member, modality and name."""
    tensors: dict[str, Tensor] = {}
    for i, member in enumerate(model.members):
        for name, projection in zip(model.names, member.projections, strict=True):
            for key, array in projection.arrays().items():
                # A copy: members of one kind share their projections, which safetensors refuses to write twice.
                tensors[f"{i}.{name}.projection.{key}"] = torch.from_numpy(array.copy())
        tensors |= {f"{i}.{key}": tensor for key, tensor in member.encoder.state()[1].items()}
    return tensors if model.axes is None else tensors | {AXES: torch.from_numpy(model.axes)}


def load_model(folder: Path) -> FittedModel:
    """Read a model folder, its bytes checked against its manifest.

    Raises: DataError if it is no model; StateError if it changed or is from a newer pmrl.
    """
    files, manifest = read_model(folder)
    try:
        return _model_of(folder, files, manifest)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise DataError(
            what="not a model",  # digests show that bytes are as written, not who wrote them
            at=Place(str(folder)),
            found=" ".join(f"{type(error).__name__}: {error}".split())[:120],
            expected="a folder written by pmrl fit",
            next_step="Give the folder that pmrl fit printed.",
        ) from error


def _model_of(folder: Path, files: Mapping[str, bytes], manifest: Mapping[str, Any]) -> FittedModel:
    texts = {name: content.decode() for name, content in files.items() if not name.endswith(".safetensors")}
    config = json.loads(texts["config.json"])
    numbered = "members" in config  # a model of format 1 is one alignment, whose tensors have no number
    if not numbered:
        config["members"] = [{"features": "linear", "squash": False}]
        texts["config.json"] = to_json(config)
    names = tuple(str(m["name"]) for m in config["modalities"])
    tensors = read_tensors(files["model.safetensors"], folder / "model.safetensors")
    members = []
    for i, about in enumerate(config["members"]):
        prefix = f"{i}." if numbered else ""
        own = {key.removeprefix(prefix): tensors.pop(key) for key in list(tensors) if key.startswith(prefix)}
        # Models from before an encoder stated its kind have one adapter for each modality.
        encoder = about.get("encoder") or {"kind": "residual", "names": names, "hidden": config["hidden"]}
        members.append(_member(names, about, encoder, own))
    axes = tensors.pop(AXES).numpy() if AXES in tensors else None
    if tensors:
        message = f"tensors of no member: {', '.join(sorted(tensors)[:5])}"
        raise ValueError(message)
    if not isinstance(config["settings"], dict):
        message = "settings without names"
        raise TypeError(message)
    later = {}
    if SPLIT in manifest["files"]:
        path, digest = folder / SPLIT, manifest["files"][SPLIT]
        later[SPLIT] = lambda: check_bytes(path, digest).decode()
    seen = _read_seen(files["seen.safetensors"], folder / "seen.safetensors", names)
    kept = config.get("reduced")
    return FittedModel(names, tuple(members), seen, Texts(texts, later), manifest["inputs"], str(folder), axes, kept)


def _member(
    names: Sequence[str], about: Mapping[str, Any], encoder: Mapping[str, Any], tensors: dict[str, Tensor]
) -> Member:
    """Return a member of its configuration and tensors, those of its projections taken out."""
    keys = Projection.array_names(kernel=about["features"] == "kernel")
    projections = tuple(
        Projection.from_arrays(
            {key: tensors.pop(f"{name}.projection.{key}").numpy() for key in keys}, squash=bool(about["squash"])
        )
        for name in names
    )
    return Member(projections, encoder_from_state(encoder, tensors))


def _read_seen(content: bytes, path: Path, names: Sequence[str]) -> dict[str, npt.NDArray[np.uint64]]:
    """Return what a fit has seen: hashes of ids, and of vectors unless an older pmrl wrote the model."""
    tensors = read_tensors(content, path)
    ids, vectors = {"train", "validation"}, {f"{VECTORS}{name}" for name in names}
    if set(tensors) not in (ids, ids | vectors):
        message = f"seen.safetensors holds {', '.join(sorted(tensors)[:5])}"
        raise ValueError(message)
    return {name: tensor.numpy() for name, tensor in tensors.items()}
