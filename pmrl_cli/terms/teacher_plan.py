"""A linear teacher's transport plan, kept while training: what SOTAlign asks of rows whose partners are not known.

Source: Roschmann et al., "SOTAlign: Semi-Supervised Alignment of Unimodal Vision and Language Models via Optimal
    Transport", 2026 (arXiv 2602.23353), and its public code (ExplainableML/SOTAlign, ``klot.py``), whose
    regularisations and rounds these are.
Departs: any number of modalities, the mean over pairs; the teacher is the closed form that the fit starts from; the
    instances are the first 256 of the batch, whose pairing the term does not use (there up to 32,768, unpaired ones
    as well: what these give is in docs/quality.md, "Few pairs").
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from pmrl_cli.batch import SINGLE, BatchGroup, Encoded, Inputs, Loss
from pmrl_cli.encoders.protocol import Encoder, Init
from pmrl_cli.terms.protocol import Term

__all__ = ["TeacherPlan", "log_plan", "plan_divergence"]

LEARNED, TEACHER = 0.05, 0.005
"""Entropic regularisation of the two plans."""

ROUNDS = 100
"""Of Sinkhorn's iteration."""

_INSTANCES = 256
"""Of a batch, which is in random order: the two plans of 256 take .4 CPU s a step, those of 1,024 8.7."""


def log_plan(affinity: Tensor, regularisation: float, rounds: int = ROUNDS) -> Tensor:
    """Return the log of the entropic transport plan between two uniform distributions.

    The plan P maximises sum P A + regularisation * entropy(P), rows summing to 1 / a and columns to 1 / b: Sinkhorn's
    iteration in the log domain, then half a step towards both marginals, so that neither is met alone.

    Args:
        affinity: (a, b), no row or column of them empty.
        regularisation: > 0.
        rounds: of the iteration.

    Returns: (a, b).
    """
    scaled = affinity / regularisation
    row, column = -math.log(affinity.shape[0]), -math.log(affinity.shape[1])
    u, v = scaled.new_zeros(affinity.shape[0]), scaled.new_zeros(affinity.shape[1])
    for _ in range(rounds):
        u = row - (scaled + v).logsumexp(1)
        v = column - (scaled + u[:, None]).logsumexp(0)
    further_u, further_v = row - (scaled + v).logsumexp(1), column - (scaled + u[:, None]).logsumexp(0)
    return scaled + ((u + further_u) / 2)[:, None] + (v + further_v) / 2


class _Divergence(torch.autograd.Function):
    """KL between two plans, with the gradient (P - P*) / regularisation of its Theorem 5.1."""

    @staticmethod
    def forward(ctx: Any, affinity: Tensor, teacher: Tensor) -> Tensor:  # noqa: ANN401 - of torch
        found, wanted = log_plan(affinity, LEARNED), log_plan(teacher, TEACHER)
        ctx.save_for_backward((found.exp() - wanted.exp()) / LEARNED)
        return (wanted.exp() * (wanted - found)).sum()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:  # noqa: ANN401 - of torch
        (gradient,) = ctx.saved_tensors
        return gradients[0] * gradient, None


def plan_divergence(affinity: Tensor, teacher: Tensor) -> Tensor:
    """Return KL(P* || P) in nats: P the plan of the affinities at .05, P* that of the teacher's at .005.

    Its gradient is (P - P*) / .05, exact where both plans have their marginals.

    Args:
        affinity: (a, b) cosines.
        teacher: (a, b) cosines, constant.
    """
    value: Tensor = _Divergence.apply(affinity, teacher)  # type: ignore[no-untyped-call]
    return value


class TeacherPlan(Term):
    """Transport plans between modalities stay those of the closed form: see ``plan_divergence``.

    The mean over pairs of modalities that two instances of the batch or more have each.
    """

    closed_form_stands_in: ClassVar[bool] = False

    def extend(self, encoder: Encoder, init: Init) -> Encoder:
        """Keep the teacher: the maps that the encoder starts from."""
        for m, maps in enumerate(init.maps):
            self.register_buffer(f"map{m}", maps.clone(), persistent=False)
        return encoder

    def forward(self, encoded: Encoded, inputs: Inputs, group: BatchGroup = SINGLE) -> Loss:
        """Return the loss of a batch."""
        vectors, present = encoded.vectors[:_INSTANCES].float(), inputs.present[:_INSTANCES]
        teacher = [
            functional.normalize(components[:_INSTANCES].float() @ getattr(self, f"map{m}"), dim=1)
            for m, components in enumerate(inputs.components)
        ]
        found = []
        for a, b in combinations(range(present.shape[1]), 2):
            of_a, of_b = present[:, a], present[:, b]
            if min(int(of_a.sum()), int(of_b.sum())) > 1:
                affinity = vectors[of_a, a] @ vectors[of_b, b].mT
                found.append(plan_divergence(affinity, teacher[a][of_a] @ teacher[b][of_b].mT))
        return Loss(torch.stack(found).mean() if found else vectors[:0].sum(), {})
