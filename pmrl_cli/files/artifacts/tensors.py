"""The safetensors door: named torch tensors to bytes and back, nothing executed, nothing unexpected accepted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from pmrl_cli.errors import DataError, Place, ResourceError

__all__ = ["read_tensors", "write_tensors"]


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors by name; equal tensors give equal bytes.

    Raises: ResourceError if the file cannot be written, as on a full disk.
    """
    try:
        save_file({name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}, path)
    except SafetensorError as error:
        what = "file cannot be written"
        raise ResourceError(
            what,
            at=Place(str(path)),
            found=str(error).splitlines()[0],
            expected="room on the disk",
            next_step="Free some, or choose another -o.",
        ) from None


def read_tensors(content: bytes, path: Path, expected: set[str] | None = None) -> dict[str, Tensor]:
    """Read tensors by name.

    Args:
        content: of a safetensors file.
        path: of that file, for the error.
        expected: the names that must be there, no more and no fewer; None accepts any.

    Raises: DataError if the file cannot be read, its names differ, or a floating tensor is not finite.
    """
    what = "unreadable tensors"
    try:
        tensors = load(content)
    except (SafetensorError, ValueError) as error:
        raise DataError(
            what,
            at=Place(str(path)),
            found=str(error).splitlines()[0],
            expected="a complete safetensors file",
            next_step="Fit again, or restore the file.",
        ) from None
    if expected is not None and set(tensors) != expected:
        difference = ", ".join(sorted(set(tensors) ^ expected)[:5])
        raise DataError(
            what,
            at=Place(str(path)),
            found=f"names that differ: {difference}",
            expected="exactly the tensors its config names",
            next_step="Fit again, or restore the file.",
        )
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise DataError(
                what,
                at=Place(str(path), name),
                found="values that are not finite",
                expected="finite weights",
                next_step="Fit again, or restore the file.",
            )
    return tensors
