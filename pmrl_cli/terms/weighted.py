"""The weighted sum of terms, of a batch that processes may share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

from torch import Tensor, nn

from pmrl_cli.batch import SINGLE, BatchGroup, Encoded, Inputs, Loss, whole_batch
from pmrl_cli.terms.protocol import Term

__all__ = ["WeightedTerms"]


class WeightedTerms(nn.Module):
    """What a method minimises: sum of weight times term.

    Args:
        own: weights and terms of the method, whose parts keep their names.
        added: further ones by name, whose parts are ``NAME`` (their value) and ``NAME.PART``.
    """

    def __init__(
        self, own: Iterable[tuple[float, Term]], added: Mapping[str, tuple[float, Term]] | None = None
    ) -> None:
        super().__init__()
        own, added = list(own), added or {}
        self.each = nn.ModuleList([*(term for _, term in own), *(term for _, term in added.values())])
        self._weights = [*(weight for weight, _ in own), *(weight for weight, _ in added.values())]
        self._names = [*([""] * len(own)), *added]

    @property
    def terms(self) -> list[Term]:
        """The terms in order."""
        return [cast("Term", term) for term in self.each]

    @property
    def on_device(self) -> bool:
        """Whether all terms run without the host."""
        return all(term.on_device for term in self.terms)

    @property
    def closed_form_stands_in(self) -> bool:
        """Whether a closed form may stand in for what all terms train."""
        return all(term.closed_form_stands_in for term in self.terms)

    def learned(self) -> dict[str, float]:
        """Return what the terms learned, by name: that of the term's own where only one has it."""
        scalars = [(name, float(p.detach())) for name, p in self.each.named_parameters() if p.numel() == 1]
        own = [name.partition(".")[2] for name, _ in scalars]
        return {
            short if own.count(short) == 1 else name: value for short, (name, value) in zip(own, scalars, strict=True)
        }

    def forward(self, encoded: Encoded, inputs: Inputs, group: BatchGroup = SINGLE) -> Loss:
        """Return this process's part of the loss; over all processes, parts and gradients add up.

        Args:
            encoded: of the local instances.
            inputs: of the local instances.
            group: the processes that share the batch.
        """
        whole = None
        value, parts = encoded.vectors[:0].sum(), dict[str, Tensor]()
        for name, weight, term in zip(self._names, self._weights, self.terms, strict=True):
            if term.local:
                of_term, of_parts = term(encoded, inputs, group)
            else:
                whole = whole or whole_batch(encoded, inputs, group)
                of_term, of_parts = term(*whole)
                of_term, of_parts = of_term / group.size, {key: part / group.size for key, part in of_parts.items()}
            value = value + weight * of_term
            if name:
                of_parts = {name: of_term.detach(), **{f"{name}.{key}": part for key, part in of_parts.items()}}
            parts |= of_parts
        return Loss(value, parts)
