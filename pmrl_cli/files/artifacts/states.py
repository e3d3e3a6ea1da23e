"""Partial states of a diagnosis: named arrays and a header in one safetensors file, under a digest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from pmrl_cli.errors import DataError, Place, StateError
from pmrl_cli.files.artifacts.disk import disk_errors
from pmrl_cli.files.durable.atomic import atomic_file
from pmrl_cli.files.formats.regular import check_regular

__all__ = ["STATE", "STATE_MARKER", "read_state", "write_state"]

Arrays = Mapping[str, npt.NDArray[Any]]

STATE = "pmrl.state"
STATE_VERSION = "1"
STATE_MARKER = STATE.encode()


def write_state(path: Path, header: Mapping[str, Any], arrays: Arrays) -> None:
    """Write a state; equal states give equal bytes.

    Args:
        path: the file; it appears when it is complete.
        header: JSON values.
        arrays: numbers and booleans by name.

    Raises: ResourceError if it cannot be written.
    """
    text = json.dumps(header, sort_keys=True, allow_nan=False)
    contiguous = {name: np.ascontiguousarray(arrays[name]) for name in sorted(arrays)}
    about = {"format_version": STATE_VERSION, "header": text, "digest": _digest(text, contiguous)}
    # One entry: safetensors writes several in any order.
    metadata = {STATE: json.dumps(about, sort_keys=True)}
    with atomic_file(path) as temporary, disk_errors(path):
        save_file(contiguous, temporary, metadata=metadata)


def read_state(path: Path) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Return the header and the arrays of a state, checked against their digest.

    Raises: DataError if it is no state; StateError if it is from another version or has changed.
    """
    check_regular(path)
    try:
        with safe_open(path, framework="np") as file:
            about = json.loads((file.metadata() or {}).get(STATE, "null"))
            if not isinstance(about, dict):
                raise _no_state(path, f"no {STATE} in its header")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise _no_state(path, str(error).splitlines()[0] if str(error) else type(error).__name__) from None
    if about.get("format_version") != STATE_VERSION:
        raise StateError(
            what="state of another version",
            at=Place(str(path)),
            found=f"format {about.get('format_version')}",
            expected=f"format {STATE_VERSION}",
            next_step="Use the pmrl that wrote it, or make it again.",
        )
    text, digest = str(about.get("header")), str(about.get("digest"))
    if digest != _digest(text, arrays):
        raise StateError(
            what="state has changed since it was written",
            at=Place(str(path)),
            found=f"SHA-256 {_digest(text, arrays)[:12]}",
            expected=f"SHA-256 {digest[:12]}",
            next_step="Restore it, or make it again with pmrl diagnose --partial.",
        )
    header: dict[str, Any] = json.loads(text)
    return header, arrays


def _no_state(path: Path, found: str) -> DataError:
    return DataError(
        what="not a state",
        at=Place(str(path)),
        found=found[:120],
        expected="a file written by pmrl diagnose --partial",
        next_step="Check the path.",
    )


def _digest(header: str, arrays: Arrays) -> str:
    digest = sha256(header.encode())
    for name in sorted(arrays):
        array = arrays[name]
        digest.update(f"\0{name}\0{array.dtype.str}\0{array.shape}\0".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
