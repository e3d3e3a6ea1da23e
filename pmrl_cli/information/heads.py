"""Heads that predict a label from any subset of the modalities, evaluated on instances they did not see."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from pmrl_cli.adamw import AdamW
from pmrl_cli.array_types import Array, Mask
from pmrl_cli.information.shapley import check_modalities, members

__all__ = ["FOLDS", "held_out_log_losses"]

FOLDS = 5
COMPONENTS = 64
"""Most principal components that a head sees of a modality."""

_HIDDEN = (0, 64)
_STEPS, _EVERY, _PATIENCE = 400, 20, 5
_BATCH = 256
_LEARNING_RATE, _WEIGHT_DECAY = 5e-3, 0.02
_VIEWS = 4
"""Subsets from which each of the instances is predicted that a head's training is stopped by."""

_MIXING_ROUNDS = 30


class _Head(nn.Module):
    """Logits from the components of the modalities of a subset: linear, or linear and a hidden layer.

    Args:
        inputs: components of all modalities, and one column a modality that says whether it is there.
        classes: of the label.
        hidden: units of the hidden layer; 0 leaves it out.
    """

    def __init__(self, inputs: int, classes: int, hidden: int) -> None:
        super().__init__()
        self.direct = nn.Linear(inputs, classes)
        nn.init.zeros_(self.direct.weight)
        self.enter = nn.Linear(inputs, hidden) if hidden else None
        self.leave = nn.Linear(hidden, classes, bias=False) if hidden else None

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.direct(inputs)
        if self.enter is not None and self.leave is not None:
            logits = logits + self.leave(functional.gelu(self.enter(inputs)))
        return logits


@dataclass(frozen=True)
class _Inputs:
    """Components (n, p) of all modalities side by side, where they come from and what is there."""

    components: Tensor
    widths: Tensor
    present: Tensor

    def of(self, rows: Tensor, subsets: Tensor) -> Tensor:
        """Return what a head sees of some rows, each with its own (len(rows), K) subset of the modalities."""
        there = subsets & self.present[rows]
        shown = self.components[rows] * there.repeat_interleave(self.widths, dim=1)
        return torch.cat([shown, there.to(shown.dtype)], dim=1)


def _components(vectors: npt.NDArray[np.floating], has: Mask, train: Mask) -> Tensor:
    """Return (n, p) leading principal components of standardised columns, scaled by one factor to mean square 1."""
    known = torch.from_numpy(np.where(has[:, None], vectors, 0).astype(np.float32))
    seen = known[torch.from_numpy(has & train)]
    mean, deviation = seen.mean(0), seen.std(0, correction=0)
    scale = torch.where(deviation > 0, 1 / deviation.clamp_min(1e-12), 0)
    seen = (seen - mean) * scale
    if seen.shape[1] <= len(seen):
        _, axes = torch.linalg.eigh(seen.T @ seen)
        axes = axes.flip(1)[:, :COMPONENTS]
    else:  # fewer rows than columns: the same axes from the smaller product
        values, sides = torch.linalg.eigh(seen @ seen.T)
        few = min(COMPONENTS, len(seen))
        values = values.flip(0)[:few]
        axes = seen.T @ sides.flip(1)[:, :few]
        axes = torch.where(values > 1e-6 * values[0], axes / values.clamp_min(1e-12).sqrt(), 0)
    found: Tensor = ((known - mean) * scale) @ axes
    size = found[torch.from_numpy(has & train)].square().mean().sqrt()
    return torch.where(torch.from_numpy(has)[:, None], found / size.clamp_min(1e-12), 0)


def _train(head: _Head, inputs: _Inputs, classes: Tensor, train: Tensor, watched: Tensor, seed: int) -> None:
    """Train a head on random subsets and keep its weights where other instances were predicted best."""
    generator = torch.Generator().manual_seed(seed)

    def subsets(count: int) -> Tensor:
        # As many of each size: single modalities and the whole are as often seen as all that lies between.
        modalities = inputs.present.shape[1]
        size = torch.randint(1, modalities + 1, (count, 1), generator=generator)
        return torch.rand(count, modalities, generator=generator).argsort(1) < size

    evaluated = watched.repeat(_VIEWS)
    shown, targets = inputs.of(evaluated, subsets(len(evaluated))), classes[evaluated]
    optimiser = AdamW([(list(head.parameters()), _WEIGHT_DECAY)], learning_rate=_LEARNING_RATE)
    best, kept, waited = float("inf"), {key: t.clone() for key, t in head.state_dict().items()}, 0
    for step in range(_STEPS):
        rows = train[torch.randint(len(train), (min(_BATCH, len(train)),), generator=generator)]
        loss = functional.cross_entropy(head(inputs.of(rows, subsets(len(rows)))), classes[rows])
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if (step + 1) % _EVERY == 0:
            with torch.no_grad():
                value = float(functional.cross_entropy(head(shown), targets))
            waited += 1
            if value < best:
                best, kept, waited = value, {key: t.clone() for key, t in head.state_dict().items()}, 0
            if waited >= _PATIENCE:
                break
    head.load_state_dict(kept)


def _mixture(likelihoods: Tensor) -> Tensor:
    """Return the (c,) weights of the mixture of c predictions that maximise its likelihood, from (n, c) likelihoods.

    Expectation maximisation from equal weights.
    """
    weights = torch.full((likelihoods.shape[1],), 1 / likelihoods.shape[1], dtype=likelihoods.dtype)
    for _ in range(_MIXING_ROUNDS if len(likelihoods) else 0):
        shares = likelihoods * weights
        weights = (shares / shares.sum(1, keepdim=True)).mean(0)
    return weights


def _likelihoods(heads: Sequence[_Head], inputs: _Inputs, classes: Tensor, rows: Tensor) -> Tensor:
    """Return (n, heads, 2^K) probability of the true class from every subset."""
    subsets = torch.from_numpy(members(inputs.present.shape[1]))
    found = torch.zeros(len(rows), len(heads), len(subsets), dtype=torch.float64)
    with torch.no_grad():
        for s, subset in enumerate(subsets):
            shown = inputs.of(rows, subset.expand(len(rows), -1))
            for h, head in enumerate(heads):
                chances = head(shown).double().softmax(1)
                found[:, h, s] = chances[torch.arange(len(rows)), classes[rows]]
    return found


def _evaluate(
    inputs: _Inputs, classes: Tensor, fitted: Tensor, mixed: Tensor, evaluated: Tensor, count: int, seed: int
) -> Tensor:
    """Return (n, 2^K) log losses of the rows ``evaluated``, from heads of ``fitted`` and mixtures of ``mixed``."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        width = inputs.components.shape[1] + inputs.present.shape[1]
        heads = [_Head(width, count, hidden) for hidden in _HIDDEN]
    for head in heads:
        _train(head, inputs, classes, fitted, mixed, seed)
    counts = torch.bincount(classes[torch.cat([fitted, mixed])], minlength=count).double() + 0.5
    prior = counts / counts.sum()
    of_mixed = _likelihoods(heads, inputs, classes, mixed)
    of_evaluated = _likelihoods(heads, inputs, classes, evaluated)
    prior_mixed, prior_evaluated = prior[classes[mixed]], prior[classes[evaluated]]
    losses = torch.zeros(len(evaluated), of_evaluated.shape[2], dtype=torch.float64)
    losses[:, 0] = -prior_evaluated.log()
    modalities = inputs.present.shape[1]
    inside = torch.from_numpy(members(modalities))
    for subset in range(1, len(inside)):
        smaller = [part for part in range(1, subset + 1) if part & subset == part]
        has = inputs.present[mixed][:, inside[subset]].all(1)
        stacked = [
            torch.cat([p[:, None], of[:, :, smaller].flatten(1)], dim=1)
            for p, of in ((prior_mixed, of_mixed), (prior_evaluated, of_evaluated))
        ]
        weights = _mixture(stacked[0][has])
        losses[:, subset] = -(stacked[1] @ weights).log()
    return losses


def held_out_log_losses(
    vectors: Sequence[npt.NDArray[np.floating]],
    present: Mask,
    classes: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64],
    *,
    seed: int = 0,
) -> tuple[npt.NDArray[np.int64], Array]:
    """Return the log loss of the label from every subset of the modalities, on instances that the heads did not see.

    The groups are split into ``FOLDS`` folds. For each, two heads, one linear and one with a hidden layer (so that
    what only two modalities together say is heard), are trained on random subsets of the modalities of the other
    folds, with a fifth of those groups kept out to stop by. On that fifth the prediction from a subset is mixed from
    what the heads say from it and from its own subsets, and from the frequencies of the classes: a modality that says
    nothing then adds nothing, where a head alone would lose by it what it overfits. Training uses all instances,
    those that lack modalities too; evaluated are those that have all.

    Args:
        vectors: per modality (n, d_m), anything where absent.
        present: (n, K) bool, K of ``MOST_MODALITIES`` or fewer.
        classes: (n,) class of each instance, 0 to C - 1; every class should be in every fold.
        groups: (n,) no group is on both sides.
        seed: of the folds, the weights and the subsets.

    Returns: (r,) ascending rows that have all modalities, and (r, 2^K) log losses in nats, by subset (see
        ``shapley``); that of the empty subset is from the frequencies alone.

    Raises: UsageError for too many modalities.

    Source: the variational bound of Barber, Agakov, "The IM Algorithm", NIPS 2003, cross-fitted; the mixture is
        Wolpert's stacking (Neural Networks 5, 1992) by likelihood.
    """
    check_modalities(present.shape[1])
    _, codes = np.unique(groups, return_inverse=True)
    order = np.random.default_rng(seed).permutation(int(codes.max(initial=0)) + 1)
    fold_of = order[codes]
    complete = present.all(axis=1)
    losses = np.zeros((len(classes), 2 ** present.shape[1]))
    targets = torch.from_numpy(classes)
    count = int(classes.max(initial=0)) + 1
    there = torch.from_numpy(present)
    for fold in range(FOLDS):
        out = fold_of % FOLDS == fold
        stop = ~out & (fold_of // FOLDS % FOLDS == 0)
        fitted = ~out & ~stop & present.any(axis=1)
        parts = [_components(v, has, ~out) for v, has in zip(vectors, present.T, strict=True)]
        inputs = _Inputs(torch.cat(parts, dim=1), torch.tensor([p.shape[1] for p in parts]), there)
        train, mix, tested = (torch.from_numpy(np.flatnonzero(part)) for part in (fitted, stop, out & complete))
        losses[out & complete] = _evaluate(inputs, targets, train, mix, tested, count, seed + fold).numpy()
    kept = np.flatnonzero(complete)
    return kept, losses[kept]
