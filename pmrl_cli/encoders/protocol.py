"""What an encoder is, and what it starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from pmrl_cli.batch import Encoded, Inputs

__all__ = ["Encoder", "Init", "State"]

State = tuple[dict[str, Any], dict[str, Tensor]]
"""An encoder as it is stored: JSON values, and tensors by name."""


@dataclass(frozen=True)
class Init:
    """What a method's encoder starts from.

    Args:
        maps: per modality (p_m, d) closed-form map from whitened components to outputs of mean squared length d.
        names: of the K modalities.
        hidden: width of residual MLPs; 0 asks for a linear encoder.
        dropout: fraction of components zeroed in training, in [0, 1).
        whiten: per modality (p_m,) factors that made the components of principal components; empty if unknown.
        spread: per modality (p_m,) standard deviation of each component over training instances; empty if unknown.
        classes: number of classes of the labels; 0 where the method needs none.
        base: encoder of the model to continue from, of the modalities ``base_names``; None starts afresh.
        base_names: modalities of the base, in its order.
    """

    maps: tuple[Tensor, ...]
    names: tuple[str, ...]
    hidden: int
    dropout: float
    whiten: tuple[Tensor, ...] = ()
    spread: tuple[Tensor, ...] = ()
    classes: int = 0
    base: Encoder | None = None
    base_names: tuple[str, ...] = ()


class Encoder(nn.Module):
    """A trained map from the components of all modalities of an instance to its vectors in the shared space.

    It is trained, saved in a checkpoint (``state_dict``), stored in the model folder (``state``) and read back
    (``from_state``). Every modality of the model has its place in ``Inputs``; one that is not given is absent from
    all instances. What it draws comes from torch's default generator.
    """

    on_device: ClassVar[bool] = True
    """Whether ``forward`` in training asks no tensor for its value, so that a GPU can run it without the host."""

    def forward(self, inputs: Inputs) -> Encoded:
        """Encode a batch."""
        raise NotImplementedError

    def codes(self) -> Tensor | None:
        """Return the (N, d) codebook of the space, if the encoder has one."""
        return None

    def state(self) -> State:
        """Return what ``from_state`` takes: settings, and tensors by name, merged where training kept them apart."""
        raise NotImplementedError

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Build an encoder for embedding: on the CPU, in evaluation mode.

        Raises: KeyError, RuntimeError, TypeError or ValueError if they are not what ``state`` returned.
        """
        raise NotImplementedError
