"""The text files of a model folder, written from a fit: config, resolved settings, metrics, history, card."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

from pmrl_cli import __version__
from pmrl_cli.encoders import encoder_state
from pmrl_cli.ensemble import Member
from pmrl_cli.files.artifacts.model import to_csv, to_toml
from pmrl_cli.files.durable.atomic import to_json
from pmrl_cli.gcca import SOLVERS
from pmrl_cli.methods import REGISTRY, settings_of
from pmrl_cli.training.fitted import Fitted, Recipe
from pmrl_cli.training.loop import Progress

__all__ = ["texts_of"]


def _line(progress: Progress) -> dict[str, object]:
    own = {f.name: getattr(progress, f.name) for f in fields(progress) if f.name not in ("parts", "statistics")}
    values = own | progress.statistics | progress.parts
    return {name: "" if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}


def _resolved(fitted: Fitted) -> dict[str, object]:
    settings = fitted.settings.as_dict()
    chosen: dict[str, Any] = settings.pop("objective_settings")  # type: ignore[assignment]
    terms: dict[str, Any] = settings.pop("terms")  # type: ignore[assignment]
    # What the data decided (dim, steps, batch size) stays undecided: a refit decides it again, byte for byte.
    written = {
        key: [f"{name}={value}" for name, value in sorted(of.items())]
        for key, of in (("set", chosen), ("term", terms))
    }
    return settings | {key: pairs for key, pairs in written.items() if pairs or key == "set"}


def _member(recipe: Recipe, member: Member, fitted: Fitted) -> dict[str, object]:
    setting = recipe.setting
    known = {} if fitted.settings.objective in SOLVERS else settings_of(recipe.objective)
    return {
        "features": setting.features.kind,
        "squash": setting.features.squash,
        "ridge": setting.ridge,
        "power": setting.power,
        "dim": setting.dim,
        "encoder": encoder_state(member.encoder)[0],
        "objective": recipe.objective,
        "objective_settings": {**known, **fitted.settings.objective_settings},
        "learned": recipe.learned,
        "dropout": recipe.dropout,
        "stage": recipe.name,
        "best_step": recipe.best.step,
        "steps": recipe.steps,
    }


def _config(fitted: Fitted) -> dict[str, object]:
    settings = fitted.settings
    return {
        "modalities": [{"name": name, "dim": fitted.inputs[name]["dim"]} for name in fitted.names],
        "dim": fitted.dim,
        "members": [
            _member(recipe, member, fitted) for recipe, member in zip(fitted.recipes, fitted.members, strict=True)
        ],
        "refitted": fitted.refitted,
        "schedule": {
            "batch_size": fitted.plan.batch_size,
            "steps": fitted.plan.steps,
            "every": fitted.plan.every,
        },
        "settings": settings.as_dict(),
        "pmrl": __version__,
    }


def _metrics(fitted: Fitted) -> dict[str, float]:
    start = fitted.start
    return {
        "best.step": fitted.recipes[0].best.step,
        "members": len(fitted.members),
        "held_out.mrr": fitted.held_out.mrr,
        "held_out.r1": fitted.held_out.r1,
        "held_out.share": fitted.share,
        "start.mrr": start.mrr,
        "start.r1": start.r1,
        "instances.train": fitted.counts["train"],
        "instances.validation": fitted.counts["validation"],
        "instances.test": fitted.counts["test"],
        "instances.distrusted": fitted.counts["distrusted"],
        "excluded.vectors": fitted.excluded["vectors"],
        "excluded.instances": fitted.excluded["instances"],
    }


def _tried(fitted: Fitted) -> str:
    chosen = {recipe.name for recipe in fitted.recipes}
    return "\n".join(
        f"| {recipe.name}{' *' if recipe.name in chosen else ''} | {recipe.setting.features} | "
        f"{recipe.setting.dim} | {recipe.start.mrr:.4f} | {recipe.best.mrr:.4f} | {recipe.best.step} |"
        for recipe in fitted.tried
    )


def _why(fitted: Fitted) -> str:
    best = max(fitted.tried, key=lambda recipe: recipe.best.mrr)
    if fitted.settings.dim is not None:
        return f"`{best.name}` ranked the validation instances best; a dimension was asked for, so it stands alone."
    if len(fitted.members) == 1:
        return f"`{best.name}` ranked the validation instances best, and no other beside it added anything."
    together = ", ".join(f"`{recipe.name}`" for recipe in fitted.recipes)
    return (
        f"{together} side by side, their cosines averaged,, rank the validation instances at "
        f"{fitted.held_out.mrr:.4f} ({best.best.mrr:.4f} the best alone); more would cost more than chance."
    )


def _card(fitted: Fitted) -> str:
    settings = fitted.settings
    rows = "\n".join(
        f"| {name} | {fitted.inputs[name]['rows']:,} | {fitted.inputs[name]['dim']} | "
        f"{', '.join(str(member.projections[m].components) for member in fitted.members)} |"
        for m, name in enumerate(fitted.names)
    )
    summary = "closed form" if settings.objective in SOLVERS else REGISTRY[fitted.recipes[0].objective].summary
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
        "Then the chosen recipes were repeated with the validation instances trained on too."
        if fitted.refitted
        else "The validation instances did not train."
    )
    test = (
        f"{fitted.counts['test']:,} instances were kept unseen: `pmrl evaluate FILES --model .` ranks those."
        if fitted.counts["test"]
        else "No instances were kept unseen; validation chose the settings, so its figures are a little optimistic."
    )
    distrusted = (
        f"{fitted.counts['distrusted']:,} of them, the most suspect, did not train. "
        if fitted.counts["distrusted"]
        else ""
    )
    tried = sum({recipe.setting: recipe.setting.tried for recipe in fitted.tried}.values())
    return f"""# Alignment of {", ".join(fitted.names)}

Maps precomputed features of {len(fitted.names)} modalities into one space of {fitted.dim} dimensions, in which the
vectors of one instance point the same way. Made by pmrl {__version__}.

| modality | instances | columns | components kept |
|---|---|---|---|
{rows}

## How

Objective `{settings.objective}` ({summary}), adapter `{settings.adapter}`, AdamW at {settings.learning_rate:g} on
batches of {fitted.plan.batch_size}. {tried} closed-form starts were compared on validation, and from the best of each
kind these recipes were trained, each stopped where validation ranked best (* chosen):

| recipe | scores | dim | start MRR | best MRR | step |
|---|---|---|---|---|---|
{_tried(fitted)}

{_why(fitted)} {again} `pmrl fit FILES{labels}{listed} --config resolved.toml` makes it again.

## Held-out retrieval

{fitted.counts["train"]:,} instances trained and {fitted.counts["validation"]:,} chose.{left_out} {distrusted}{test}

| on {fitted.ranked:,} validation instances | MRR | R@1 | sigma_1^2/k |
|---|---|---|---|
| best closed-form start | {fitted.start.mrr:.4f} | {fitted.start.r1:.4f} | {fitted.start.share:.4f} |
| {trained} | {fitted.held_out.mrr:.4f} | {fitted.held_out.r1:.4f} | {fitted.share:.4f} |

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
