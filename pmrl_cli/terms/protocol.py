"""What a term is: one summand of what training minimises."""

from __future__ import annotations

from typing import ClassVar

from torch import nn

from pmrl_cli.batch import SINGLE, BatchGroup, Encoded, Inputs, Loss
from pmrl_cli.encoders.protocol import Encoder, Init

__all__ = ["Term"]


class Term(nn.Module):
    """A loss on a batch. What it learns (a temperature) is a parameter; it draws from torch's default generator.

    Where several processes share a batch, a term is given the whole of it in each of them. One whose work grows with
    the square of the batch may divide it: it sets ``local``, is given the instances of its own process, gathers
    others by ``group``, and returns its part: values and parts of all processes add up to those of the batch.
    """

    local: ClassVar[bool] = False
    """Whether ``forward`` takes the local instances and returns the local part of the loss."""

    on_device: ClassVar[bool] = False
    """Whether ``forward`` asks no tensor for its value and draws on the device alone, so that a GPU can run it
    without the host."""

    closed_form_stands_in: ClassVar[bool] = True
    """Whether a closed-form start may be chosen instead of what the term trained: not where it is there to shape the
    space, or to add an output, rather than to rank."""

    def check(self, modalities: int) -> None:
        """Raise UsageError for a number of modalities that the term cannot take."""

    def extend(self, encoder: Encoder, init: Init) -> Encoder:
        """Return the encoder with what the term needs besides, such as another head; by default as it is.

        Called once, before training: here a term also makes what it needs to know the encoder or the classes for.
        """
        return encoder

    def forward(self, encoded: Encoded, inputs: Inputs, group: BatchGroup = SINGLE) -> Loss:
        """Return the loss of a batch.

        Args:
            encoded: what the encoder made of it.
            inputs: what it was made of.
            group: the processes that share the batch.
        """
        raise NotImplementedError
