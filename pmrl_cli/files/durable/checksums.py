"""Digests of what pmrl writes: every byte of every output is under a SHA-256 that is checked when it is read.

A manifest lists the digests of the files beside it and carries one of its own other entries (``seal``). It is written
canonically (see ``to_json``), so that its content has one form: any other byte, a blank too, is a change.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from pmrl_cli.errors import DataError, Place, StateError
from pmrl_cli.files.durable.atomic import to_json
from pmrl_cli.files.durable.outputs import MANIFEST

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = [
    "FORMAT_VERSION",
    "HashedFile",
    "changed",
    "check_bytes",
    "check_file",
    "check_files",
    "check_own_digest",
    "digests",
    "read_manifest",
    "sha256_of",
    "write_with_digest",
]

FORMAT_VERSION = 2
"""Of models, stores and exports. Version 1 had no ``seal``, and a store no digests of its files; it is still read."""

SEAL = "seal"
"""Key of the digest of a file in itself."""


class HashedFile(io.FileIO):
    """A new file, and the SHA-256 of what is written to it from its first byte to its last.

    Args:
        path: where nothing stands.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, "xb")
        self._digest = hashlib.sha256()

    def write(self, data: Buffer) -> int:
        """Write and hash all of ``data``; return how many bytes that is."""
        left = whole = memoryview(data).cast("B")
        while left:
            left = left[super().write(left) :]
        self._digest.update(whole)
        return len(whole)

    def hexdigest(self) -> str:
        """Return the digest of what was written so far, in hex."""
        return self._digest.hexdigest()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex.

    Raises: OSError, also for a FIFO or a device, which could be read for ever.
    """
    if not path.is_file():
        raise FileNotFoundError(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digests(
    folder: Path, *, without: tuple[str, ...] = (MANIFEST,), known: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Return the SHA-256 of every file under a folder by its path in it.

    Args:
        folder: where they are.
        without: files left out.
        known: SHA-256 of files that were hashed as they were written: these are not read again.
    """
    known = known or {}
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    names = [name for name in (path.relative_to(folder).as_posix() for path in paths) if name not in without]

    def digest(name: str) -> str:
        return known.get(name) or sha256_of(folder / name)

    with ThreadPoolExecutor() as pool:  # hashing lets go of the interpreter's lock
        return dict(zip(names, pool.map(digest, names), strict=True))


def check_files(folder: Path, files: Mapping[str, str]) -> None:
    """Hold files to their digests.

    Args:
        folder: where they are.
        files: SHA-256 by path in the folder.

    Raises: StateError naming the first that is lost or has changed.
    """

    def found(name: str) -> str | None:
        try:
            return sha256_of(folder / name)
        except OSError:
            return None

    with ThreadPoolExecutor() as pool:
        for (name, digest), got in zip(files.items(), pool.map(found, files), strict=True):
            if got != digest:
                raise changed(folder / name, *_words(got, digest))


def check_bytes(path: Path, digest: str) -> bytes:
    """Return the bytes of a file, checked against their digest.

    Raises: StateError if it is lost or has changed.
    """
    try:
        content = path.read_bytes() if path.is_file() else None
    except OSError:
        content = None
    if content is None:
        raise changed(path, *_words(None, digest))
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise changed(path, *_words(found, digest))
    return content


def check_file(path: Path, digest: str) -> None:
    """Check a file against its digest without holding it.

    Raises: StateError if it is lost or has changed.
    """
    try:
        found = sha256_of(path)
    except OSError:
        found = None
    if found != digest:
        raise changed(path, *_words(found, digest))


def _words(found: str | None, digest: str) -> tuple[str, str]:
    return "no file" if found is None else f"SHA-256 {found[:12]}", f"SHA-256 {digest[:12]}"


def changed(path: Path, found: str, expected: str) -> StateError:
    """Return the error of an output whose bytes are not those that were written."""
    return StateError(
        what="output has changed since it was written",
        at=Place(str(path)),
        found=found,
        expected=expected,
        next_step="Restore it, or write it again with the command that wrote it (an unfinished fit: --restart).",
    )


def write_with_digest(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON with a digest of itself."""
    seal = hashlib.sha256(to_json(content).encode()).hexdigest()
    path.write_text(to_json({**content, SEAL: seal}), encoding="utf-8")


def check_own_digest(text: bytes, path: Path) -> dict[str, Any]:
    """Return the content of a file that ``write_with_digest`` wrote, less the digest.

    Args:
        text: of the file.
        path: for the error.

    Raises: StateError if it has changed.
    """
    try:
        content = json.loads(text)
        seal = content.pop(SEAL)
        found = hashlib.sha256(to_json(content).encode()).hexdigest()
        same = to_json({**content, SEAL: seal}).encode() == text
    except (ValueError, AttributeError, KeyError, TypeError, RecursionError):
        raise changed(path, "no JSON with a digest of itself", "one") from None
    if found != seal or not same:
        raise changed(path, f"SHA-256 {found[:12]}" if found != seal else "another layout", f"SHA-256 {seal:.12}")
    return dict(content)


def _within(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return what the manifest of a folder says, None for a folder without one that pmrl wrote.

    Raises: DataError if it cannot be read; StateError if a newer pmrl wrote it or it has changed.
    """
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        text = path.read_bytes()
        content = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            what="manifest cannot be read",
            at=Place(str(path)),
            found=(isinstance(error, OSError) and error.strerror) or str(error),
            expected="the JSON that was written with the folder",
            next_step="Restore it, or write the folder again.",
        ) from None
    # Either of the two says that pmrl wrote it: one changed bit does not hide both.
    if not isinstance(content, dict) or not (SEAL in content or str(content.get("format")).startswith("pmrl.")):
        return None
    version = content.get("format_version")
    if version not in range(1, FORMAT_VERSION + 1):
        raise StateError(
            what="output of another version",
            at=Place(str(folder)),
            found=f"format version {version}",
            expected=f"{FORMAT_VERSION} or older",
            next_step="Use the pmrl that wrote it or a newer one, or write it again.",
        )
    files = content.get("files", {})
    if not isinstance(files, dict) or not all(_within(name) and isinstance(one, str) for name, one in files.items()):
        raise DataError(
            what="manifest cannot be read",
            at=Place(str(path)),
            found="no list of digests by file of the folder",
            expected="the JSON that was written with the folder",
            next_step="Restore it, or write the folder again.",
        )
    return content if version == 1 else check_own_digest(text, path)
