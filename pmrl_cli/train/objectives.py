"""What the settings of a fit ask its methods for: known before anything is trained, or a model loaded."""

from __future__ import annotations

import torch

from pmrl_cli.closed_form.gcca import SOLVERS
from pmrl_cli.errors import UsageError
from pmrl_cli.methods import make_method
from pmrl_cli.methods.protocol import Method
from pmrl_cli.terms import make_term
from pmrl_cli.train.settings import AUTO_OBJECTIVES, FitSettings

__all__ = ["check_objective", "closed_form_stands_in", "make", "needs_of", "objectives_of"]


def objectives_of(settings: FitSettings) -> tuple[str, ...]:
    """Return the names of the objectives that a fit tries."""
    return AUTO_OBJECTIVES if settings.objective == "auto" else (settings.objective,)


def make(settings: FitSettings, objective: str) -> Method:
    """Build the method of a run, and check its settings."""
    # A closed form trains nothing; what stands in for it is never asked.
    return make_method(AUTO_OBJECTIVES[0] if objective in SOLVERS else objective, settings.objective_settings)


def needs_of(settings: FitSettings) -> frozenset[str]:
    """Return what the methods of a fit need: see ``Method.needs``."""
    return frozenset().union(*(make(settings, name).needs for name in objectives_of(settings)))


def closed_form_stands_in(settings: FitSettings) -> bool:
    """Return whether a closed form may be chosen instead of what the methods and terms of a fit train."""
    if settings.trained:
        return False
    methods = all(make(settings, name).closed_form_stands_in for name in objectives_of(settings))
    return methods and all(make_term(name).closed_form_stands_in for name in settings.terms)


def check_objective(settings: FitSettings, modalities: int | None = None) -> None:
    """Raise UsageError for an unknown method, setting or term, or one that refuses so many modalities."""
    with torch.random.fork_rng(devices=[]):
        terms = [make_term(name) for name in settings.terms]
        for name in objectives_of(settings):
            method = make(settings, name)
            if "labels" in method.needs and settings.target is None:
                raise UsageError(
                    what="objective needs labels",
                    found=f"{name} without a column of classes",
                    expected="--target COLUMN, of the side table --labels FILE",
                    next_step="Add them, or choose another --objective.",
                )
            lacking = [name] * (not method.closed_form_stands_in)
            lacking += [
                added for added, term in zip(settings.terms, terms, strict=True) if not term.closed_form_stands_in
            ]
            if settings.steps == 0 and lacking:
                raise UsageError(
                    what="no steps for an objective without a closed form",
                    found=f"--steps 0 with {lacking[0]}",
                    expected="1 or more",
                    next_step="Leave --steps out.",
                )
            if method.linear_components and settings.adapter == "kernel":
                raise UsageError(
                    what="objective cannot use kernel components",
                    found=f"--adapter kernel with {name}",
                    expected="components that can be turned back into features",
                    next_step="Leave --adapter out.",
                )
            method.terms()  # settings that only together are out of range
            if modalities is not None:
                method.check(modalities)
                for term in terms:
                    term.check(modalities)
