"""Reversible consistency of one modality with the classes: no pairs, only labels (DRCL).

Every modality is drawn to the same C targets, the rows of the inverse of a classifier W that all share, so that
modalities of different instances end in one space. W comes first: see ``learn_prior``.

Source: Pu et al., "Deep Reversible Consistency Learning for Cross-modal Retrieval", IEEE Transactions on Multimedia
    2025, and its public code.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from pmrl_cli.adamw import AdamW
from pmrl_cli.batch import SINGLE, BatchGroup, Encoded, Inputs, Loss
from pmrl_cli.encoders.protocol import Encoder, Init
from pmrl_cli.encoders.residual import Residual
from pmrl_cli.terms.protocol import Term

__all__ = [
    "INVERSES",
    "RecastConsistency",
    "generalised_cross_entropy",
    "inverse_prior",
    "learn_prior",
    "random_prior",
    "recast_consistency",
]

INVERSES = ("pinv", "transpose", "polar")

_FLOOR = 1e-12


def generalised_cross_entropy(logits: Tensor, targets: Tensor, q: Tensor | float) -> Tensor:
    """Return (1 - s^q) / q of each instance, s the probability of its class; -log s at q = 0.

    Between cross-entropy (q = 0), which learns fast, and the mean absolute error (q = 1), which bears wrong labels.

    Args:
        logits: (B, C).
        targets: (B, C) non-negative, rows of sum 1: mixed labels give s = sum_c y_c p_c.
        q: in [0, 1].

    Returns: (B,), 0 or more.

    Source: Zhang, Sabuncu, "Generalized Cross Entropy Loss for Training Deep Neural Networks with Noisy Labels",
        NeurIPS 2018; departs: its limit stands for q = 0, where the quotient is 0 / 0.
    """
    log_s = (logits.log_softmax(1) + targets.clamp_min(0).log().clamp_min(-1e4)).logsumexp(1)
    power = torch.as_tensor(q, dtype=log_s.dtype, device=log_s.device)
    # expm1 keeps the digits that 1 - s^q loses at small q.
    quotient = -torch.expm1(power * log_s) / power.clamp_min(_FLOOR)
    return torch.where(power > _FLOOR, quotient, -log_s)


def random_prior(dim: int, classes: int, generator: torch.Generator) -> Tensor:
    """Return (D, C) orthonormal columns, uniform over such matrices; of unit length only where C > D.

    Args:
        dim: D of the shared space.
        classes: C.
        generator: on the CPU.
    """
    gaussian = torch.randn(max(dim, classes), min(dim, classes), generator=generator, dtype=torch.float64)
    q, r = torch.linalg.qr(gaussian)
    q = q * r.diagonal().sign()
    prior: Tensor = q if classes <= dim else functional.normalize(q.mT, dim=0)
    return prior.float()


def inverse_prior(prior: Tensor, kind: str) -> Tensor:
    """Return the (C, D) targets of the classes.

    ``pinv`` is the published W+, with W+ W = I where the columns of W are independent. It turns the geometry of the
    classes over, as Gram(W+) = Gram(W)^-1: classes that W found alike become opposite targets. ``transpose`` keeps
    the geometry (the columns of W, at unit length), ``polar`` takes the nearest orthonormal matrix, which has none.

    Args:
        prior: (D, C) W.
        kind: one of ``INVERSES``.
    """
    if kind == "pinv":
        inverse: Tensor = torch.linalg.pinv(prior)
        return inverse
    if kind == "transpose":
        return functional.normalize(prior, dim=0).mT
    if kind == "polar":
        values, vectors = torch.linalg.eigh((prior.mT @ prior).double())
        inverse_root = torch.where(values > _FLOOR * values[-1], values.clamp_min(_FLOOR * values[-1]) ** -0.5, 0)
        polar: Tensor = ((vectors * inverse_root) @ vectors.mT).to(prior.dtype) @ prior.mT
        return polar
    raise ValueError(kind)


def recast_consistency(features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return how far features are from their recast representations: in their cosines, and themselves.

    With c(a, b) the cosines of all pairs, times 2: the first is mean((c(r, r) - c(f, f))^2) +
    mean((c(r, f) - c(r, f)')^2), the second the mean of |r - f|^2.

    Args:
        features: (n, D) f.
        targets: (n, D) r, the targets of their classes.

    Departs: the published mean squared difference is over entries too, and so 1 / D of the second.
    """
    unit_f, unit_r = functional.normalize(features, dim=1), functional.normalize(targets, dim=1)
    within = 2 * (unit_r @ unit_r.mT - unit_f @ unit_f.mT)
    across = 2 * unit_r @ unit_f.mT
    shape = within.square().mean() + (across - across.mT).square().mean()
    return shape, (features - targets).square().sum(1).mean()


class RecastConsistency(Term):
    """Features and what their labels recast into are drawn together, in each modality on its own.

    Of the n instances of a batch that have modality m and a label: with f unit vectors of m, y their classes one-hot,
    and pi a random permutation of them,

        f~ = normal(g f + (1 - g) f_pi),   y~ = g y + (1 - g) y_pi,   r = y~ W+
        loss_m = shape_weight J(r, f~) + distance_weight |r - f~|^2 + class_weight GCE_q(f~ W, y~)

    with J the differences of cosines (``recast_consistency``); the loss is the mean over modalities that have two
    such instances or more. q rises from 0 to 1 over ``ramp`` steps.

    Args:
        prior: what W is: ``random``, orthonormal columns, or ``learned`` from such (``learn_prior``).
        inverse: what W+ is, one of ``INVERSES``.
        shape_weight: alpha.
        distance_weight: beta, here of the squared distance.
        class_weight: eta.
        keep: g, in (0.5, 1].
        ramp: steps until q = 1; 0 begins there.

    Source: DRCL (see the top of this file); departs: mixed features are put back to unit length, the distance is
        summed over dimensions (its weight need not grow with D), and q starts at 0 as its limit, the cross-entropy.
    """

    step: Tensor
    prior: Tensor
    targets: Tensor

    def __init__(
        self,
        *,
        prior: str = "learned",
        inverse: str = "pinv",
        shape_weight: float = 0.1,
        distance_weight: float = 0.1,
        class_weight: float = 1.0,
        keep: float = 0.9,
        ramp: int = 200,
    ) -> None:
        super().__init__()
        self.weights = (shape_weight, distance_weight, class_weight)
        self.keep, self.ramp = keep, ramp
        self._prior, self._inverse = prior, inverse
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.use(torch.zeros(0, 0))

    def use(self, prior: Tensor) -> None:
        """Take (D, C) W as the prior; one without columns stands for none yet."""
        self.register_buffer("prior", prior)
        self.register_buffer("targets", inverse_prior(prior, self._inverse) if prior.shape[1] else prior.mT)

    def extend(self, encoder: Encoder, init: Init) -> Encoder:
        """Make the prior, for as many classes as there are, and begin at a regression on its targets.

        Without pairs no closed form of pairs says where to begin. The encoder is one with an adapter a modality.
        """
        prior = random_prior(init.maps[0].shape[1], init.classes, torch.default_generator)
        sample = init.sample
        if self._prior == "learned" and sample is not None and sample.labels is not None:
            prior, _ = learn_prior(sample.components, sample.present, sample.labels, prior)
        self.use(prior)
        if sample is None or sample.labels is None:
            return encoder
        maps = []
        for m, start in enumerate(init.maps):
            rows = sample.present[:, m] & (sample.labels >= 0)
            found = _regression(sample.components[m][rows], self.targets[sample.labels[rows]])
            maps.append(start if found is None else found)
        return Residual(maps, init.names, hidden=init.hidden, dropout=init.dropout)

    def forward(self, encoded: Encoded, inputs: Inputs, group: BatchGroup = SINGLE) -> Loss:
        """Return the loss of a batch."""
        assert inputs.labels is not None, "a method that needs labels"
        q = min(1.0, int(self.step) / self.ramp) if self.ramp else 1.0
        if self.training:
            self.step += 1
        classes = functional.one_hot(inputs.labels.clamp_min(0), self.prior.shape[1]).to(encoded.vectors.dtype)
        labelled = inputs.labels >= 0
        each = [
            self._of_modality(encoded.vectors[has, m], classes[has], q)
            for m, has in enumerate((inputs.present & labelled[:, None]).unbind(1))
            if int(has.sum()) > 1
        ]
        parts = torch.stack(each).mean(0) if each else encoded.vectors[:0].sum() * encoded.vectors.new_zeros(3)
        value = (parts * parts.new_tensor(self.weights)).sum()
        named = dict(zip(("shape", "distance", "class"), parts.detach().unbind(), strict=True))
        return Loss(value, named | {"q": value.new_tensor(q)})

    def _of_modality(self, features: Tensor, classes: Tensor, q: float) -> Tensor:
        other = torch.randperm(len(features), device=features.device)
        features = functional.normalize(self.keep * features + (1 - self.keep) * features[other], dim=1)
        classes = self.keep * classes + (1 - self.keep) * classes[other]
        prior, targets = self.prior.to(features.dtype), self.targets.to(features.dtype)
        shape, distance = recast_consistency(features, classes @ targets)
        of_class = generalised_cross_entropy(features @ prior, classes, q).mean()
        return torch.stack([shape, distance, of_class])


_RIDGE = 0.1
"""Of the regression that training begins at, relative to the mean variance of the components."""


def _regression(components: Tensor, targets: Tensor) -> Tensor | None:
    """Return the (p, d) ridge regression, scaled to outputs of mean squared length d; None where there is none."""
    rows, wanted = components.double(), targets.double()
    if len(rows) < 2:
        return None
    gram, cross = rows.mT @ rows / len(rows), rows.mT @ (wanted - wanted.mean(0)) / len(rows)
    regularised = gram + _RIDGE * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    solved = torch.linalg.solve(regularised, cross)
    power = ((solved.mT @ gram) * solved.mT).sum()
    if not bool(power > 0):
        return None
    found: Tensor = (solved * (targets.shape[1] / power).sqrt()).float()
    return found


_HELD = 3
"""One in so many instances evaluates a prior instead of learning it."""


def learn_prior(
    components: Sequence[Tensor], present: Tensor, labels: Tensor, prior: Tensor, *, steps: int = 200, ramp: int = 100
) -> tuple[Tensor, list[float]]:
    """Return the prior of the modality whose labels are learned best, and that quality of each modality.

    For every modality a small network and a copy of the prior are trained on GCE_q(f W, y), q rising from 0; the
    quality is the mean probability of the class on a third of the instances that did not train (chosen by their
    place). Draws from torch's default generator.

    Args:
        components: per modality (n, p_m).
        present: (n, K) bool.
        labels: (n,) int64, -1 where unknown.
        prior: (D, C) to start from.
        steps: of Adam on batches of up to 512.
        ramp: steps until q = 1.

    Source: DRCL, "selective prior learning"; departs: evaluated on instances that did not train (there on those that
        did), and the prior returned is the one that was evaluated, not what became of it later.
    """
    found: list[tuple[float, Tensor]] = []
    for m, of_modality in enumerate(components):
        rows = torch.nonzero(present[:, m] & (labels >= 0))[:, 0]
        if len(rows) < 2:
            found.append((0.0, prior))
            continue
        held_out = torch.arange(len(rows)) % _HELD == 0
        learned = nn.Parameter(prior.clone())
        network = nn.Sequential(nn.Linear(of_modality.shape[1], 256), nn.ReLU(), nn.Linear(256, len(prior)))
        optimiser = AdamW([([learned, *network.parameters()], 0.0)], learning_rate=1e-3, betas=(0.5, 0.999))

        def logits(some: Tensor, of: Tensor = of_modality, net: nn.Module = network, w: Tensor = learned) -> Tensor:
            return functional.normalize(net(of[some]), dim=1) @ w

        classes = functional.one_hot(labels.clamp_min(0), prior.shape[1]).to(prior.dtype)
        trains = rows[~held_out]
        for step in range(steps):
            some = trains[torch.randint(len(trains), (min(512, len(trains)),))]
            loss = generalised_cross_entropy(logits(some), classes[some], min(1.0, step / ramp)).mean()
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
        held = rows[held_out]
        with torch.no_grad():
            quality = (logits(held).softmax(1) * classes[held]).sum(1).mean()
        found.append((float(quality), learned.detach()))
    best = max(range(len(found)), key=lambda m: found[m][0])
    return found[best][1], [quality for quality, _ in found]
