"""Methods: ways to train an alignment. One file each, behind one protocol and one registry.

To add one, write its file with a subclass of ``protocol.Method`` and add its line to ``REGISTRY``: it then trains,
resumes, saves, loads, exports, and is in the help and the documentation. An encoder of its own is a file and a line
of ``pmrl_cli.encoders``, a term that others can add a file and a line of ``pmrl_cli.terms``. Then add its test:
value and gradient against loops; ``tests/methods/test_every_method.py`` runs it besides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple, get_args, get_type_hints

from pmrl_cli.errors import UsageError, check_known

if TYPE_CHECKING:
    from pmrl_cli.methods.protocol import Method

__all__ = ["REGISTRY", "Entry", "is_sign_aware", "make_method", "method_class", "settings_of", "temperatures_of"]

Value = float | str


class Entry(NamedTuple):
    """One registry line: where the class lives, and what it is in a few words."""

    module: str
    cls: str
    summary: str


REGISTRY: dict[str, Entry] = {
    "pmrl": Entry(
        "pmrl_cli.methods.pmrl",
        "Pmrl",
        "distance of each instance from one shared direction, sign-aware and unsaturated, and contrast of leading "
        "directions",
    ),
    "pmrl-paper": Entry(
        "pmrl_cli.methods.pmrl_paper",
        "PmrlPaper",
        "as published: -log softmax of the leading singular value, and contrast of leading directions",
    ),
    "infonce": Entry("pmrl_cli.methods.infonce", "InfoNce", "InfoNCE over all pairs of modalities"),
    "anchor": Entry("pmrl_cli.methods.anchor", "Anchor", "InfoNCE of one modality with each other one"),
    "siglip": Entry("pmrl_cli.methods.siglip", "SigLip", "pairwise sigmoid loss over all pairs of modalities"),
    "ldc": Entry("pmrl_cli.methods.ldc", "Ldc", "InfoNCE of each modality with the leading direction of the others"),
    "gram": Entry("pmrl_cli.methods.gram", "Gram", "volume that the modalities span"),
    "triangle": Entry("pmrl_cli.methods.triangle", "Triangle", "area between three modalities (three only)"),
    "symile": Entry(
        "pmrl_cli.methods.symile", "Symile", "multilinear inner product of all modalities against shuffled ones"
    ),
    "umurl": Entry(
        "pmrl_cli.methods.umurl",
        "Umurl",
        "a joint encoder: one vector of any subset of modalities, which decodes into each",
    ),
    "decalign": Entry(
        "pmrl_cli.methods.decalign",
        "DecAlign",
        "a common vector of every modality, and beside it (`export --also unique`) what only it has",
    ),
    "mvae": Entry(
        "pmrl_cli.methods.mvae",
        "Mvae",
        "variational autoencoder of all modalities: predicts those an instance lacks (`export --impute`)",
    ),
    "vicreg": Entry("pmrl_cli.methods.vicreg", "VicReg", "invariance, variance and covariance; no negatives"),
    "arm": Entry(
        "pmrl_cli.methods.arm",
        "Arm",
        "InfoNCE and a label (`--target`): weakly informative modalities are strengthened",
    ),
    "drcl": Entry("pmrl_cli.methods.drcl", "Drcl", "labels and no pairs: modalities share class targets"),
    "fcid": Entry(
        "pmrl_cli.methods.fcid",
        "Fcid",
        "InfoNCE, and one codebook for all modalities: discrete codes that they share",
    ),
}


def method_class(name: str) -> type[Method]:
    """Return the class of a method.

    Raises: UsageError for an unknown one.
    """
    check_known("objective", name, sorted(REGISTRY), "Choose one with --objective.")
    entry = REGISTRY[name]
    cls: type[Method] = getattr(import_module(entry.module), entry.cls)
    return cls


def settings_of(name: str) -> dict[str, Value]:
    """Return the settings of a method with their defaults."""
    return asdict(method_class(name).Settings())


def make_method(name: str, settings: Mapping[str, Value]) -> Method:
    """Build the method ``name`` with ``settings`` over its defaults.

    Raises: UsageError for an unknown method or setting, or a value out of its range.
    """
    cls = method_class(name)
    known = {f.name: f for f in fields(cls.Settings)}
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise UsageError(
            what="unknown setting of the objective",
            found=", ".join(unknown),
            expected=f"one of {', '.join(sorted(known))}" if known else "none: it has no settings",
            next_step=f"Fix --set for --objective {name}.",
        )
    hints = get_type_hints(cls.Settings)
    values = {key: _checked(key, value, hints[key], known[key].metadata) for key, value in settings.items()}
    return cls(cls.Settings(**values))


def _checked(key: str, value: Value, hint: type, bounds: Mapping[str, float | None]) -> Value:
    """Return the value of a setting in its type, within its bounds."""
    words = get_args(hint)
    low, high = bounds["low"], bounds["high"]
    if words:
        good, expected = value in words, f"one of {', '.join(words)}"
    elif isinstance(value, str) or not math.isfinite(value):
        good, expected = False, "a number"
    elif hint is int and not float(value).is_integer():
        good, expected = False, "a whole number"
    else:
        value = number = hint(value)
        good = (low is None or number >= low) and (high is None or number <= high)
        expected = (
            f"{low:g} to {high:g}"
            if None not in (low, high)
            else f"at least {low}"
            if high is None
            else f"at most {high}"
        )
    if not good:
        raise UsageError(
            what="setting of the objective is out of range",
            found=f"{key}={value}",
            expected=expected,
            next_step=f"Fix --set {key}.",
        )
    return value


def is_sign_aware(name: str) -> bool:
    """Whether a method takes the sign-aware spectrum; of a closed form, which minimises none, the default."""
    return name not in REGISTRY or method_class(name).sign_aware


def temperatures_of(
    name: str, settings: Mapping[str, Value], learned: Mapping[str, float]
) -> dict[str, float | None]:
    """Return the temperatures of a trained member.

    Args:
        name: of its method; one that is not in the registry, such as a closed form, has none.
        settings: of the method.
        learned: what its terms learned; a learned temperature is kept as its logarithm, ``SETTING.log``.

    Returns: ``spectrum`` and ``instance``: of a softmax over singular values, and over cosines; None without one.
    """
    found: dict[str, float | None] = {"spectrum": None, "instance": None}
    if name not in REGISTRY:
        return found
    cls = method_class(name)
    for kind, key in (("spectrum", cls.spectrum_temperature), ("instance", cls.contrast_temperature)):
        if key:
            found[kind] = math.exp(learned[f"{key}.log"]) if f"{key}.log" in learned else float(settings[key])
    return found
