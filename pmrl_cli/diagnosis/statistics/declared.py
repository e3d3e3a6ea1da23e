"""Declaration of a statistic, from which its section, schema, notes and documentation follow.

A statistic is a function of the evidence (and of a pair, a direction or a modality) under ``@statistic``. Its place
in the result, its entry in ``docs/diagnose.schema.json``, its row in the tables of ``docs/diagnose.md`` and its note
on the page are made from what it is declared with. What pictures and readers need besides (histograms,
eigenvalues) is declared alike, with ``@detail``.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pmrl_cli.diagnosis.evidence import Evidence

__all__ = [
    "SCOPES",
    "Declared",
    "Need",
    "Scope",
    "declared",
    "detail",
    "notes",
    "part_of",
    "statistic",
    "table",
    "with_scopes",
]

Scope = Literal["alignment", "pair", "direction", "modality", "training"]
Need = Literal["space", "model", "labels", "rows"]
"""``space``: modalities of one width; ``model``: how it was trained; ``labels``: a column of them; ``rows``: the data
set in the order of its files."""

SCOPES: Mapping[Scope, str] = {
    "alignment": "all modalities at once; null where they do not share a space",
    "pair": "two modalities, over the instances that have both",
    "direction": "retrieval of one modality by another, within the reservoir",
    "modality": "one modality",
    "training": "how the model was trained; null without one",
}

Compute = Callable[..., Any]


@dataclass(frozen=True)
class Declared:
    """What is declared of a statistic or a detail.

    Args:
        key: its name in its scope; a dot puts it into a section of its own.
        scope: what it is about.
        formula: what it is.
        chance: its value by chance; empty for a detail.
        range: the values it can have; empty for a detail.
        needs: without which it is left out.
        schema: of its JSON.
        compute: (evidence, and the pair, direction or modality) -> its value; None leaves it out.
    """

    key: str
    scope: Scope
    formula: str
    chance: str
    range: str
    needs: frozenset[Need]
    schema: Mapping[str, Any]
    compute: Compute

    @property
    def measured(self) -> bool:
        """Whether it is a statistic, and not a detail."""
        return self.schema == STATISTIC


STATISTIC = {"$ref": "#/$defs/statistic"}

_REGISTRY: dict[tuple[Scope, str], Declared] = {}


def statistic(
    key: str, scope: Scope, *, formula: str, chance: str, range: str, needs: Iterable[Need] = ()
) -> Callable[[Compute], Compute]:
    """Declare a statistic: the function below computes it. See ``Declared``."""
    return _declaring(key, scope, (formula, chance, range), needs, STATISTIC)


def detail(
    key: str, scope: Scope, *, about: str, schema: Mapping[str, Any], needs: Iterable[Need] = ()
) -> Callable[[Compute], Compute]:
    """Declare what is no statistic: the function below computes it. See ``Declared``."""
    return _declaring(key, scope, (about, "", ""), needs, schema)


def part_of(find: Callable[..., Any], name: str) -> Callable[..., Any]:
    """Return the function that computes one field of what ``find`` finds, which is found once for all its fields."""

    def compute(evidence: Evidence, *subject: Hashable) -> Any:  # noqa: ANN401 - of any field
        found = evidence.once(find, *subject)
        return None if found is None else getattr(found, name)

    return compute


def _declaring(
    key: str, scope: Scope, words: tuple[str, str, str], needs: Iterable[Need], schema: Mapping[str, Any]
) -> Callable[[Compute], Compute]:
    def register(compute: Compute) -> Compute:
        if (scope, key) in _REGISTRY:
            message = f"{scope} {key} is declared twice"
            raise ValueError(message)
        _REGISTRY[scope, key] = Declared(key, scope, *words, frozenset(needs), schema, compute)
        return compute

    return register


def declared(scope: Scope) -> list[Declared]:
    """Return what is declared of a scope, in the order of declaration."""
    return [one for (of, _), one in _REGISTRY.items() if of == scope]


def section(scope: Scope, evidence: Evidence, *subject: object) -> dict[str, Any]:
    """Return the section of a scope: all that is declared, but what lacks a need or has nothing to say."""
    found: dict[str, Any] = {}
    for one in declared(scope):
        if one.needs <= evidence.has:
            value = one.compute(evidence, *subject)
            if value is not None:
                *parents, name = one.key.split(".")
                place = found
                for parent in parents:
                    place = place.setdefault(parent, {})
                place[name] = value
    return found


def notes() -> list[tuple[str, str, str]]:
    """Return name, formula and chance of every statistic, for the page."""
    return [(one.key, one.formula, one.chance) for scope in SCOPES for one in declared(scope) if one.measured]


def table(scope: Scope) -> str:
    """Return the table of a scope's statistics, in Markdown."""
    rows = [("key", "is", "chance", "range"), ("---",) * 4]
    rows += [(f"`{one.key}`", one.formula, one.chance, one.range) for one in declared(scope) if one.measured]
    return "\n".join("| " + " | ".join(cell.replace("|", r"\|") for cell in row) + " |" for row in rows)


def with_scopes(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON schema with the definition of every scope as it is declared."""
    return {**schema, "$defs": {**schema["$defs"], **{scope: _object(scope) for scope in SCOPES}}}


def _object(scope: Scope) -> dict[str, Any]:
    """Return the JSON schema of a scope."""
    top = _empty(SCOPES[scope])
    for one in declared(scope):
        *parents, name = one.key.split(".")
        place = top
        for parent in parents:
            place = place["properties"].setdefault(parent, _empty(""))
        words = [one.formula, f"by chance {one.chance}" if one.chance else "", one.range and f"in {one.range}"]
        place["properties"][name] = {**one.schema, "description": "; ".join(word for word in words if word)}
    if scope == "pair":
        ways = {"type": "object", "additionalProperties": {"$ref": "#/$defs/direction"}}
        top["properties"]["retrieval"] = {**ways, "description": "by direction a->b; empty without a shared space"}
    return top


def _empty(about: str) -> dict[str, Any]:
    node = {"type": "object", "properties": {}, "additionalProperties": False}
    return {**node, "description": about} if about else node
