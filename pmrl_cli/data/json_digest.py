"""JSON values that carry a digest of themselves: a later change shows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

__all__ = ["DIGEST", "digest_of", "with_digest"]

DIGEST = "digest"
"""The key of it."""


def digest_of(values: Mapping[str, Any]) -> str:
    """Return the SHA-256 of an object without its digest, whatever the order of its keys and its white space.

    Args:
        values: JSON values, no NaN among them.
    """
    others = {name: value for name, value in values.items() if name != DIGEST}
    return sha256(json.dumps(others, sort_keys=True, allow_nan=False, separators=(",", ":")).encode()).hexdigest()


def with_digest(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object with the digest of the rest of it."""
    return {**values, DIGEST: digest_of(values)}
