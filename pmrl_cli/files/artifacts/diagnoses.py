"""Diagnoses on disk: the JSON that is read back, and the page that is written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pmrl_cli.data.json_digest import DIGEST, digest_of
from pmrl_cli.errors import DataError, Place, StateError
from pmrl_cli.files.durable.atomic import atomic_file
from pmrl_cli.files.formats.regular import check_regular

__all__ = ["PAGE_MARKER", "SCHEMA", "read_diagnosis", "write_page"]

SCHEMA = "pmrl.diagnose/2"
SCHEMA_BEFORE = "pmrl.diagnose/1"
"""Without a digest, and with shorter keys; what ``--compare`` reads of it is the same."""
PAGE_MARKER = b'<meta name="generator" content="pmrl'
_MOST_BYTES = 2**28


def read_diagnosis(path: Path) -> dict[str, Any]:
    """Return a diagnosis that ``pmrl diagnose --json`` printed.

    Raises: DataError if the file is none; StateError if it has changed since it was written.
    """
    check_regular(path)
    found = "more than 256 MB"
    if path.stat().st_size <= _MOST_BYTES:
        try:
            content = json.loads(path.read_bytes(), parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            found = f"no JSON ({str(error)[:80]})"
        else:
            schema = content.get("schema") if isinstance(content, dict) else None
            if schema == SCHEMA or (schema is not None and DIGEST in content):
                _check_digest(content, path)
            if schema in (SCHEMA, SCHEMA_BEFORE):
                return content  # type: ignore[no-any-return]
            found = "JSON without a schema" if schema is None else f"schema {str(schema)[:40]!r}"
    raise DataError(
        what="not a diagnosis",
        at=Place(str(path)),
        found=found,
        expected=f"schema {SCHEMA!r}",
        next_step="Write one with: pmrl diagnose FILES --json > FILE.",
    )


def _no_number(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _check_digest(content: Mapping[str, Any], path: Path) -> None:
    digest = digest_of(content)
    if content.get(DIGEST) != digest:
        raise StateError(
            what="diagnosis has changed since it was written",
            at=Place(str(path)),
            found=f"SHA-256 {digest[:12]}",
            expected=f"SHA-256 {str(content.get(DIGEST))[:12]}",
            next_step="Restore it, or write it again with: pmrl diagnose FILES --json > FILE.",
        )


def write_page(path: Path, text: str) -> None:
    """Write a page; it appears when it is complete."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
