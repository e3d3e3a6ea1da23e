"""What a method is: an encoder, what it minimises, and how a step changes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from pmrl_cli.batch import Encoded, Inputs
from pmrl_cli.encoders.protocol import Encoder, Init, Update
from pmrl_cli.terms.protocol import Term

__all__ = ["Method", "Update", "setting"]

Need = Literal["labels", "base_model", "unpaired"]


def setting(default: float | str, help: str, *, low: float | None = None, high: float | None = None) -> Any:  # noqa: ANN401 - a field of any type
    """Declare a field of a method's ``Settings``: what ``--set`` can change, checked and documented from here.

    Args:
        default: its value, and its type: whole numbers, numbers, or words (then typed ``Literal[...]``).
        help: what it is, in a few words.
        low: least value.
        high: greatest value.
    """
    return field(default=default, metadata={"help": help, "low": low, "high": high})


class Method:
    """A way to train an alignment. Subclasses are one file and one line of ``REGISTRY`` each.

    What is known about a method stands here as class attributes and nowhere else.

    Args:
        settings: an instance of ``Settings``.
    """

    @dataclass(frozen=True)
    class Settings:
        """What ``--set`` can change; every field is declared by ``setting``."""

    paper: ClassVar[str] = ""
    """Where it was published; empty for this project's own."""

    needs: ClassVar[frozenset[Need]] = frozenset()
    """What a fit must be given, of ``labels`` (``--target COLUMN``), ``base_model`` (``--continue-from MODEL``) and
    ``unpaired`` (instances with a single modality train too)."""

    closed_form_stands_in: ClassVar[bool] = True
    """Whether a closed-form start, or a member of another kind, may be chosen instead of the trained model or beside
    it: not where the encoder makes something that a closed form cannot."""

    start_competes: ClassVar[bool] = False
    """Whether the encoder before any step may be what is kept, where no closed form stands in for it."""

    reads_sample: ClassVar[bool] = False
    """Whether the encoder's start is made of training instances (``Init.sample``), though it needs no labels."""

    linear_components: ClassVar[bool] = False
    """Whether it takes components that are linear in the (squashed) features alone: what it predicts of them can then
    be turned back into features."""

    sign_aware: ClassVar[bool] = True
    """Whether a modality that points the other way counts as the worst aligned, not as the best."""

    spectrum_temperature: ClassVar[str] = ""
    """The setting that is a fixed temperature of a softmax over singular values, if there is one."""

    contrast_temperature: ClassVar[str] = ""
    """The setting that is a temperature of a softmax over cosines, if there is one; it may be learned."""

    def __init__(self, settings: Any) -> None:  # noqa: ANN401 - each subclass has its own
        self.settings = settings

    def check(self, modalities: int) -> None:
        """Raise UsageError for a number of modalities that the method cannot take; asks the terms by default."""
        for _, term in self.terms():
            term.check(modalities)

    def encoder(self, init: Init) -> Encoder:
        """Return the encoder to train; by default one adapter for each modality, those of a model to go on from."""
        from pmrl_cli.encoders.continued import continued
        from pmrl_cli.encoders.residual import Residual

        if init.continuation is not None:
            return continued(init, init.continuation)
        return Residual(init.maps, init.names, hidden=init.hidden, dropout=init.dropout, network=init.network)

    def terms(self) -> Sequence[tuple[float, Term]]:
        """Return weights and terms of what is minimised; two that share a parameter both hold it."""
        raise NotImplementedError

    def update(self, encoder: Encoder) -> Update | None:
        """Return what follows AdamW in a step, None for nothing; by default what the encoder asks for."""
        return encoder.update()

    def criterion(self, encoder: Encoder, encoded: Encoded, inputs: Inputs) -> float | None:
        """Return how good the validation instances are, the larger the better: it chooses when to stop.

        None, the default, leaves that to their retrieval.

        Args:
            encoder: in evaluation mode.
            encoded: what it makes of them.
            inputs: of theirs, with labels where the method needs them.
        """
        return None

    def finish(self, encoder: Encoder, inputs: Iterator[Inputs]) -> None:
        """Complete the encoder once it is trained, before it is stored; by default there is nothing to do.

        Args:
            encoder: in evaluation mode, with the weights that are kept.
            inputs: the local training instances, batch by batch.
        """
