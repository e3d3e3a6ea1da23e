"""Encoders: trained maps from the components of an instance to its vectors. One file each, behind one protocol.

A new one is a file with a subclass of ``protocol.Encoder`` and a line in ``REGISTRY``; its kind is stored in the
model, so it never changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from pmrl_cli.encoders.protocol import Encoder, State

__all__ = ["REGISTRY", "encoder_from_state", "encoder_state"]

REGISTRY: dict[str, str] = {
    "discrete": "pmrl_cli.encoders.discrete:Discrete",
    "joint": "pmrl_cli.encoders.joint:Joint",
    "residual": "pmrl_cli.encoders.residual:Residual",
    "two-part": "pmrl_cli.encoders.two_part:TwoPart",
    "variational": "pmrl_cli.encoders.variational:Variational",
    "weighted": "pmrl_cli.encoders.weighted:Weighted",
}
"""Module and class of each kind."""


def _class_of(kind: str) -> type[Encoder]:
    module, _, name = REGISTRY[kind].partition(":")
    found: type[Encoder] = getattr(import_module(module), name)
    return found


def encoder_state(encoder: Encoder) -> State:
    """Return the state of an encoder with its kind.

    Raises: ValueError if its class is not in the registry.
    """
    place = f"{type(encoder).__module__}:{type(encoder).__qualname__}"
    kind = next((kind for kind, of_kind in REGISTRY.items() if of_kind == place), None)
    if kind is None:
        message = f"{place} is not in pmrl_cli.encoders.REGISTRY, so it could not be read again"
        raise ValueError(message)
    config, tensors = encoder.state()
    return {"kind": kind, **config}, tensors


def encoder_from_state(config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Encoder:
    """Build the encoder that ``encoder_state`` described.

    Raises: KeyError for an unknown kind; else as ``Encoder.from_state``.
    """
    return _class_of(config["kind"]).from_state(config, tensors)
