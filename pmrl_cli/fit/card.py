"""The text files of a model folder, written from a fit: config, resolved settings, metrics, history, card."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

from pmrl_cli import __version__
from pmrl_cli.closed_form.gcca import SOLVERS
from pmrl_cli.encoders import encoder_state
from pmrl_cli.files.artifacts.model import SPLIT, to_csv, to_toml
from pmrl_cli.files.durable.atomic import to_json
from pmrl_cli.fit.result import Continued, FitResult, Recipe
from pmrl_cli.methods import REGISTRY, settings_of
from pmrl_cli.model.members import Member
from pmrl_cli.train.progress import Progress

__all__ = ["texts_of"]


def _line(progress: Progress) -> dict[str, object]:
    own = {f.name: getattr(progress, f.name) for f in fields(progress) if f.name not in ("parts", "statistics")}
    values = own | progress.statistics | progress.parts
    return {name: "" if isinstance(value, float) and math.isnan(value) else value for name, value in values.items()}


def _resolved(result: FitResult) -> dict[str, object]:
    settings = result.settings.as_dict()
    chosen: dict[str, Any] = settings.pop("objective_settings")  # type: ignore[assignment]
    terms: dict[str, Any] = settings.pop("terms")  # type: ignore[assignment]
    # What the data decided (dim, steps, batch size) stays undecided: a refit decides it again, byte for byte.
    written = {
        key: [f"{name}={value}" for name, value in sorted(of.items())]
        for key, of in (("set", chosen), ("term", terms))
    }
    return settings | {key: pairs for key, pairs in written.items() if pairs or key == "set"}


def _member(recipe: Recipe, member: Member, result: FitResult) -> dict[str, object]:
    config = recipe.closed_form.config
    known = {} if result.settings.objective in SOLVERS else settings_of(recipe.objective)
    return {
        "features": config.features.kind,
        "squash": config.features.squash,
        "ridge": config.ridge,
        "power": config.power,
        "dim": config.dim,
        "encoder": encoder_state(member.encoder)[0],
        "objective": recipe.objective,
        "objective_settings": {**known, **result.settings.objective_settings},
        "learned": recipe.learned,
        "dropout": recipe.dropout,
        "stage": recipe.name,
        "network": recipe.network,
        "best_step": recipe.best.step,
        "steps": recipe.steps,
    }


def _config(result: FitResult) -> dict[str, object]:
    settings = result.settings
    return {
        "modalities": [{"name": name, "dim": result.inputs[name]["dim"]} for name in result.names],
        "dim": result.dim,
        "reduced": result.reduced,
        "members": [
            _member(recipe, member, result) for recipe, member in zip(result.recipes, result.members, strict=True)
        ],
        "refitted": result.refitted,
        "schedule": {
            "batch_size": result.schedule.batch_size,
            "steps": result.schedule.steps,
            "every": result.schedule.every,
        },
        "continued": None if result.continued is None else vars(result.continued),
        "settings": settings.as_dict(),
        "pmrl": __version__,
    }


def _metrics(result: FitResult) -> dict[str, float | str]:
    start = result.start
    return {
        "best.step": result.recipes[0].best.step,
        "chosen": result.chosen,
        "training.helped": result.helped,
        "candidates.planned": result.planned,
        "candidates.tried": len(result.tried),
        "budget": result.cut,
        "split": result.split,
        "refitted": result.refitted,
        "held_out.chance": result.chance,
        "held_out.ranked": result.ranked,
        "members": len(result.members),
        "held_out.mrr": result.held_out.mrr,
        "held_out.r1": result.held_out.r1,
        "held_out.share": result.share,
        **{f"held_out.mrr.{dim}d": mrr for dim, mrr in result.in_dims.items()},
        "start.mrr": start.mrr,
        "start.r1": start.r1,
        "instances.train": result.counts["train"],
        "instances.validation": result.counts["validation"],
        "instances.test": result.counts["test"],
        "instances.suspect": result.counts["suspect"],
        "excluded.vectors": result.excluded["vectors"],
        "excluded.instances": result.excluded["instances"],
    }


def _tried(result: FitResult) -> str:
    chosen = {recipe.name for recipe in result.recipes}
    return "\n".join(
        f"| {recipe.name}{' *' if recipe.name in chosen else ''} | {recipe.closed_form.config.features} | "
        f"{recipe.closed_form.config.dim} | {recipe.start.mrr:.3f} | {recipe.best.mrr:.3f} | {recipe.best.step} |"
        for recipe in result.tried
    )


def _why(result: FitResult) -> str:
    first = result.recipes[0]
    if first.by_loss:
        kind = first.closed_form.config.features.kind
        return (
            f"`{first.name}` had the least validation loss on {kind} components, and retrieval chose between kinds; "
            "such models stand alone."
        )
    if first.by_criterion:
        return f"`{first.name}` was best by the method's own criterion; such models stand alone."
    best = max(result.tried, key=lambda recipe: recipe.best.mrr)
    if len(result.members) == 1:
        return f"`{best.name}` ranked the validation instances best, and no other beside it added anything."
    together = ", ".join(f"`{recipe.name}`" for recipe in result.recipes)
    return (
        f"{together} side by side, their cosines averaged, rank the validation instances at "
        f"{result.held_out.mrr:.3f} ({best.best.mrr:.3f} the best alone); adding more members did not improve it."
    )


def _smaller(result: FitResult) -> str:
    """Return what fewer dimensions cost, in words."""
    if not result.in_dims:
        return ""
    *fewer, (dim, whole) = result.in_dims.items()
    each = ", ".join(f"{mrr:.3f} in {less} dimensions" for less, mrr in fewer)
    here = f"this model has {result.reduced}" if result.reduced else "`pmrl export --dim D` writes D"
    return f" Along its principal axes the space ranks them at {each}, {whole:.3f} in all {dim}; {here}."


def _continued(continued: Continued | None) -> str:
    if continued is None:
        return ""
    joined = f" {', '.join(continued.new)} joined its space." if continued.new else ""
    protected = {name: ranks for of_member in continued.ranks for name, ranks in of_member.items()}
    kept = "; ".join(f"{name} {ranks['inputs']} of {ranks['of']}" for name, ranks in protected.items())
    kept = f" Input directions that are protected (--protect {continued.protect}): {kept}." if kept else ""
    notes = "".join(f" Note: {note}" for note in continued.notes)
    return f"\n\nWent on from the model `{continued.model}`.{joined}{kept}{notes}"


def _card(result: FitResult) -> str:
    return f"""# Alignment of {", ".join(result.names)}

Maps precomputed features of {len(result.names)} modalities into one space of {result.dim} dimensions, in which the
vectors of one instance point the same way. Made by pmrl {__version__}.{_continued(result.continued)}

{_modalities(result)}

## How

{_how(result)}

## Held-out retrieval

{_held_out(result)}

## Limits

Only what the frozen encoders encode can be aligned; nothing was measured on data unlike the training instances.
Check with `pmrl diagnose FILES --model .` before relying on it.
"""


def _modalities(result: FitResult) -> str:
    rows = "\n".join(
        f"| {name} | {result.inputs[name]['rows']:,} | {result.inputs[name]['dim']} | "
        f"{', '.join(str(member.projections[m].components) for member in result.members)} |"
        for m, name in enumerate(result.names)
    )
    return f"""| modality | instances | columns | components kept |
|---|---|---|---|
{rows}"""


def _how(result: FitResult) -> str:
    settings = result.settings
    summary = "closed form" if settings.objective in SOLVERS else REGISTRY[result.recipes[0].objective].summary
    tried = sum({recipe.closed_form: recipe.closed_form.compared for recipe in result.tried}.values())
    cut = f" {result.cut}." if result.cut else ""
    again = (
        "Then the chosen recipes were repeated with the validation instances trained on too."
        if result.refitted
        else "The validation instances did not train."
    )
    labels = " --labels LABELS" if settings.group or settings.split_column else ""
    listed = " --exclude LIST" if result.excluded["vectors"] else ""
    if any(progress.step for progress in result.history):
        optimiser = f", AdamW at {settings.learning_rate:g} on\nbatches of {result.schedule.batch_size}"
        first = result.recipes[0]
        where = "validation ranked best"
        if first.by_criterion:
            where = "the validation loss was least" if first.by_loss else "the method's own criterion was best"
        these = f"from the best of each\nkind these recipes were trained, each stopped where {where}"
    else:
        optimiser, these = "", "these are\nthe best of each kind; nothing was trained"
    makes = "makes it again"
    if settings.budget is not None:
        makes = f"tries the same, as far as it comes in {settings.budget:g} s"
    return f"""Objective `{settings.objective}` ({summary}), adapter `{settings.adapter}`{optimiser}.
{tried} closed forms were compared on validation, and {these} (* chosen):

| recipe | scores | dim | start MRR | best MRR | step |
|---|---|---|---|---|---|
{_tried(result)}

Chosen: {result.chosen}.{cut}

{_why(result)} {again} `pmrl fit FILES{labels}{listed} --config resolved.toml` {makes}."""


def _held_out(result: FitResult) -> str:
    counts, excluded = result.counts, result.excluded
    left_out = (
        f" {excluded['vectors']:,} vectors of {excluded['instances']:,} instances were left out of both (--exclude)."
        if excluded["vectors"]
        else ""
    )
    suspects = f"{counts['suspect']:,} of them, the most suspect, did not train. " if counts["suspect"] else ""
    test = (
        f"{counts['test']:,} instances were kept unseen: `pmrl evaluate FILES --model .` ranks those."
        if counts["test"]
        else "No instances were kept unseen; validation chose the settings, so its figures are a little optimistic."
    )
    trained = "what was chosen, before the refit" if result.refitted else "this model"
    whole = ", in all its dimensions" if result.reduced else ""
    reduced = f", in {result.reduced} dimensions" if result.reduced else ""
    return f"""{counts["train"]:,} instances trained and {counts["validation"]:,} chose, split
{result.split}.{left_out} {suspects}{test}

| on {result.ranked:,} validation instances | MRR | R@1 | sigma_1^2/k |
|---|---|---|---|
| best closed-form start{whole} | {result.start.mrr:.3f} | {result.start.r1:.3f} | {result.start.share:.3f} |
| {trained}{reduced} | {result.held_out.mrr:.3f} | {result.held_out.r1:.3f} | {result.share:.3f} |

Means over all ordered pairs of modalities, those instances the gallery.{_smaller(result)}"""


def texts_of(result: FitResult) -> dict[str, str]:
    """Return the text files of the model folder by name."""
    return {
        "config.json": to_json(_config(result)),
        "resolved.toml": to_toml(_resolved(result)),
        "metrics.json": to_json(_metrics(result)),
        "history.csv": to_csv([_line(progress) for progress in result.history]),
        SPLIT: result.parts,
        "README.md": _card(result),
    }
