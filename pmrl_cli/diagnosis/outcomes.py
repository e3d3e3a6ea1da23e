"""What happened to each query, small enough for the JSON: what a paired comparison with another diagnosis needs.

Arrays are in the order of the ids' hashes, which two diagnoses of the same instances share; they are packed
(little-endian, zlib, base64), for most ranks are small numbers.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pmrl_cli.errors import DataError
from pmrl_cli.retrieval.ranks import Ranks

__all__ = ["Outcomes", "pack_outcomes", "read_outcomes"]

_WHOLE = np.dtype("<i4")
_REAL = np.dtype("<f4")


class Outcomes(NamedTuple):
    """What happened to the instances of the reservoir.

    Args:
        ids: SHA-256 of their ids' hashes in ascending order.
        groups: (n,) int64, counted from 0: the independent units; each instance its own without groups.
        adjusted: (n,) (rho_i - rho_0) / (1 - rho_0), NaN where it is not known.
        ranks: by direction; ``rows`` are positions in the order of the hashes.
    """

    ids: str
    groups: npt.NDArray[np.int64]
    adjusted: npt.NDArray[np.float64]
    ranks: Mapping[str, Ranks]


def pack_outcomes(
    hashes: npt.NDArray[np.uint64],
    *,
    rows: npt.NDArray[np.int64],
    groups: npt.NDArray[np.int64] | None,
    adjusted: npt.NDArray[np.float64],
    ranks: Mapping[str, Ranks],
) -> dict[str, Any]:
    """Return the outcomes as JSON values.

    Args:
        hashes: (n,) of the ids of the reservoir.
        rows: (n,) ascending: the numbers by which ``ranks`` know the same instances.
        groups: (n,) any integers, or None where each instance stands for itself.
        adjusted: (n,), NaN where not known.
        ranks: by direction.
    """
    order = np.argsort(hashes, kind="stable")
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    directions = {}
    for name, found in ranks.items():
        columns = np.full((2, len(order)), -1, dtype=np.int64)
        columns[:, place[np.searchsorted(rows, found.rows)]] = found.greater, found.tied
        better, tied = (_pack(column, _WHOLE) for column in columns)
        directions[name] = {"gallery": found.gallery, "better": better, "tied": tied}
    codes = None if groups is None else np.unique(groups[order], return_inverse=True)[1]
    return {
        "instances": len(order),
        "ids_sha256": hashlib.sha256(hashes[order].astype("<u8").tobytes()).hexdigest(),
        "groups": None if codes is None else _pack(codes, _WHOLE),
        "adjusted": _pack(adjusted[order], _REAL),
        "directions": directions,
    }


def read_outcomes(packed: Mapping[str, Any]) -> Outcomes:
    """Return what ``pack_outcomes`` packed.

    Raises: DataError if it is not that.
    """
    try:
        count = int(packed["instances"])
        adjusted = _unpack(packed["adjusted"], _REAL, count).astype(np.float64)
        groups = np.arange(count) if packed["groups"] is None else _unpack(packed["groups"], _WHOLE, count)
        _check(((groups >= 0) & (groups < count)).all(), "groups beyond the instances")
        ranks = {}
        for name, found in packed["directions"].items():
            better, tied = (_unpack(found[key], _WHOLE, count).astype(np.int64) for key in ("better", "tied"))
            rows = np.flatnonzero(better >= 0)
            gallery = int(found["gallery"])
            inside = (tied[rows] >= 0) & (better[rows] + tied[rows] < gallery) & (gallery <= count)
            _check(len(rows) and inside.all(), f"ranks of {name} beyond the gallery")
            ranks[name] = Ranks(rows, better[rows], tied[rows], gallery)
        return Outcomes(str(packed["ids_sha256"]), groups.astype(np.int64), adjusted, ranks)
    except (KeyError, TypeError, ValueError, AttributeError, zlib.error) as error:
        what = "outcomes of a diagnosis cannot be read"
        raise DataError(
            what,
            found=f"{type(error).__name__}: {error}",
            expected="what pmrl diagnose --json writes",
            next_step="Write that diagnosis anew.",
        ) from None


def _check(fine: object, message: str) -> None:
    if not fine:
        raise ValueError(message)


def _pack(values: npt.NDArray[Any], kind: np.dtype[Any]) -> str:
    return base64.b64encode(zlib.compress(values.astype(kind).tobytes(), 9)).decode("ascii")


def _unpack(text: str, kind: np.dtype[Any], count: int) -> npt.NDArray[Any]:
    size = count * kind.itemsize
    inflate = zlib.decompressobj()
    content = inflate.decompress(base64.b64decode(text, validate=True), size + 1)  # no further, whatever it holds
    _check(len(content) == size, f"{len(content)} bytes for {count} instances")
    return np.frombuffer(content, dtype=kind)
