"""The closed family of errors that a user can see, each with its exit code.

Every error says what is wrong, where, what was found, what was expected and what to type next. The text is
one line, lower case at its start, and never a traceback: ``cli.main`` prints it and exits with ``exit_code``.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NoReturn

__all__ = [
    "DataError",
    "DivergedError",
    "PeerError",
    "Place",
    "PmrlError",
    "PolicyError",
    "ResourceError",
    "StateError",
    "UsageError",
    "check_known",
    "is_out_of_memory",
    "named",
    "printable",
    "raise_all",
]

_ID_LIMIT = 80


def printable(text: str) -> str:
    """Return a text in which every character shows: controls, bidirectional marks and stray bytes as escapes.

    Names in a file are not under the user's control: printed as they are they could clear a terminal or forge a line.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


def named(ids: Iterable[str]) -> str:
    """Return a few ids as a list, each cut to forty characters."""
    return ", ".join(repr(_cut(one, 40)) for one in ids)


@dataclass(frozen=True)
class Place:
    """Where in the user's data something was found: as much of it as is known.

    Args:
        file: path as the user typed it (or its base name).
        dataset: HDF5 dataset or Parquet column.
        row: zero-based row in the file.
        instance_id: the id on that row.
    """

    file: str
    dataset: str | None = None
    row: int | None = None
    instance_id: str | None = None

    def __str__(self) -> str:
        text = self.file
        if self.dataset is not None:
            text += f":{_cut(self.dataset, _ID_LIMIT)}"
        if self.row is not None:
            text += f" row {self.row}"
        if self.instance_id is not None:
            text += f" (id {_cut(self.instance_id, _ID_LIMIT)!r})"
        return text


class PmrlError(Exception):
    """An error with a cause the user can act on; the base of the family.

    Args:
        what: what is wrong, a few lower-case words.
        found: what was there.
        expected: what should have been there.
        next_step: the sentence that says what to type or do next, full stop included.
        at: the first place it was found, if it has one.
        others: further places (shown: four) of the same fault.
        total: how many places there are in all, where more were found than are listed.

    ``more`` holds further errors of the same input, where all were looked for: see ``raise_all``.
    """

    exit_code = 70
    kind = "internal"

    def __init__(
        self,
        what: str,
        *,
        found: str,
        expected: str,
        next_step: str,
        at: Place | None = None,
        others: Sequence[Place] = (),
        total: int | None = None,
    ) -> None:
        self.what = what
        self.found = found
        self.expected = expected
        self.next_step = next_step
        self.at = at
        self.others = tuple(others[:4])
        self.more: tuple[PmrlError, ...] = ()
        self.total = total if total is not None else (0 if at is None else 1 + len(others))
        where = f"{at}: " if at is not None else ""
        text = f"{what}: {where}{found}, expected {expected}. {next_step}"
        if self.others:
            text += f" Also at {'; '.join(str(place) for place in self.others)}."
        if self.total > 1 + len(self.others):
            text += f" ({self.total} in all.)"
        super().__init__(printable(text))

    def as_dict(self) -> dict[str, object]:
        """Return the error as the ``--json`` object: code, kind, message and the first place."""
        place = self.at
        return {
            "error": self.exit_code,
            "kind": self.kind,
            "message": str(self),
            "file": place.file if place else None,
            "dataset": place.dataset if place else None,
            "row": place.row if place else None,
            "id": place.instance_id if place else None,
            "total": self.total,
        }


_SHORT_OF_MEMORY = ("can't allocate memory", "can't start new thread", "failed to map segment")
"""What torch, threads and the loader of libraries say."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory is short: NumPy and Arrow by MemoryError, other libraries in other ways."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError | ImportError) and any(text in str(error) for text in _SHORT_OF_MEMORY)


class UsageError(PmrlError):
    """The command line or the config file is wrong."""

    exit_code = 2
    kind = "usage"


def check_known(kind: str, name: str, known: Iterable[str], next_step: str = "Choose one.") -> None:
    """Refuse a name that is not among those known.

    Args:
        kind: what it names, such as ``objective``.
        name: as it was given.
        known: in the order to show.
        next_step: what to type.

    Raises: UsageError.
    """
    names = list(known)
    if name not in names:
        raise UsageError(
            what=f"unknown {kind}", found=repr(name), expected=f"one of {', '.join(names)}", next_step=next_step
        )


class DataError(PmrlError):
    """The input data cannot be used as it is: unreadable, ambiguous, inconsistent, non-finite."""

    exit_code = 3
    kind = "data"


class PolicyError(PmrlError):
    """The input asks for something pmrl refuses to do: links, virtual datasets, pickles, unknown filters."""

    exit_code = 4
    kind = "policy"


class ResourceError(PmrlError):
    """Not enough memory, disk or GPU, or the device asked for is not there."""

    exit_code = 5
    kind = "resource"


class DivergedError(PmrlError):
    """Training produced a loss or gradient that is not finite."""

    exit_code = 6
    kind = "diverged"


class StateError(PmrlError):
    """Two states do not fit together: model and data, resume and config, a lock that is held."""

    exit_code = 7
    kind = "state"


class PeerError(PmrlError):
    """Another process of the same run ended; ``exit_code`` is that of its cause where it left one (``explained``)."""

    exit_code = 5
    kind = "peer"
    explained = False


def raise_all(errors: Sequence[PmrlError]) -> NoReturn:
    """Raise the first of the errors of one input; it carries the rest (at least one must be given)."""
    errors[0].more = tuple(errors[1:])
    raise errors[0]
