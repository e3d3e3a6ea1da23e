"""Rows of the training step and of the gathering of its batches.

The step is the training loop's: its batch taken from the bank, adapters, objective, gradient norm, fused AdamW, and
the loss read off. Its floor is the matrix products it cannot do without, alone, in the shapes they have: forward and
gradient of the weights for every layer, gradient of the inputs where one is hidden, three products for each contrast.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial

import torch
from rows import Call, Row, Run, in_turn, row_of
from torch import Tensor, nn
from torch.nn import functional

from pmrl_cli.adapters import Adapters
from pmrl_cli.objectives import Loss, make_objective

DIMS = (512, 768, 1024)
DIM = 256
CONTRASTS = {"pmrl": 4, "pmrl-paper": 1}
"""Products of B x d by d x B that an objective takes of three modalities: three pairs and two subsets, or one."""


class SvdPaper(nn.Module):
    """The published objective as its authors wrote it, but for a reduced SVD: what ``pmrl-paper`` replaces."""

    def forward(self, embeddings: Tensor, _present: Tensor) -> Loss:
        """Return the loss of a batch of complete instances."""
        u, singular_values, _ = torch.linalg.svd(embeddings.mT, full_matrices=False)  # noqa: TID251 - the reference
        matched = torch.arange(len(u), device=u.device)
        spectrum_part = functional.cross_entropy(singular_values / 0.05, torch.zeros_like(matched))
        instance_part = functional.cross_entropy(u[..., 0] @ u[..., 0].mT / 0.1, matched)
        return Loss(spectrum_part + instance_part, {})


def training_step(
    scores: Sequence[Tensor], objective: nn.Module, *, dim: int, batch: int, hidden: int = 0, device: str = "cpu"
) -> Call:
    """Return one step of training on a batch drawn from the scores, as the loop takes it."""
    torch.manual_seed(0)
    starts = [torch.randn(one.shape[1], dim) / one.shape[1] ** 0.5 for one in scores]
    adapters = Adapters(starts, hidden=hidden, dropout=0.0).to(device).train()
    objective = objective.to(device)
    parameters = [*adapters.parameters(), *objective.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=1e-3, fused=True)
    present = torch.ones(len(scores[0]), len(scores), dtype=torch.bool)

    def step() -> None:
        rows = torch.randint(len(present), (batch,))
        batch_scores = [taken(one, rows, device) for one in scores]
        loss: Loss = objective(adapters(batch_scores), present[rows].to(device))
        optimiser.zero_grad(set_to_none=True)
        loss.value.backward()
        value = float(loss.value.detach())
        norm = float(nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None]))
        assert math.isfinite(value + norm)
        optimiser.step()

    return step


def products(dims: Sequence[int], *, dim: int, batch: int, hidden: int, contrasts: int, device: str = "cpu") -> Call:
    """Return a call that does a step's matrix products and nothing else."""
    shapes: list[tuple[int, int, int]] = []
    for width in dims:
        shapes += [(batch, width, dim), (width, batch, dim)]  # forward, and the weights' gradient
        if hidden:
            shapes += [(batch, width, hidden), (width, batch, hidden)]
            shapes += [(batch, hidden, dim), (hidden, batch, dim), (batch, dim, hidden)]
    shapes += contrasts * [(batch, dim, batch), (batch, batch, dim), (batch, batch, dim)]
    factors = {(m, n): torch.randn(m, n, device=device) for a, b, c in shapes for m, n in ((a, b), (b, c))}

    def multiply() -> None:
        for m, n, p in shapes:
            torch.mm(factors[m, n], factors[n, p])

    return multiply


def step_rows(run: Run) -> Iterator[Row]:
    """Yield a row for each batch size, adapter and objective."""
    for batch in (256,) if run.quick else (1024, 8192):
        scores = [torch.randn(4 * batch, width) for width in DIMS]
        for adapter, hidden in (("linear", 0), ("mlp", DIM)):
            for name, contrasts in CONTRASTS.items():
                settings = {"dim": DIM, "batch": batch, "hidden": hidden, "device": run.device}
                calls = {"ours": training_step(scores, make_objective(name, {}), **settings)}
                if name == "pmrl-paper":
                    calls["reduced SVD"] = training_step(scores, SvdPaper(), **settings)
                calls["floor"] = products(DIMS, contrasts=contrasts, **settings)
                repeats = run.repeats if batch < 4096 else 3
                yield row_of(f"{name}, {adapter}, B {batch}", in_turn(calls, repeats=repeats, timer=run.timer))


def gathering_rows(run: Run) -> Iterator[Row]:
    """Yield a row for each batch size: one modality's random rows, against a copy of as many bytes."""
    count, width = 20_000 if run.quick else 200_000, max(DIMS)
    scores = torch.randn(count, width)
    for batch in (1024, 8192):
        order = torch.randperm(count)[:batch]
        block, kept = torch.randn(batch, width), torch.empty(batch, width)
        calls: dict[str, Call] = {
            "ours": partial(taken, scores, order),
            "into kept memory": partial(torch.index_select, scores, 0, order, out=kept),
            "floor": partial(kept.copy_, block),
        }
        yield row_of(f"{batch} of {count:,} x {width}", in_turn(calls, repeats=run.repeats, timer=run.timer))


def taken(scores: Tensor, rows: Tensor, device: str = "cpu") -> Tensor:
    """Return rows of one modality as the training loop takes them."""
    return scores[rows].to(device, non_blocking=True)
