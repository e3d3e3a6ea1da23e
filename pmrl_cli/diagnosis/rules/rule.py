"""Rules: each reads a diagnosis, and what it has read is its evidence."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Finding", "Node", "ResultView", "Rule"]

Node = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """A rule that fired.

    Args:
        code: its name.
        severity: ``fail``, ``warn`` or ``info``.
        subject: the modalities or pairs it is about; empty for all.
        evidence: dotted paths of the statistics it rests on.
        text: what was found, with the numbers.
        advice: what to do.
        rate: estimated fraction of the instances it is about, where it is known.
        rows: the first of the rows it is about and the one after the last, if they are consecutive.
        command: what to type next.
    """

    code: str
    severity: str
    subject: tuple[str, ...]
    evidence: tuple[str, ...]
    text: str
    advice: str
    rate: float | None = None
    rows: tuple[int, int] | None = None
    command: str = ""


class ResultView:
    """The JSON values of a diagnosis, less its verdict, and what has been read of them.

    Args:
        result: see ``docs/diagnose.schema.json``.

    Attributes:
        seen: dotted paths of the numbers that were there.
    """

    def __init__(self, result: Node) -> None:
        self.result = result
        self.seen: list[str] = []

    def node(self, *path: str) -> Any:  # noqa: ANN401 - whatever is there
        """Return what stands at a path, None where nothing does. No evidence."""
        found: Any = self.result
        for key in path:
            if not isinstance(found, Mapping) or found.get(key) is None:
                return None
            found = found[key]
        return found

    def statistic(self, *path: str) -> Node | None:
        """Return a statistic that has a value, and remember it."""
        found = self.node(*path)
        if found is None or found["value"] is None:
            return None
        self.remember(*path)
        return dict(found)

    def value(self, *path: str) -> float | None:
        """Return the value of a statistic, and remember it."""
        found = self.statistic(*path)
        return None if found is None else float(found["value"])

    def number(self, *path: str) -> float | None:
        """Return a plain number, and remember it."""
        found = self.node(*path)
        if found is None:
            return None
        self.remember(*path)
        return float(found)

    def remember(self, *path: str) -> None:
        """Note that a number was read."""
        dotted = ".".join(path)
        if dotted not in self.seen:
            self.seen.append(dotted)

    @property
    def names(self) -> Sequence[str]:
        """The modalities."""
        return list(self.result["inputs"]["modalities"])

    @property
    def pairs(self) -> Sequence[str]:
        """The pairs a|b that are there."""
        return list(self.result["pair"])

    def remedy(self, action: str, subject: Sequence[str] = (), kind: str = "") -> Node | None:
        """Return a remedy that was measured by ``kind`` + R@1, and remember it."""
        for index, one in enumerate(self.result["remedies"]):
            measured = (one["action"], list(one["subject"]), one["metric"].startswith(f"{kind}R@"))
            if measured == (action, list(subject), True):
                self.remember("remedies", str(index), "delta")
                return dict(one)
        return None


def helps(remedy: Node | None, least: float = 0.0) -> bool:
    """Whether a remedy's gain is more than ``least`` and its whole interval above 0."""
    if remedy is None:
        return False
    delta = remedy["delta"]
    return delta["value"] is not None and delta["value"] > least and delta["ci"] is not None and delta["ci"][0] > 0


def gain_text(remedy: Node) -> str:
    """Return what a remedy does, in figures."""
    before, after = remedy["before"]["value"], remedy["after"]["value"]
    return f"{remedy['metric']} {before:.3f} -> {after:.3f} on held-out halves"


@dataclass(frozen=True)
class Rule:
    """A rule of the verdict.

    Args:
        code: name of its findings.
        condition: when it fires, in words.
        ask: yields its findings.
    """

    code: str
    condition: str
    ask: Callable[[ResultView], Iterator[Finding]]
