"""What an encoder is, and what it starts from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

from torch import Tensor, nn

from pmrl_cli.batch import Encoded, Inputs
from pmrl_cli.encoders.rows import RowMap

__all__ = ["Continuation", "Encoder", "Init", "State", "Update"]

State = tuple[dict[str, Any], dict[str, Tensor]]
"""An encoder as it is stored: JSON values, and tensors by name."""


@dataclass(frozen=True)
class Continuation:
    """What a fit goes on from.

    Args:
        base: encoder of the model, of some of the modalities, in any order.
        places: per modality of the fit its place in the base; None for one that is new.
        trains: per modality whether an instance of this fit has it.
        lengths: per modality (p_m,) length of the axis of each component: energies are measured before whitening.
        protect: what of the earlier training stays as it is: ``input``, ``dual``, ``disjoint`` or ``none``.
        energy: fraction of the energy of earlier inputs (and outputs) whose directions are protected, in [0, 1].
    """

    base: Encoder
    places: tuple[int | None, ...]
    trains: tuple[bool, ...]
    lengths: tuple[Tensor, ...]
    protect: str
    energy: float


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
        sample: up to 4,096 training instances, with labels where the method needs them, the same in every process;
            None where it reads none.
        continuation: what the encoder goes on from, or None.
        network: whether adapters start as networks of random weights, see ``Adapter``.
    """

    maps: tuple[Tensor, ...]
    names: tuple[str, ...]
    hidden: int
    dropout: float
    whiten: tuple[Tensor, ...] = ()
    spread: tuple[Tensor, ...] = ()
    classes: int = 0
    sample: Inputs | None = None
    continuation: Continuation | None = None
    network: bool = False


class Update(Protocol):
    """What follows AdamW in a step: changes what the optimiser did, such as by projecting it."""

    on_device: bool
    """Whether it asks no tensor for its value, so that a GPU can run it without the host."""

    def __call__(self, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
        """Change the parameters of the encoder in place.

        Args:
            before: copies of the encoder's parameters by name, as they were before the optimiser's step.
            after: the parameters themselves. Equal to ``before`` where a step was not taken.
        """
        ...


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

    def row_maps(self) -> tuple[RowMap, ...] | None:
        """Return, by modality, what ``forward`` does in evaluation, for a few rows: torch takes longer to call.

        The weights are those of now. None, the default, where it is not written down in NumPy, or a vector depends on
        the other modalities of its instance.
        """
        return None

    def update(self) -> Update | None:
        """Return what is to follow the optimiser in a step; None, the default, for nothing."""
        return None

    def see(self, batches: Iterable[Inputs], total: Callable[[Tensor], Tensor]) -> None:
        """Take down, before the encoder is stored, what a later fit needs to go on from it; by default nothing.

        Args:
            batches: of the local instances that trained; the encoder is on the CPU, in evaluation mode.
            total: adds a float64 tensor up over the processes that hold them.
        """

    def state(self) -> State:
        """Return what ``from_state`` takes: settings, and tensors by name, merged where training kept them apart."""
        raise NotImplementedError

    @classmethod
    def from_state(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Self:
        """Build an encoder for embedding: on the CPU, in evaluation mode.

        Raises: KeyError, RuntimeError, TypeError or ValueError if they are not what ``state`` returned.
        """
        raise NotImplementedError
