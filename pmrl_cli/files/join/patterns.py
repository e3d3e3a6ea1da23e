"""What of an id is the id: ``--id-pattern``, and the pattern under which ids that differ by an affix are the same."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pmrl_cli.data.validate import SHOWN
from pmrl_cli.errors import DataError, Place, UsageError

__all__ = ["check_names", "hint_of_affixes", "pattern_for", "taken"]

_NAMED = re.compile(r"([A-Za-z0-9._-]+)=(.+)", re.DOTALL)

_SEPARATORS = "-_.:#|/"
_FEW, _MANY = 0.1, 0.5
"""Ids of the smaller modality that the other has too: fewer than the one make it look for a pattern, and a pattern
must bring them to the other."""


def _parted(asked: str) -> tuple[str | None, str]:
    match = _NAMED.fullmatch(asked)
    return (None, asked) if match is None else (match[1], match[2])


def check_names(patterns: Sequence[str], names: Sequence[str]) -> None:
    """Refuse a pattern for a modality that there is not.

    Raises: UsageError.
    """
    for modality, pattern in map(_parted, patterns):
        if modality is not None and modality not in names:
            raise UsageError(
                what="no such modality",
                found=f"--id-pattern {modality}={pattern}",
                expected=f"one of {', '.join(names)}",
                next_step="Put the pattern in parentheses, as in '(.+=.+)', if it has no modality before it.",
            )


def pattern_for(patterns: Sequence[str], name: str | None) -> str | None:
    """Return the pattern for the ids of a modality: its own, else that for all; None without any.

    Args:
        patterns: as in ``ReadOptions.id_pattern``.
        name: the modality; None for a side table, which has that for all.
    """
    parted = [_parted(one) for one in patterns]
    own = [pattern for modality, pattern in parted if modality is not None and modality == name]
    return next(iter([*own, *(pattern for modality, pattern in parted if modality is None)]), None)


def taken(ids: pa.LargeStringArray, pattern: str, place: Place, *, partly: bool = False) -> pa.LargeStringArray:
    """Return what the first group of a pattern takes of each id, which it must fit as a whole.

    Args:
        ids: (n,) Arrow large_string.
        pattern: a regular expression of RE2.
        place: of the ids.
        partly: whether ids that it does not fit stay as they are.

    Raises: UsageError for a pattern without a group, or that is none; DataError for an id that it does not fit.
    """
    whole = rf"(?s)\A(?:{pattern})\z"
    try:
        fits = pc.match_substring_regex(ids, whole)
        found = pc.replace_substring_regex(ids, whole, r"\1")
    except pa.ArrowInvalid as error:
        raise UsageError(
            what="not a pattern",
            found=f"--id-pattern {pattern!r}: {str(error).splitlines()[0]}",
            expected="a regular expression with one group, which is the id",
            next_step="Type for example: --id-pattern '(.+)-[^-]*'.",
        ) from None
    beyond = np.flatnonzero(~fits.to_numpy(zero_copy_only=False))
    if len(beyond) and not partly:
        places = [Place(place.file, place.dataset, int(row), ids[int(row)].as_py()) for row in beyond[:SHOWN]]
        raise DataError(
            what="id that the pattern does not fit",
            at=places[0],
            others=places[1:],
            total=len(beyond),
            found=f"--id-pattern {pattern!r}",
            expected="a pattern that fits every id as a whole",
            next_step=f"Make what some ids lack optional, or give the pattern to one modality: "
            f"--id-pattern {shlex.quote(f'NAME={pattern}')}.",
        )
    return found


class _Way(NamedTuple):
    """How the ids of one or both of two modalities may be taken.

    Args:
        shared: ids that both have then.
        options: to type for it.
    """

    shared: int
    options: tuple[str, ...]


def hint_of_affixes(modalities: Sequence[tuple[str, pa.LargeStringArray]]) -> tuple[str, str] | None:
    """Return what is found, and what to type, where the ids of two modalities differ by what is around them.

    That is where they share few, and many once a part of one or both is left out: a suffix such as ``-1``, a prefix
    such as ``sample_``, folders and the ending of a file. None where they do not.

    Args:
        modalities: their names and ids, without repeats.
    """
    for at, (name, ids) in enumerate(modalities):
        for other, others in modalities[:at]:
            smaller = min(len(ids), len(others))
            before = _shared(ids, others)
            if before >= _FEW * smaller:
                continue
            ways = [
                _Way(_shared(one, two), (*first, *second))
                for second, one in _ways(name, ids)
                for first, two in _ways(other, others)
            ]
            best = max(ways, key=lambda way: (way.shared, -len(way.options)))
            if best.shared > max(_MANY * smaller, 10 * before):
                found = f"{other} and {name} share {before} ids of {smaller}, and {best.shared} without their affixes"
                return found, " ".join(f"--id-pattern {shlex.quote(one)}" for one in best.options)
    return None


def _shared(ids: pa.LargeStringArray, others: pa.LargeStringArray) -> int:
    return int(pc.sum(pc.is_in(ids, value_set=others)).as_py() or 0)


def _ways(name: str, ids: pa.LargeStringArray) -> Iterator[tuple[tuple[str, ...], pa.LargeStringArray]]:
    """Yield the ids as they are, and as each pattern that fits all and keeps them apart takes them."""
    yield (), ids
    patterns = [r"(?:.*/)?([^/]+)\.[^./]+"]
    for mark in _SEPARATORS:
        if pc.any(pc.match_substring(ids[:1], mark)).as_py():
            plain = f"[{mark}]" if mark in ".|" else mark
            patterns += [f"(.+){plain}[^{mark}]*", f"([^{mark}]+){plain}.*"]
            patterns += [f"[^{mark}]*{plain}(.+)", f".*{plain}([^{mark}]+)"]
    for pattern in patterns:
        try:
            found = taken(ids, pattern, Place(name))
        except DataError:
            continue
        if pc.count_distinct(found).as_py() == len(found):
            yield (f"{name}={pattern}",), found
