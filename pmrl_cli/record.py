"""The text files of a model folder, written from a fit: config, resolved settings, metrics, history, card."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

from pmrl_cli import __version__
from pmrl_cli.files.atomic import to_json
from pmrl_cli.files.model_folder import to_csv, to_toml
from pmrl_cli.objectives import REGISTRY, settings_of
from pmrl_cli.training.fit import HIDDEN, Fitted
from pmrl_cli.training.loop import Progress

__all__ = ["texts_of"]


def _line(progress: Progress) -> dict[str, object]:
    own = {f.name: getattr(progress, f.name) for f in fields(progress) if f.name not in ("parts", "statistics")}
    values = own | progress.statistics | progress.parts
    return {name: "" if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}


def _resolved(fitted: Fitted) -> dict[str, object]:
    settings = fitted.settings.as_dict()
    chosen: dict[str, Any] = settings.pop("objective_settings")  # type: ignore[assignment]
    # What the data decided (dim, steps, batch size) stays undecided: a refit decides it again, byte for byte.
    return {**settings, "set": [f"{key}={value!r}" for key, value in sorted(chosen.items())]}


def _config(fitted: Fitted) -> dict[str, object]:
    settings = fitted.settings
    return {
        "modalities": [
            {"name": name, "dim": len(projection.mean), "components": projection.basis.shape[1]}
            for name, projection in zip(fitted.names, fitted.projections, strict=True)
        ],
        "dim": fitted.setting.dim,
        "adapter": settings.adapter,
        "hidden": HIDDEN if settings.adapter == "mlp" else 0,
        "objective": {
            "name": settings.objective,
            "settings": {**settings_of(settings.objective), **settings.objective_settings},
            "learned": fitted.learned,
        },
        "chosen": {
            "ridge": fitted.setting.ridge,
            "power": fitted.setting.power,
            "dim": fitted.setting.dim,
            "given": fitted.setting.given,
            "dropout": fitted.dropout,
            "steps": fitted.best.step,
            "refitted": fitted.refitted,
            "steps_of_refit": fitted.history[-1].step if fitted.refitted else 0,
        },
        "schedule": {
            "batch_size": fitted.plan.batch_size,
            "steps": fitted.plan.steps,
            "every": fitted.plan.every,
        },
        "settings": settings.as_dict(),
        "pmrl": __version__,
    }


def _metrics(fitted: Fitted) -> dict[str, float]:
    best, start = fitted.best, fitted.start
    return {
        "best.step": best.step,
        "held_out.mrr": best.mrr,
        "held_out.r1": best.r1,
        "held_out.share": best.share,
        "start.mrr": start.mrr,
        "start.r1": start.r1,
        "instances.train": fitted.counts["train"],
        "instances.validation": fitted.counts["validation"],
        "instances.test": fitted.counts["test"],
        "excluded.vectors": fitted.excluded["vectors"],
        "excluded.instances": fitted.excluded["instances"],
    }


def _card(fitted: Fitted) -> str:
    best, start, settings = fitted.best, fitted.setting, fitted.settings
    rows = "\n".join(
        f"| {name} | {fitted.inputs[name]['rows']:,} | {len(projection.mean)} | {projection.basis.shape[1]} |"
        for name, projection in zip(fitted.names, fitted.projections, strict=True)
    )
    origin = (
        "the features as they are, centred"
        if start.given
        else f"ridge MAXVAR GCCA (ridge {start.ridge:g}, correlation power {start.power:g})"
    )
    trained = "trained, before the refit" if fitted.refitted else "this model"
    excluded = fitted.excluded
    left_out = (
        f" {excluded['vectors']:,} vectors of {excluded['instances']:,} instances were left out of both (--exclude)."
        if excluded["vectors"]
        else ""
    )
    listed = " --exclude LIST" if excluded["vectors"] else ""
    labels = " --labels LABELS" if settings.group or settings.split_column else ""
    again = (
        "Then all of that was repeated with the validation instances trained on too."
        if fitted.refitted
        else "The validation instances did not train."
    )
    test = (
        f"{fitted.counts['test']:,} instances were kept unseen: `pmrl evaluate FILES --model .` ranks those."
        if fitted.counts["test"]
        else "No instances were kept unseen; validation chose the settings, so its figures are a little optimistic."
    )
    return f"""# Alignment of {", ".join(fitted.names)}

Maps precomputed features of {len(fitted.names)} modalities into one space of {start.dim} dimensions, in which the
vectors of one instance point the same way. Made by pmrl {__version__}.

| modality | instances | columns | components kept |
|---|---|---|---|
{rows}

## How

Objective `{settings.objective}` ({REGISTRY[settings.objective].summary}), `{settings.adapter}` adapters, started at
{origin} (the best of {start.tried} starts on validation).
AdamW at {settings.learning_rate:g} on batches of {fitted.plan.batch_size}, input dropout {fitted.dropout:g}, stopped
at step {best.step}. {again} `pmrl fit FILES{labels}{listed} --config resolved.toml` makes it again.

## Held-out retrieval

{fitted.counts["train"]:,} instances trained and {fitted.counts["validation"]:,} chose.{left_out} {test}

| on {fitted.ranked:,} validation instances | MRR | R@1 | sigma_1^2/k |
|---|---|---|---|
| closed-form start | {fitted.start.mrr:.4f} | {fitted.start.r1:.4f} | {fitted.start.share:.4f} |
| {trained} | {best.mrr:.4f} | {best.r1:.4f} | {best.share:.4f} |

Means over all ordered pairs of modalities, those instances the gallery.

## Limits

Only what frozen encoders already say can be aligned; nothing is known about data unlike the training instances.
Check with `pmrl diagnose FILES --model .` before relying on it.
"""


def texts_of(fitted: Fitted) -> dict[str, str]:
    """Return the text files of the model folder by name."""
    return {
        "config.json": to_json(_config(fitted)),
        "resolved.toml": to_toml(_resolved(fitted)),
        "metrics.json": to_json(_metrics(fitted)),
        "history.csv": to_csv([_line(progress) for progress in fitted.history]),
        "README.md": _card(fitted),
    }
