"""What the schema of a table says: the index of a data frame, numeric columns that together are a vector."""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase

import numpy as np
import pyarrow as pa

__all__ = [
    "LEVELS",
    "RUN",
    "dtype_of",
    "innermost",
    "is_list",
    "is_nameable",
    "is_number",
    "is_text",
    "numbered_columns",
    "pandas_index",
]

RUN = 8
"""Numbered numeric columns that together are one vector without being named as such."""

LEVELS = ", "
"""Between the levels of an index of several, in the name of their column."""


def is_number(kind: pa.DataType) -> bool:
    """Return whether a type is one of floats or integers."""
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def is_list(kind: pa.DataType) -> bool:
    """Return whether a type is one of lists."""
    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def innermost(kind: pa.DataType) -> pa.DataType:
    """Return the type of the elements of lists, however deep."""
    while is_list(kind):
        kind = kind.value_type
    return kind


def dtype_of(kind: pa.DataType) -> str:
    """Return NumPy's name of a type of numbers."""
    return str(np.dtype(kind.to_pandas_dtype()).name)


def is_text(kind: pa.DataType) -> bool:
    """Return whether a type is one of text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_nameable(kind: pa.DataType) -> bool:
    """Return whether values of a type can be ids: text, bytes or integers."""
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    binary = (
        pa.types.is_binary(kind)
        or pa.types.is_large_binary(kind)
        or pa.types.is_fixed_size_binary(kind)
        or pa.types.is_binary_view(kind)
    )
    return bool(is_text(kind) or binary or pa.types.is_integer(kind))


def pandas_index(schema: pa.Schema) -> tuple[str | None, str | None]:
    """Return the column of a pandas index that has a name, and of one that has none; a range of rows is neither."""
    try:
        about = json.loads((schema.metadata or {}).get(b"pandas", b"{}"))
        index = about.get("index_columns", [])
        names = {column.get("field_name"): column.get("name") for column in about.get("columns", [])}
    except (ValueError, AttributeError, TypeError, RecursionError):
        return None, None
    if isinstance(index, list) and len(index) > 1 and all(one in schema.names for one in index):
        return LEVELS.join(index), None
    if not isinstance(index, list) or len(index) != 1 or not isinstance(index[0], str):
        return None, None
    return (index[0], None) if names.get(index[0]) else (None, index[0])


def numbered_columns(schema: pa.Schema, wanted: str | None) -> dict[str, list[str]]:
    """Return numeric columns that together are a vector, by what it is called.

    Those that ``wanted`` names; else runs of ``RUN`` or more ``0..n``, ``f0..``, ``dim_0..``.
    """
    numeric = [field.name for field in schema if is_number(field.type)]
    if wanted is not None:
        given = [name.strip() for name in wanted.split(",")]
        taken = [name for pattern in given for name in numeric if fnmatchcase(name, pattern)]
        if all(one in taken for one in given if not set(one) & set("*?[")) and taken:
            return {wanted: list(dict.fromkeys(taken))}
        return {}
    groups: dict[str, dict[int, str]] = {}
    for name in numeric:
        match = re.fullmatch(r"(.*?)(\d+)", name)
        if match:
            groups.setdefault(match[1], {})[int(match[2])] = name
    runs = {}
    for numbered in groups.values():
        numbers = sorted(numbered)
        if len(numbers) >= RUN and numbers[0] in (0, 1) and numbers[-1] - numbers[0] == len(numbers) - 1:
            names = [numbered[number] for number in numbers]
            runs[f"{names[0]}..{names[-1]}"] = names
    return runs
