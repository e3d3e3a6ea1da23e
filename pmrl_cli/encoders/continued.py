"""Residual adapters that go on from a model: what it was trained on before is kept out of the way of new updates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from pmrl_cli.encoders.protocol import Continuation, Init
from pmrl_cli.encoders.residual import Adapter, Residual
from pmrl_cli.encoders.seen import Seen
from pmrl_cli.encoders.subspaces import blocks_of, complement, leading_basis, project_update

__all__ = ["Protection", "continued"]


class _Bases(nn.Module):
    """Orthonormal columns for one adapter, as ``subspaces.project_update`` takes them; moved with it, not stored."""

    def __init__(self, **bases: Tensor | None) -> None:
        super().__init__()
        for name, basis in bases.items():
            self.register_buffer(name, basis, persistent=False)

    def __getitem__(self, name: str) -> Tensor:
        return self.get_buffer(name)

    def get(self, name: str) -> Tensor | None:
        """Return a basis, None if there is none."""
        return dict(self.named_buffers()).get(name)


class Protection(nn.Module):
    """Projects the updates of the adapters that were there before, after each step: see ``encoders.subspaces``.

    Args:
        seen: what they have seen, in the order of the fit.
        continuation: what is asked for.
    """

    on_device = True

    def __init__(self, seen: Seen, continuation: Continuation) -> None:
        super().__init__()
        lost = 1 - continuation.energy
        shared = [m for m, place in enumerate(continuation.places) if place is not None and continuation.trains[m]]
        free: list[Tensor | None] = [None] * len(shared)
        if continuation.protect == "disjoint":
            everything = torch.stack(seen.outputs).sum(0)
            free = list(blocks_of(complement(leading_basis(everything, lost)), len(shared)))
        self.each = nn.ModuleDict(
            {
                str(m): _Bases(
                    inputs=_whitened(seen.inputs[m], continuation.lengths[m], lost),
                    hidden=leading_basis(seen.hidden[m], lost),
                    outputs=leading_basis(seen.partners(m), lost) if continuation.protect == "dual" else None,
                    free=block,
                )
                for m, block in zip(shared, free, strict=True)
            }
        )

    def ranks(self) -> dict[int, dict[str, int]]:
        """Return per modality how many directions of its inputs are protected (``inputs``), of how many (``of``).

        For ``disjoint`` also how many output directions may change all the same (``free``), for ``dual`` how many
        the partners span (``outputs``).
        """
        found = {}
        for m, bases in self.each.items():
            sizes = {name: basis.shape for name, basis in bases.named_buffers()}
            found[int(m)] = {"inputs": sizes["inputs"][1], "of": sizes["inputs"][0]}
            found[int(m)] |= {name: sizes[name][1] for name in ("outputs", "free") if name in sizes}
        return found

    def forward(self, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
        """Change the parameters of the encoder in place: an ``Update``."""
        with torch.no_grad():
            for m, bases in self.each.items():
                self._departure(f"each.{m}.departure", cast("_Bases", bases), before, after)
                if f"each.{m}.leave.weight" in after:
                    self._network(f"each.{m}", cast("_Bases", bases), before, after)

    @staticmethod
    def _departure(name: str, bases: _Bases, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
        kept = project_update(after[name] - before[name], bases["inputs"], bases.get("outputs"), bases.get("free"))
        after[name].copy_(before[name] + kept)

    @staticmethod
    def _network(at: str, bases: _Bases, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> None:
        # Only the last layer makes outputs: for the first the rule is one-sided, so that its activations stay. Every
        # earlier input had a 1 for the bias.
        weight, bias, leave = f"{at}.enter.weight", f"{at}.enter.bias", f"{at}.leave.weight"
        kept = project_update((after[weight] - before[weight]).mT, bases["inputs"])
        after[weight].copy_(before[weight] + kept.mT)
        after[bias].copy_(before[bias])
        update = (after[leave] - before[leave]).mT
        kept = project_update(update, bases["hidden"], bases.get("outputs"), bases.get("free"))
        after[leave].copy_(before[leave] + kept.mT)


def _whitened(moment: Tensor, lengths: Tensor, lost: float) -> Tensor:
    """Return the leading basis of components, by the energy they have on axes of unit length."""
    scales = torch.where(lengths > 0, 1 / lengths, 0)
    leading = leading_basis(scales[:, None] * moment * scales, lost)
    basis: Tensor = torch.linalg.qr((lengths[:, None] * leading).double()).Q
    return basis.to(moment.dtype)


def continued(init: Init, continuation: Continuation) -> Residual:
    """Return adapters that start as the base has them; those of new modalities start at their closed-form maps.

    Components that the base does not know come last and start without effect. Modalities that no instance of this
    fit has do not train.

    Raises: ValueError if the base kept no moments to protect.
    """
    base = continuation.base
    if not isinstance(base, Residual) or (base.seen is None and continuation.protect != "none"):
        message = "the base has no residual adapters, or kept no moments of what it was trained on"
        raise ValueError(message)
    encoder = Residual(init.maps, init.names, hidden=base.hidden, dropout=init.dropout)
    with torch.no_grad():
        for m, place in enumerate(continuation.places):
            adapter = cast("Adapter", encoder.each[m])
            if place is not None:
                _take_over(adapter, cast("Adapter", base.each[place]))
            if not continuation.trains[m]:
                adapter.requires_grad_(requires_grad=False)
    if base.seen is not None:
        encoder.seen = base.seen.arranged(continuation.places, [len(start) for start in init.maps])
        if continuation.protect != "none":
            encoder.protection = Protection(encoder.seen, continuation)
    return encoder


def _take_over(adapter: Adapter, old: Adapter) -> None:
    known = len(old.start)
    adapter.start.zero_()
    adapter.start[:known] = old.start + old.departure
    if old.enter is not None and old.leave is not None and adapter.enter is not None and adapter.leave is not None:
        adapter.enter.weight.zero_()
        adapter.enter.weight[:, :known] = old.enter.weight
        adapter.enter.bias.copy_(old.enter.bias)
        adapter.leave.weight.copy_(old.leave.weight)
