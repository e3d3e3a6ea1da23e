"""Objectives: what training minimises. One file each, behind one protocol and one registry.

To add one: write its file with a class that satisfies ``Objective``, add its line to ``REGISTRY``, add its test.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, Protocol

from pmrl_cli.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from pmrl_cli.objectives.peers import Peers

__all__ = ["REGISTRY", "Entry", "Loss", "Objective", "make_objective", "settings_of", "share_of_loss"]


class Loss(NamedTuple):
    """The value of an objective on one batch.

    Args:
        value: scalar to minimise, connected to the graph even when no instance contributes (then zero).
        parts: detached scalars worth watching, by name (``spectrum``, ``instance``, a temperature).
    """

    value: Tensor
    parts: dict[str, Tensor]


class Objective(Protocol):
    """A torch module from the embeddings of a batch to its loss.

    ``__init__`` takes only keyword settings with numeric defaults (they are what ``--set`` can change; those with a
    whole default take whole numbers). Trainable settings (a learned temperature) are ``nn.Parameter``; everything
    random draws from torch's default generator.

    Where several processes share a batch, an objective is given the whole of it in each of them. One whose work grows
    with the square of the batch may divide it: it sets ``shares = True`` on its class, takes the instances of its own
    process and, third, ``peers`` to gather others from, and returns its share: value and parts of all processes add
    up to those of the batch.

    One that asks no tensor for its value and draws on the device alone, so that a GPU can run it without the host,
    sets ``on_device = True``.
    """

    def __call__(self, embeddings: Tensor, present: Tensor) -> Loss:
        """Return the loss of a batch.

        Args:
            embeddings: (B, K, d) float32 or float64, unit length where present, anything finite elsewhere.
            present: (B, K) bool.

        Raises: UsageError for a K it cannot take, for an empty batch too: that is how a fit asks before it starts.
        """
        ...


class Entry(NamedTuple):
    """One registry line: where the class lives, and what it is in a few words."""

    module: str
    cls: str
    summary: str


REGISTRY: Mapping[str, Entry] = {
    "pmrl": Entry("pmrl_cli.objectives.pmrl", "Pmrl", "leading singular value and direction, sign-aware"),
    "pmrl-paper": Entry("pmrl_cli.objectives.pmrl_paper", "PmrlPaper", "as published (arXiv 2507.17343)"),
    "infonce": Entry("pmrl_cli.objectives.infonce", "InfoNce", "InfoNCE over all pairs of modalities"),
    "anchor": Entry("pmrl_cli.objectives.anchor", "Anchor", "InfoNCE of one modality with each other one"),
    "siglip": Entry("pmrl_cli.objectives.siglip", "SigLip", "pairwise sigmoid over all pairs of modalities"),
    "ldc": Entry("pmrl_cli.objectives.ldc", "Ldc", "each modality against the leading direction of the others"),
    "gram": Entry("pmrl_cli.objectives.gram", "Gram", "volume of the Gram determinant"),
    "triangle": Entry("pmrl_cli.objectives.triangle", "Triangle", "area of the triangle of three modalities"),
    "symile": Entry("pmrl_cli.objectives.symile", "Symile", "multilinear inner product of all modalities"),
    "vicreg": Entry("pmrl_cli.objectives.vicreg", "VicReg", "invariance, variance and covariance, no negatives"),
}


def share_of_loss(objective: nn.Module, embeddings: Tensor, present: Tensor, peers: Peers) -> Loss:
    """Return this process's share of the loss of a batch; over all processes, shares and gradients add up.

    Args:
        objective: any of the registry.
        embeddings: (b, K, d) of this process's instances.
        present: (b, K) bool.
        peers: the processes that share the batch.
    """
    if getattr(objective, "shares", False):
        share: Loss = objective(embeddings, present, peers)
        return share
    value, parts = objective(peers.gather(embeddings), peers.gather(present))
    return Loss(value / peers.size, {name: part / peers.size for name, part in parts.items()})


def _class_of(name: str) -> type[nn.Module]:
    if name not in REGISTRY:
        what = "unknown objective"
        raise UsageError(
            what,
            found=repr(name),
            expected=f"one of {', '.join(sorted(REGISTRY))}",
            next_step="Choose one with --objective.",
        )
    entry = REGISTRY[name]
    cls: type[nn.Module] = getattr(import_module(entry.module), entry.cls)
    return cls


def settings_of(name: str) -> dict[str, float]:
    """Return the settings of an objective with their defaults."""
    parameters = inspect.signature(_class_of(name).__init__).parameters
    return {key: p.default for key, p in parameters.items() if key != "self"}


def make_objective(name: str, settings: Mapping[str, float]) -> nn.Module:
    """Build the objective ``name`` with ``settings`` over its defaults.

    Raises: UsageError for an unknown objective or setting, or a fraction where a whole number is wanted.
    """
    cls = _class_of(name)
    known = settings_of(name)
    unknown = sorted(set(settings) - set(known))
    if unknown:
        what = "unknown setting of the objective"
        raise UsageError(
            what,
            found=", ".join(unknown),
            expected=f"one of {', '.join(sorted(known))}",
            next_step=f"Fix --set for --objective {name}.",
        )
    for key, value in settings.items():
        if isinstance(known[key], int) and not float(value).is_integer():
            what = "setting of the objective is not a whole number"
            raise UsageError(what, found=f"{key}={value:g}", expected="a whole number", next_step=f"Fix --set {key}.")
    return cls(**{key: type(known[key])(value) for key, value in settings.items()})
