"""Ways through a diagnosis in one order, whether it comes fresh or was written as JSON, whose keys are sorted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import permutations
from typing import Any

__all__ = ["Result", "at", "differences", "kept_run", "modalities", "pairs", "statistics", "value_at"]

Result = Mapping[str, Any]
"""JSON values as ``docs/diagnose.schema.json`` describes them."""

_FIRST_DIFFERENCES = ("A", "R@1_standard", "R@1", "MRR", "AUC", "fused.MRR")


def modalities(result: Result) -> list[tuple[str, Mapping[str, Any]]]:
    """Return each modality's name and section."""
    return [(name, result["modality"][name]) for name in result["inputs"]["modalities"] if name in result["modality"]]


def pairs(result: Result) -> list[tuple[str, Mapping[str, Any]]]:
    """Return each pair's name ``a|b`` and section."""
    names = [f"{a}|{b}" for a, b in permutations(result["inputs"]["modalities"], 2)]
    return [(name, result["pair"][name]) for name in names if name in result["pair"]]


def differences(result: Result) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the differences from another diagnosis, those of all modalities first."""
    delta = (result["compare"] or {}).get("delta", {})
    return sorted(
        delta.items(),
        key=lambda one: (_FIRST_DIFFERENCES.index(one[0]) if one[0] in _FIRST_DIFFERENCES else 99, one[0]),
    )


def at(node: Any, path: str) -> Any:  # noqa: ANN401 - JSON values
    """Return what lies at a dotted path, None where there is nothing."""
    for key in path.split("."):
        if not isinstance(node, Mapping) or node.get(key) is None:
            return None
        node = node[key]
    return node


def value_at(node: Any, path: str) -> float | None:  # noqa: ANN401 - JSON values
    """Return the value of the statistic at a dotted path, None where there is none."""
    return at(node, f"{path}.value")  # type: ignore[no-any-return]


def statistics(node: object, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield every statistic with its path, in the order of paths."""
    if isinstance(node, Mapping):
        if "status" in node and "value" in node:
            yield ".".join(path), node
            return
        for key in sorted(node):
            yield from statistics(node[key], (*path, str(key)))


def kept_run(training: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return, of the runs that were kept, the best by held-out MRR of those that trained, or of all if none did.

    Args:
        training: with ``kept`` and ``history``.

    Returns: its ``stage``, ``step`` and ``epoch``; None where none is known.
    """
    mrr = {(line["stage"], line["step"]): line.get("mrr", -1.0) for line in training["history"]}
    kept = training.get("kept") or []
    return max(kept, key=lambda one: (one["step"] > 0, mrr[one["stage"], one["step"]]), default=None)
