"""How a fit went, read back from the text files of its model."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pmrl_cli.files.artifacts.model import read_model
from pmrl_cli.methods import is_sign_aware, temperatures_of

__all__ = ["SCHEMA", "read_training", "training_of"]

SCHEMA = "pmrl.training/1"

_SHORT = {"load": "loading", "grad_share": "gradient_share", "pr_deb": "participation_ratio"}


def read_training(folder: Path) -> dict[str, Any]:
    """Return how the fit of a model folder went: see ``training_of``.

    Raises: DataError if the folder is no model; StateError if it has changed or is of another version.
    """
    files, _ = read_model(folder)
    return training_of({name: files[name].decode("utf-8") for name in ("config.json", "history.csv")})


def training_of(texts: Mapping[str, str]) -> dict[str, Any]:
    """Return how a fit went: the ``pmrl.training/1`` object.

    Args:
        texts: ``config.json`` and ``history.csv`` of the model.

    Returns: ``modalities``, ``dim``, ``objectives``, ``sign_aware`` (whether one of them takes the
        sign-aware spectrum), ``temperatures`` (of the ``spectrum`` and of the ``instance``
        contrast, as training left them; None where the objective has none, or where a model has several members,
        each with its own), ``kept`` (``stage``, ``step`` and ``epoch`` of the evaluation whose weights each member
        has, or that a refit repeated), ``refitted``, and ``history``: each evaluation, without what was not known,
        to six digits.
    """
    config = json.loads(texts["config.json"])
    history = [
        {_name(name): value if name == "stage" else _number(value) for name, value in line.items() if value}
        for line in csv.DictReader(io.StringIO(texts["history.csv"]))
    ]
    epochs = {(line["stage"], line["step"]): line["epoch"] for line in history}
    kept = [(member["stage"], member["best_step"]) for member in config["members"]]
    return {
        "schema": SCHEMA,
        "modalities": [one["name"] for one in config["modalities"]],
        "dim": config["dim"],
        "objectives": list(dict.fromkeys(member["objective"] for member in config["members"])),
        "sign_aware": any(is_sign_aware(member["objective"]) for member in config["members"]),
        "temperatures": _temperatures(config["members"]),
        "kept": [{"stage": stage, "step": step, "epoch": epochs[stage, step]} for stage, step in kept],
        "refitted": config["refitted"],
        "history": history,
    }


def _name(name: str) -> str:
    """Return the name of a number of a history, written out where an earlier version had it short."""
    short, dot, modality = name.partition(".")
    return _SHORT[short] + dot + modality if dot and short in _SHORT else name


def _temperatures(members: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    if len(members) > 1:
        return {"spectrum": None, "instance": None}
    return temperatures_of(members[0]["objective"], members[0]["objective_settings"], members[0]["learned"])


def _number(text: str) -> float | int:
    return int(text) if text.isdecimal() else float(f"{float(text):.6g}")
