"""Terms: the summands of what training minimises. One file each, behind one protocol.

A method names its own. One in ``REGISTRY`` can also be added to any method: ``fit --term NAME=WEIGHT``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

from pmrl_cli.errors import check_known

if TYPE_CHECKING:
    from pmrl_cli.terms.protocol import Term

__all__ = ["REGISTRY", "TermEntry", "make_term"]


class TermEntry(NamedTuple):
    """One registry line: where the class lives, and what it is in a few words."""

    module: str
    cls: str
    summary: str


REGISTRY: dict[str, TermEntry] = {
    "contrast": TermEntry("pmrl_cli.terms.contrast", "PairwiseContrast", "InfoNCE over all pairs of modalities"),
    "separation": TermEntry("pmrl_cli.terms.structure", "Separation", "a unique vector beside the shared one"),
    "bridge": TermEntry("pmrl_cli.terms.structure", "Bridge", "a modality between its vector and another's"),
    "geometry": TermEntry("pmrl_cli.terms.structure", "Geometry", "the same angles in every modality"),
    "neighbourhood": TermEntry("pmrl_cli.terms.structure", "Neighbourhood", "the neighbours of the features"),
    "plan": TermEntry("pmrl_cli.terms.teacher_plan", "TeacherPlan", "the transport plans of the closed form"),
    "spectrum": TermEntry("pmrl_cli.terms.spectrum", "SpectrumGap", "leading singular value, sign-aware"),
}


def make_term(name: str) -> Term:
    """Build a term at its defaults.

    Raises: UsageError for an unknown one.
    """
    check_known("term", name, sorted(REGISTRY))
    entry = REGISTRY[name]
    term: Term = getattr(import_module(entry.module), entry.cls)()
    return term
