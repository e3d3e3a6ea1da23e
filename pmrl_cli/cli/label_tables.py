"""The tables of ``pmrl evaluate`` on labels: accuracies beside chance, and the weakest classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pmrl_cli.cli import space

__all__ = ["accuracies", "class_accuracies", "weakest_classes"]

MOST = 10
"""Classes that a screen shows; ``--json`` has more."""


def accuracies(result: Mapping[str, Any], *, probe: bool) -> Any:  # noqa: ANN401 - a rich table, whose import waits
    """Return the table of zero-shot and probe accuracy, or None where there is neither."""
    table = space.grid("accuracy", "value", "chance", "95% CI", "instances", first=34)
    shot, probed = result["zero_shot"], result["probe"] if probe else None
    if shot is not None:
        for name, one in shot["modalities"].items():
            for top, number in one["metrics"].items():
                table.add_row(f"zero-shot {top}, {name}", *space.cells(number), f"{one['instances']:,}")
    if probed is not None:
        for name, one in probed["modalities"].items():
            table.add_row(f"linear probe, {name}", *space.cells(one["accuracy"]), f"{one['instances']:,}")
    return table if table.row_count else None


def weakest_classes(found: Mapping[str, Any]) -> Any:  # noqa: ANN401 - as above
    """Return the table of the classes whose MRR is lowest, or None where none has any."""
    classes = {name: one for name, one in found["classes"].items() if one["metrics"]}
    if not classes:
        return None
    names = sorted(classes, key=lambda name: classes[name]["metrics"]["MRR"]["value"])[:MOST]
    title = "class" if len(names) == len(classes) else f"weakest {len(names)} of {len(classes)} classes"
    table = space.grid(title, "instances", "R@1", "MRR", "95% CI", "label mAP", first=26)
    for name in names:
        metrics = classes[name]["metrics"]
        label = metrics.get("label_mAP", {"value": None})
        values = (space.number_text(one["value"]) for one in (metrics["R@1"], metrics["MRR"]))
        table.add_row(
            name,
            f"{classes[name]['instances']:,}",
            *values,
            space.ci_text(metrics["MRR"]["ci"]),
            space.number_text(label["value"]),
        )
    return table


def class_accuracies(result: Mapping[str, Any], *, probe: bool) -> Any:  # noqa: ANN401 - as above
    """Return the table of the accuracy of single classes, the weakest, or None without zero-shot or probe.

    That of the fused vectors, or of the one modality there is.
    """
    asked = {"zero-shot": result["zero_shot"], "linear probe": result["probe"] if probe else None}
    # fused comes last
    found = {name: list(one["modalities"].values())[-1]["by_class"] for name, one in asked.items() if one is not None}
    if not found:
        return None
    first = next(iter(found.values()))
    names = sorted(first, key=lambda name: (first[name]["right"], name))[:MOST]
    title = "class" if len(names) == len(first) else f"least accurate {len(names)} of {len(first)} classes"
    table = space.grid(title, "instances", *found, first=34)
    for name in names:
        shares = (space.number_text(one[name]["right"] if name in one else None) for one in found.values())
        table.add_row(name, f"{first[name]['instances']:,}", *shares)
    return table
