"""Rows of the training step and of the gathering of its batches.

The step is the training loop's own: a batch from its loader, encoder, terms, gradient norm, AdamW, and what it
found read off. Its floor is the matrix products it cannot do without, alone, in the shapes they have: forward and
gradient of the weights for every layer, gradient of the inputs where one is hidden, and those of the contrasts. On a
GPU both multiply as a fit does there (layers in bfloat16, the rest in TF32), and some steps are taken at a time,
whose numbers are read off at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import count

import torch
from rows import Call, Row, Run, in_turn, row_of
from torch import Tensor
from torch.nn import functional

from pmrl_cli.batch import SINGLE, BatchGroup, Encoded, Inputs, Loss
from pmrl_cli.encoders.residual import Residual
from pmrl_cli.methods import make_method
from pmrl_cli.terms.protocol import Term
from pmrl_cli.terms.weighted import WeightedTerms
from pmrl_cli.train.devices import allow_tf32
from pmrl_cli.train.loader import Batch, BatchLoader, BatchSampler, TrainingData
from pmrl_cli.train.step import Step, StepOptions

DIMS = (512, 768, 1024)
DIM = 256
CONTRASTS = {"pmrl": 4 * 3, "pmrl-paper": 2}
"""Products of B x B by d that an objective takes of three modalities: three for each of three pairs and for two
subsets, or two where leading directions meet themselves (the matrix is symmetric)."""


SMALL = ((2, 64), (4, 64), (6, 64), (6, 256))
"""Modalities and instances of the batches that small sets train with."""

SMALL_DIM = 128
"""Columns and dimensions of those."""

AT_A_TIME = {"cpu": 1, "cuda": 32}
"""Steps that a call takes."""


class SvdPaper(Term):
    """The published objective as its authors wrote it, but for a reduced SVD: what ``pmrl-paper`` replaces."""

    def forward(self, encoded: Encoded, _inputs: Inputs, _group: BatchGroup = SINGLE) -> Loss:
        """Return the loss of a batch of complete instances."""
        u, singular_values, _ = torch.linalg.svd(encoded.vectors.mT, full_matrices=False)  # noqa: TID251 - the reference
        matched = torch.arange(len(u), device=u.device)
        spectrum_part = functional.cross_entropy(singular_values / 0.05, torch.zeros_like(matched))
        instance_part = functional.cross_entropy(u[..., 0] @ u[..., 0].mT / 0.1, matched)
        return Loss(spectrum_part + instance_part, {})


def training_step(
    scores: Sequence[Tensor], terms: WeightedTerms, *, dim: int, batch: int, hidden: int = 0, device: str = "cpu"
) -> Call:
    """Return one step of training on a batch drawn from the scores, as the loop takes it."""
    torch.manual_seed(0)
    starts = [torch.randn(one.shape[1], dim) / one.shape[1] ** 0.5 for one in scores]
    names = [str(m) for m in range(len(starts))]
    encoder = Residual(starts, names, hidden=hidden, dropout=0.0).to(device).train()
    take = Step(encoder, terms.to(device), StepOptions(1e-3, bf16=device == "cuda"))
    numbers, drawn = count(1), batches_of(scores, batch, device)

    def step() -> None:
        with allow_tf32(torch.device(device), "auto"):
            unread = [take(next(numbers), next(drawn)) for _ in range(AT_A_TIME[device])]
        assert all(math.isfinite(totals.read()[1]) for totals in unread)

    return step


def batches_of(scores: Sequence[Tensor], batch: int, device: str) -> Iterator[Batch]:
    """Return batches of complete instances without end, as a fit draws them."""
    instances = len(scores[0])
    present = torch.ones(instances, len(scores), dtype=torch.bool)
    everyone, alone = torch.arange(instances), torch.zeros(instances, dtype=torch.int64)
    data = TrainingData(Inputs(scores, present), everyone, alone)
    return BatchLoader(data, BatchSampler(instances, batch, 0), torch.device(device)).after(0)


def products(dims: Sequence[int], *, dim: int, batch: int, hidden: int, contrasts: int, device: str = "cpu") -> Call:
    """Return a call that does a step's matrix products and nothing else, into memory that is there."""
    layers: list[tuple[int, int, int]] = []
    for width in dims:
        layers += [(batch, width, dim), (width, batch, dim)]  # forward, and the weights' gradient
        if hidden:
            layers += [(batch, width, hidden), (width, batch, hidden)]
            layers += [(batch, hidden, dim), (hidden, batch, dim), (batch, dim, hidden)]
    rounded = torch.bfloat16 if device == "cuda" else torch.float32
    kept: dict[tuple[object, ...], Tensor] = {}

    def held(*key: object) -> Tensor:
        rows, columns, dtype, *_ = key
        return kept.setdefault(key, torch.randn(rows, columns, device=device).to(dtype))  # type: ignore[call-overload]

    calls = [(held(a, b, rounded), held(b, c, rounded), held(a, c, rounded, "out")) for a, b, c in layers]
    for number in range(contrasts):
        first, second = held(batch, dim, torch.float32, "first"), held(batch, dim, torch.float32, "second")
        terms = held(batch, batch, torch.float32, number // 3)
        calls.append(
            [
                (first, second.mT, terms),
                (terms, second, held(batch, dim, torch.float32, "out")),
                (terms.mT, first, held(batch, dim, torch.float32, "out")),
            ][number % 3]
        )

    def multiply() -> None:
        with allow_tf32(torch.device(device), "auto"):
            for _ in range(AT_A_TIME[device]):
                for a, b, out in calls:
                    torch.mm(a, b, out=out)

    return multiply


def small_rows(run: Run) -> Iterator[Row]:
    """Yield a row for each number of modalities and batch size of small sets."""
    for modalities, batch in SMALL:
        widths = (SMALL_DIM,) * modalities
        scores = [torch.randn(4 * batch, width) for width in widths]
        settings = {"dim": SMALL_DIM, "batch": batch, "hidden": DIM, "device": run.device}
        contrasts = 3 * (modalities * (modalities - 1) // 2 + 1)
        calls = {
            "ours": training_step(scores, WeightedTerms(make_method("pmrl", {}).terms()), **settings),
            "floor": products(widths, contrasts=contrasts, **settings),
        }
        found = in_turn(calls, repeats=run.repeats, timer=run.timer)
        each = {key: seconds / AT_A_TIME[run.device] for key, seconds in found.items()}
        yield row_of(f"pmrl, mlp, K {modalities}, B {batch}, d {SMALL_DIM}", each)


def step_rows(run: Run) -> Iterator[Row]:
    """Yield a row for each batch size, adapter and objective."""
    yield from small_rows(run)
    for batch in (256,) if run.quick else (1024, 8192):
        scores = [torch.randn(4 * batch, width) for width in DIMS]
        for adapter, hidden in (("linear", 0), ("mlp", DIM)):
            for name, contrasts in CONTRASTS.items():
                settings = {"dim": DIM, "batch": batch, "hidden": hidden, "device": run.device}
                calls = {"ours": training_step(scores, WeightedTerms(make_method(name, {}).terms()), **settings)}
                if name == "pmrl-paper" and run.device == "cpu":
                    calls["reduced SVD"] = training_step(scores, WeightedTerms([(1.0, SvdPaper())]), **settings)
                calls["floor"] = products(DIMS, contrasts=contrasts, **settings)
                repeats = run.repeats if batch < 4096 else 3
                found = in_turn(calls, repeats=repeats, timer=run.timer)
                each = {key: seconds / AT_A_TIME[run.device] for key, seconds in found.items()}
                yield row_of(f"{name}, {adapter}, B {batch}", each)


def gathering_rows(run: Run) -> Iterator[Row]:
    """Yield a row for each batch size: random rows of all modalities, against a copy of as many bytes."""
    instances = 20_000 if run.quick else 100_000
    scores = [torch.randn(instances, width) for width in DIMS]
    for batch in (1024, 8192):
        order = torch.randperm(instances)[:batch]
        blocks = [one[:batch] for one in scores]
        kept = [torch.empty_like(block) for block in blocks]
        calls: dict[str, Call] = {
            "ours": partial(next, batches_of(scores, batch, "cpu")),
            "x[rows]": lambda order=order: [one[order] for one in scores],
            "floor": partial(torch._foreach_copy_, kept, blocks),
        }
        widths = " + ".join(map(str, DIMS))
        name = f"{batch} of {instances:,} x ({widths})"
        yield row_of(name, in_turn(calls, repeats=run.repeats, timer=run.timer))
