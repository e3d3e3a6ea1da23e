"""What a fit is asked to do; together with the data it determines every byte of the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import inf
from typing import TYPE_CHECKING, ClassVar, Literal

from pmrl_cli.errors import UsageError
from pmrl_cli.flags import flag, parse_seconds
from pmrl_cli.methods import REGISTRY
from pmrl_cli.terms import REGISTRY as TERMS

if TYPE_CHECKING:
    from pmrl_cli.data.split import SplitRule

__all__ = ["AUTO_OBJECTIVES", "FitSettings", "parse_settings", "parse_terms"]

AUTO_OBJECTIVES = ("pmrl", "infonce")
"""What the objective ``auto`` tries."""

ADAPTERS = ("auto", "linear", "mlp", "kernel")
PROTECTIONS = ("input", "dual", "disjoint", "none")


def _pairs(name: str, texts: Sequence[str], example: str) -> dict[str, str]:
    values = dict[str, str]()
    for text in texts:
        key, _, value = text.partition("=")
        if not (key and value):
            raise UsageError(
                what=f"{name} is not NAME=VALUE",
                found=repr(text),
                expected=f"for example {example}",
                next_step=f"Fix that {name}.",
            )
        values[key] = value
    return values


def parse_settings(pairs: Sequence[str]) -> dict[str, float | str]:
    """Return ``KEY=VALUE`` pairs as a dict; what looks like a number is one.

    Raises: UsageError for anything else.
    """
    settings: dict[str, float | str] = {}
    for key, value in _pairs("--set", pairs, "temperature=0.1").items():
        try:
            settings[key] = float(value)
        except ValueError:
            settings[key] = value
    return settings


def parse_terms(pairs: Sequence[str]) -> dict[str, float]:
    """Return ``NAME=WEIGHT`` pairs as a dict.

    Raises: UsageError for anything else.
    """
    weights = dict[str, float]()
    for name, value in _pairs("--term", pairs, "spectrum=0.1").items():
        try:
            weights[name] = float(value)
        except ValueError:
            raise UsageError(
                what="weight of a term is not a number",
                found=f"{name}={value}",
                expected="for example spectrum=0.1",
                next_step="Fix that --term.",
            ) from None
    return weights


@dataclass(frozen=True)
class FitSettings:
    """Settings of a fit; None lets the data decide.

    Args:
        objective: name in the registry; ``auto`` tries several; ``gcca`` and ``mcca`` are closed forms.
        objective_settings: settings of that objective over its defaults.
        terms: weights of terms added to what it minimises, by name.
        adapter: ``linear``, ``mlp`` (linear plus a residual MLP), ``kernel`` (the same on nearness to training
            instances), or ``auto``: mlp and kernel both.
        dim: dimension of the shared space: its members' vectors together, along so many principal axes; None leaves
            them as validation chose them.
        steps: most optimiser steps; 0 stops at the closed-form start; None chooses by the number of instances.
        batch_size: instances a step; None chooses by their number.
        learning_rate: of AdamW.
        dropout: fraction of an adapter's input scores zeroed in training; None tries 0 and 0.5 where there are few
            instances and lets validation choose.
        fast: only solve closed forms, of linear and kernel components, at a default ridge.
        trained: choose among trained weights alone, even where a closed form ranks better.
        mixup: a of the Beta(a, a) by which training instances are mixed; 0 mixes none.
        continue_from: folder of a model whose members train on and whose space new modalities join; None: none.
        protect: what of that model's training stays: ``input``, the vectors of what it was trained on, exactly;
            ``disjoint``, their inner products (of linear adapters), with more room to learn; ``dual``, the same to
            first order, as published; ``none``, nothing.
        protect_energy: fraction of the energy of earlier inputs whose directions are protected.
        mispaired: fraction of instances known to be mispaired; as many, the most suspect, do not train.
        budget: seconds a fit may take; what does not fit in is not tried. None tries everything.
        patience: evaluations without a better held-out retrieval before training stops.
        refit: after validation has chosen, train again on train and validation together; None does so where there
            are few instances.
        validation: fraction of instances (or groups) that choose and stop.
        test: fraction of instances (or groups) that fit never touches.
        target: side column of classes, for objectives that need labels.
        group: side column whose instances stay on one side of every split; None is the column ``group``, where there
            is one.
        match: side column; instances of one value show the same thing: they stay on one side of every split.
        split_column: side column that states the split.
        precision: ``fp32``, ``bf16`` or ``auto`` (bf16 where a GPU has it, else fp32).
        seed: of split, initialisation, order and dropout.
    """

    PANEL: ClassVar = "What to fit"

    objective: str = flag("pmrl", "--objective", help=f"One of {', '.join(REGISTRY)}, gcca, mcca, auto.")
    objective_settings: dict[str, float | str] = flag(
        {}, "--set", metavar="KEY=VALUE", help="A setting of the objective; repeatable.", parse=parse_settings
    )
    terms: dict[str, float] = flag(
        {},
        "--term",
        metavar="NAME=WEIGHT",
        help=f"Add a term to any objective: {', '.join(TERMS)}; repeatable.",
        parse=parse_terms,
    )
    target: str | None = flag(None, "--target", help="Side column of classes, for objectives that need labels.")
    adapter: str = flag(
        "auto",
        "--adapter",
        help="linear; mlp: with a residual MLP; kernel: the same on nearness to instances; auto.",
    )
    dim: int | None = flag(
        None, "--dim", help="Dimension of the shared space, along its principal axes (default: chosen)."
    )
    continue_from: str | None = flag(
        None,
        "--continue-from",
        metavar="MODEL",
        help="Model to continue, with new instances or modalities.",
        panel="Going on from a model",
    )
    protect: Literal["input", "dual", "disjoint", "none"] = flag(
        "input",
        "--protect",
        metavar="WHAT",
        help="What of its training stays: input (vectors), disjoint (inner products), dual (nearly those) or none.",
        panel="Going on from a model",
    )
    protect_energy: float = flag(
        0.999,
        "--protect-energy",
        help="Fraction of the energy of its inputs that is protected.",
        panel="Going on from a model",
    )
    steps: int | None = flag(
        None, "--steps", help="Most training steps; 0 keeps the closed-form start.", panel="How long"
    )
    batch_size: int | None = flag(None, "--batch-size", help="Instances a step.", panel="How long")
    learning_rate: float = flag(1e-3, "--learning-rate", help="Of AdamW.", panel="How long")
    dropout: float | None = flag(
        None, "--dropout", help="Fraction of input scores zeroed in training (default: chosen).", panel="How long"
    )
    fast: bool = flag(
        False,
        "--fast",
        help="Closed forms only, linear and kernel, at a default ridge: no search and no training.",
        panel="How long",
    )
    trained: bool = flag(
        False,
        "--trained",
        help="Keep trained weights even where a closed form ranks better.",
    )
    mixup: float = flag(
        0.0,
        "--mixup",
        help="A: mix instances in a proportion drawn from Beta(A, A) (FuseMix); 0: not.",
        panel="How long",
    )
    mispaired: float = flag(
        0.0, "--mispaired", help="Fraction known to be mispaired; as many, the most suspect, do not train."
    )
    budget: float | None = flag(
        None,
        "--budget",
        metavar="TIME",
        help="End within it, counted from the start of the command, as in 90s, 5m, 2h.",
        parse=parse_seconds,
        panel="How long",
    )
    patience: int = flag(8, "--patience", help="Evaluations without gain before stopping.", panel="How long")
    refit: bool | None = flag(
        None,
        "--refit/--no-refit",
        help="Train again with the validation instances (default: if few).",
        panel="How long",
    )
    validation: float = flag(0.2, "--validation", help="Fraction held out to choose and stop.", panel="Split")
    test: float = flag(0.1, "--test", help="Fraction kept unseen for evaluate and diagnose.", panel="Split")
    group: str | None = flag(
        None, "--group", help="Side column; a group stays on one side of the split.", panel="Split"
    )
    match: str | None = flag(
        None,
        "--match",
        help="Side column; instances of one value show the same thing and stay on one side.",
        panel="Split",
    )
    split_column: str | None = flag(
        None, "--split-column", help="Side column with train, validation or test.", panel="Split"
    )
    precision: Literal["auto", "fp32", "bf16"] = flag(
        "auto", "--precision", help="auto, fp32 or bf16.", panel="Machine"
    )
    seed: int = flag(0, "--seed", help="Seed of every random choice.", panel="Split")

    def __post_init__(self) -> None:
        checks = (
            (self.adapter in ADAPTERS, "adapter", self.adapter, f"one of {', '.join(ADAPTERS)}"),
            (all(0 < w < inf for w in self.terms.values()), "weight of a term", self.terms, "more than 0"),
            (self.protect in PROTECTIONS, "protection", self.protect, f"one of {', '.join(PROTECTIONS)}"),
            (0 <= self.protect_energy <= 1, "protected energy", self.protect_energy, "0 to 1"),
            (0 <= self.mispaired < 1, "mispaired fraction", self.mispaired, "0 or more and less than 1"),
            (0 <= self.mixup < inf, "mixup", self.mixup, "0 or more"),
            (self.budget is None or 0 < self.budget < inf, "budget", self.budget, "more than 0 seconds"),
            (self.dim is None or self.dim >= 1, "dim", self.dim, "1 or more"),
            (self.steps is None or self.steps >= 0, "steps", self.steps, "0 or more"),
            (self.batch_size is None or self.batch_size >= 2, "batch size", self.batch_size, "2 or more"),
            (0 < self.learning_rate < inf, "learning rate", self.learning_rate, "more than 0"),
            (self.dropout is None or 0 <= self.dropout < 1, "dropout", self.dropout, "0 or more and less than 1"),
            (self.patience >= 1, "patience", self.patience, "1 or more"),
            (0 < self.validation < 1, "validation fraction", self.validation, "between 0 and 1"),
            (0 <= self.test < 1 - self.validation, "test fraction", self.test, "0 or more, leaving some to train"),
            (0 <= self.seed < 2**31, "seed", self.seed, "0 or more and less than 2147483648"),
            (self.precision in ("auto", "fp32", "bf16"), "precision", self.precision, "auto, fp32 or bf16"),
        )
        for good, name, found, expected in checks:
            if not good:
                raise UsageError(
                    what=f"{name} out of range", found=repr(found), expected=expected, next_step="Fix the setting."
                )

    @property
    def split_rule(self) -> SplitRule:
        """How the instances are split."""
        from pmrl_cli.data.split import SplitRule  # with NumPy, which the help of a command does without

        return SplitRule(self.seed, self.validation, self.test, self.group, self.match, self.split_column)

    def as_dict(self) -> dict[str, object]:
        """Return the settings by name."""
        return asdict(self)
