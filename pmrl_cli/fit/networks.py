"""Networks of random weights among the candidates of a fit: one hidden layer a modality, trained from nothing."""

from __future__ import annotations

from dataclasses import replace

from pmrl_cli.closed_form.init import Initialization, from_nothing
from pmrl_cli.fit.result import ClosedForm
from pmrl_cli.train.run import RunPlan

__all__ = ["DROPOUT", "as_network", "network_form"]

DIM = 64
"""Outputs of a network; more if the space is to have more."""

DROPOUT = 0.3
"""Of hidden units; without it networks were worse on each simulated set (docs/quality.md)."""

RATE = 3.0
"""Times the learning rate of what starts at a closed form: 3e-3 by default."""


def network_form(form: ClosedForm, dim: int | None) -> ClosedForm:
    """Return the closed form whose components a network is trained on, with its outputs.

    Args:
        form: the closed form.
        dim: dimension of the space, where one is asked for.
    """
    return replace(form, config=replace(form.config, dim=max(DIM, dim or 0)), compared=0)


def as_network(plan: RunPlan, start: Initialization, dim: int) -> tuple[RunPlan, Initialization]:
    """Return plan and start of a run as those of a network of ``dim`` outputs."""
    return replace(plan, network=True, learning_rate=RATE), from_nothing(start, dim)
