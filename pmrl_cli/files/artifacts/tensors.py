"""Named torch tensors to safetensors and back: nothing is executed, nothing unexpected accepted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import Tensor

from pmrl_cli.errors import DataError, Place
from pmrl_cli.files.artifacts.disk import disk_errors

__all__ = ["read_tensors", "write_tensors"]


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write tensors by name; equal tensors give equal bytes.

    Raises: ResourceError if the file cannot be written, as on a full disk.
    """
    contiguous = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    with disk_errors(path):
        save_file(contiguous, path)


def read_tensors(content: bytes, path: Path) -> dict[str, Tensor]:
    """Read tensors by name.

    Args:
        content: of a safetensors file.
        path: of that file, for the error.

    Raises: DataError if the file cannot be read or a floating tensor is not finite.
    """
    try:
        tensors = load(content)
    except (SafetensorError, ValueError) as error:
        raise DataError(
            what="unreadable tensors",
            at=Place(str(path)),
            found=str(error).splitlines()[0],
            expected="a complete safetensors file",
            next_step="Fit again, or restore the file.",
        ) from None
    for name, tensor in tensors.items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise DataError(
                what="unreadable tensors",
                at=Place(str(path), name),
                found="values that are not finite",
                expected="finite weights",
                next_step="Fit again, or restore the file.",
            )
    return tensors
