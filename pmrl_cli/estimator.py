"""scikit-learn's contract of an estimator, kept without importing it: parameters, clones, tags and output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, fields, replace
from html import escape
from inspect import Parameter, Signature
from typing import Any, Self

from pmrl_cli.errors import UsageError
from pmrl_cli.python_words import python_words
from pmrl_cli.train.devices import choose_device
from pmrl_cli.train.objectives import check_objective
from pmrl_cli.train.settings import FitSettings

__all__ = ["Estimator"]

_SEVERAL = {field.name for field in fields(FitSettings) if field.default is MISSING}
"""Settings that hold several values: None stands for none of them."""

_DEFAULTS: dict[str, object] = {
    field.name: None if field.name in _SEVERAL else field.default for field in fields(FitSettings)
}


class Estimator:
    """Holds the settings of a fit by name, as they were given; each is a keyword of the signature.

    Unlike there, wrong settings are refused at once and not in ``fit``.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        **settings: those of ``FitSettings``.
    """

    @python_words
    def __init__(self, *, device: str = "auto", **settings: Any) -> None:  # noqa: ANN401 - FitSettings checks them
        self._settings = _checked(FitSettings(), device, settings)
        self.device, self._given = device, dict(settings)
        self._frames = False

    @property
    def settings(self) -> FitSettings:
        """The settings of the next fit."""
        return self._settings

    def get_params(self, deep: bool = True) -> dict[str, object]:  # noqa: FBT001, FBT002 - scikit-learn's signature
        """Return the settings by name, as scikit-learn does (``deep`` changes nothing: none is an estimator)."""
        # The objects themselves, as scikit-learn's clone compares by identity.
        return {"device": self.device, **_DEFAULTS, **self._given}

    @python_words
    def set_params(self, **params: Any) -> Self:  # noqa: ANN401 - FitSettings checks them
        """Change settings by name, as scikit-learn does.

        Raises: UsageError for an unknown one; then none is changed.
        """
        device = params.pop("device", self.device)
        self._settings = _checked(self._settings, device, params)
        self.device, self._given = device, {**self._given, **params}
        return self

    def set_output(self, *, transform: str | None = None) -> Self:
        """Choose what ``transform`` returns, as scikit-learn does: ``default``, a dict of arrays, or ``pandas``.

        Raises: UsageError for anything else but None, which changes nothing.
        """
        if transform not in (None, "default", "pandas"):
            raise UsageError(
                what="unknown output",
                found=repr(transform),
                expected="'default' or 'pandas'",
                next_step="Choose one.",
            )
        self._frames = self._frames if transform is None else transform == "pandas"
        return self

    def __repr__(self) -> str:
        unchanged = {"device": "auto", **_DEFAULTS}
        changed = {name: value for name, value in self.get_params().items() if value != unchanged[name]}
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in changed.items())})"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(repr(self))}\n{escape(self._state())}</pre>"

    def _state(self) -> str:
        """Return what a notebook shows below the settings."""
        raise NotImplementedError

    def __sklearn_tags__(self) -> Any:  # noqa: ANN401 - scikit-learn is imported only here, where it asks
        from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags

        return Tags(
            estimator_type="transformer",
            target_tags=TargetTags(required=False),
            transformer_tags=TransformerTags(preserves_dtype=["float32"]),
            input_tags=InputTags(two_d_array=False, dict=True, allow_nan=True),
        )


def _checked(settings: FitSettings, device: str, changes: Mapping[str, object]) -> FitSettings:
    """Return changed settings that can be fitted with: this is known now, not after the features have been read."""
    unknown = sorted(set(changes) - set(_DEFAULTS))
    if unknown:
        raise UsageError(
            what="unknown setting",
            found=", ".join(unknown),
            expected=f"some of {', '.join(sorted(_DEFAULTS))}",
            next_step="Fix its name.",
        )
    values = {name: {} if value is None and name in _SEVERAL else value for name, value in changes.items()}
    changed = replace(settings, **values)  # type: ignore[arg-type]
    choose_device(device)
    check_objective(changed)
    return changed


Estimator.__init__.__signature__ = Signature(  # type: ignore[attr-defined] # read by inspect.signature
    [
        Parameter("self", Parameter.POSITIONAL_OR_KEYWORD),
        Parameter("device", Parameter.KEYWORD_ONLY, default="auto", annotation=str),
        *(
            Parameter(field.name, Parameter.KEYWORD_ONLY, default=_DEFAULTS[field.name], annotation=field.type)
            for field in fields(FitSettings)
        ),
    ]
)
