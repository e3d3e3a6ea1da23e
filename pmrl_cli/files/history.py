"""How a fit went, read back from the text files of its model."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pmrl_cli.files.model_folder import read_model

__all__ = ["SCHEMA", "read_training"]

SCHEMA = "pmrl.training/1"

_SOFTMAX = ("pmrl", "pmrl-paper", "infonce", "ldc", "anchor")
"""Objectives whose contrast is a softmax of cosines over a temperature."""


def read_training(folder: Path) -> dict[str, Any]:
    """Return how a fit went: the ``pmrl.training/1`` object.

    Args:
        folder: of the model.

    Returns: ``modalities``, ``dim``, ``objective``, ``adapter``, ``temperatures`` (of the ``spectrum`` and of the
        ``instance`` contrast, as training left them; None where the objective has none), ``kept`` (``stage``,
        ``step`` and ``epoch`` of the evaluation whose weights were kept, or that a refit repeated; ``refitted``) and
        ``history``: each evaluation, without what was not known, to six digits.

    Raises: DataError if the folder is no model; StateError if it has changed or is of another version.
    """
    texts, _ = read_model(folder)
    config = json.loads(texts["config.json"])
    history = [
        {name: value if name == "stage" else _number(value) for name, value in line.items() if value}
        for line in csv.DictReader(io.StringIO(texts["history.csv"]))
    ]
    chosen = config["chosen"]
    stage = f"dropout {chosen['dropout']:g}"
    epoch = next(line["epoch"] for line in history if (line["stage"], line["step"]) == (stage, chosen["steps"]))
    return {
        "schema": SCHEMA,
        "modalities": [one["name"] for one in config["modalities"]],
        "dim": config["dim"],
        "objective": config["objective"]["name"],
        "adapter": config["adapter"],
        "temperatures": _temperatures(config["objective"]),
        "kept": {"stage": stage, "step": chosen["steps"], "epoch": epoch, "refitted": chosen["refitted"]},
        "history": history,
    }


def _temperatures(objective: Mapping[str, Any]) -> dict[str, float | None]:
    settings, learned = objective["settings"], objective["learned"]
    found = {"spectrum": settings.get("temperature_spectrum"), "instance": None}
    if objective["name"] in _SOFTMAX:
        # A learned temperature is kept as its logarithm.
        logs = [learned[key] for key in ("temperature_instance.log", "temperature.log") if key in learned]
        found["instance"] = math.exp(logs[0]) if logs else settings.get("temperature_instance")
    return found


def _number(text: str) -> float | int:
    return int(text) if text.isdecimal() else float(f"{float(text):.6g}")
