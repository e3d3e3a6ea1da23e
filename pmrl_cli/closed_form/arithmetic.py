"""Where closed forms compute: NumPy on the CPU, with torch's decompositions, and torch on another device.

Closed forms are written once, for arrays of either: operators, slices, ``.T`` and ``.sum(axis=...)`` are spelled
alike, and so are the functions of ``xp``. What differs is here. Products are rounded to float32 or float64
everywhere: TF32 is off for them. What is stored or sent to another process is NumPy's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pmrl_cli.closed_form.leading import leading_eigenvectors
from pmrl_cli.data.dataset import Features, Rows
from pmrl_cli.files.durable.scratch import Scratch

__all__ = ["CPU", "Arithmetic", "Array", "arithmetic_of", "arithmetic_on", "as_tensor", "has_room"]

Array: TypeAlias = Any
"""A NumPy array or a tensor, of the arithmetic that it is given to."""

KEPT_FREE = 0.4
"""Share of a device's memory that components leave to training."""


class Arithmetic(Protocol):
    """What NumPy and torch do not spell alike."""

    @property
    def xp(self) -> ModuleType:
        """The module of the functions that they do."""
        ...

    @property
    def column_rows(self) -> int:
        """Rows of which a float64 copy is made at once."""
        ...

    def read(self, features: Features, rows: Rows) -> Array:
        """Return rows of a modality as a new float32 array."""
        ...

    def send(self, array: npt.NDArray[Any]) -> Array:
        """Return a NumPy array where this arithmetic computes."""
        ...

    def fetch(self, array: Array) -> npt.NDArray[Any]:
        """Return an array as NumPy's: waits for the device."""
        ...

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:  # noqa: ANN401 - of xp
        """Return an uninitialised array."""
        ...

    def zeros(self, *shape: int) -> Array:
        """Return zeros, float64."""
        ...

    def banks(self, scratch: Scratch, rows: int, widths: Sequence[int]) -> tuple[Array, ...]:
        """Return uninitialised float32 arrays for the components of many instances, one a modality.

        On the device, or NumPy's where that has no room for all of them (``has_room``).
        """
        ...

    def chosen(self, array: Array, mask: npt.NDArray[np.bool_]) -> Array:
        """Return the rows of an array that a mask chooses."""
        ...

    def cast(self, array: Array, dtype: Any) -> Array:  # noqa: ANN401 - of xp
        """Return an array in another type, itself if it is of that."""
        ...

    def double(self, array: Array) -> Array:
        """Return a new float64 array."""
        ...

    def clip(self, array: Array, least: float, most: float | None = None) -> Array:
        """Bring what an array holds between two numbers, in place, and return it."""
        ...

    def epsilon(self, array: Array) -> float:
        """Return the rounding of the type of an array."""
        ...

    def product(self, first: Array, second: Array) -> Array:
        """Return the product of two matrices, rounded as their type says."""
        ...

    def eigh(self, matrix: Array) -> tuple[Array, Array]:
        """Return the eigenvalues of a symmetric matrix, ascending, and its eigenvectors as columns."""
        ...

    def leading_eigenvectors(self, matrix: Array, count: int, rank: int | None = None) -> tuple[Array, Array]:
        """Return the ``count`` largest eigenvalues, descending, and their eigenvectors; overwrites the matrix.

        ``rank``: at most that of a positive semidefinite matrix, where it is known.
        """
        ...

    def cholesky(self, matrix: Array) -> Array:
        """Return the lower factor of a positive definite matrix."""
        ...

    def solve_lower(self, lower: Array, right: Array, *, transposed: bool = False) -> Array:
        """Return the inverse of a lower triangular matrix, or of its transpose, times another matrix."""
        ...


class _Numpy:
    xp: ClassVar[ModuleType] = np
    column_rows: ClassVar[int] = 128  # some hundred float64 columns of them stay in cache

    def read(self, features: Features, rows: Rows) -> Array:
        if features.array.dtype == np.float16 and isinstance(rows, np.ndarray):
            # The same numbers in a third of the time of NumPy's conversion (docs/speed.md).
            return torch.from_numpy(features.stored(rows)).float().numpy()
        return features.read(rows)

    def send(self, array: npt.NDArray[Any]) -> Array:
        return array

    def fetch(self, array: Array) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = array
        return found

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:  # noqa: ANN401
        return np.empty(shape, dtype)

    def zeros(self, *shape: int) -> Array:
        return np.zeros(shape)

    def banks(self, scratch: Scratch, rows: int, widths: Sequence[int]) -> tuple[Array, ...]:
        return tuple(scratch.empty((rows, width)) for width in widths)

    def chosen(self, array: Array, mask: npt.NDArray[np.bool_]) -> Array:
        return array if mask.all() else array[mask]

    def cast(self, array: Array, dtype: Any) -> Array:  # noqa: ANN401
        return array.astype(dtype, copy=False)

    def double(self, array: Array) -> Array:
        return array.astype(np.float64)

    def clip(self, array: Array, least: float, most: float | None = None) -> Array:
        return array.clip(least, most, out=array)  # np.clip takes twice as long to call

    def epsilon(self, array: Array) -> float:
        return float(np.finfo(array.dtype).eps)

    def product(self, first: Array, second: Array) -> Array:
        return first @ second

    # Torch's LAPACK takes a fifth to a third less time than that of NumPy and SciPy.
    def eigh(self, matrix: Array) -> tuple[Array, Array]:
        values, vectors = torch.linalg.eigh(as_tensor(matrix))
        return values.numpy(), vectors.numpy()

    def leading_eigenvectors(self, matrix: Array, count: int, rank: int | None = None) -> tuple[Array, Array]:
        return leading_eigenvectors(matrix, count, rank)

    def cholesky(self, matrix: Array) -> Array:
        return torch.linalg.cholesky(as_tensor(matrix)).numpy()

    def solve_lower(self, lower: Array, right: Array, *, transposed: bool = False) -> Array:
        given = as_tensor(lower).mT if transposed else as_tensor(lower)
        return torch.linalg.solve_triangular(given, as_tensor(right), upper=transposed).numpy()


CPU: Arithmetic = _Numpy()


@dataclass(frozen=True)
class _Torch:
    """The arithmetic of torch on a device.

    Nothing but ``fetch`` copies from the device, and nothing else here waits for it, but the decompositions: they say
    through the host whether they succeeded.

    Args:
        device: where.
    """

    device: torch.device
    xp: ClassVar[ModuleType] = torch
    column_rows: ClassVar[int] = 2**16

    def read(self, features: Features, rows: Rows) -> Array:
        # As stored: float16 is half of what float32 would be on the way, and is converted there.
        stored = self.send(features.stored(rows))
        if features.bfloat16:
            stored = stored.view(torch.bfloat16)
        return stored.float()

    def send(self, array: npt.NDArray[Any]) -> Array:
        if not array.flags.writeable or min(array.strides, default=0) < 0:
            array = array.copy()  # torch takes no other
        tensor = torch.from_numpy(array)
        if self.device.type != "cuda":
            return tensor.to(self.device)
        # Pinned memory is used again only when the copy is over: torch's allocator of it waits for that.
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def fetch(self, array: Array) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = array.cpu().numpy()
        return found

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:  # noqa: ANN401
        return torch.empty(shape, dtype=dtype, device=self.device)

    def zeros(self, *shape: int) -> Array:
        return torch.zeros(shape, dtype=torch.float64, device=self.device)

    def banks(self, scratch: Scratch, rows: int, widths: Sequence[int]) -> tuple[Array, ...]:
        if has_room(self.device, 4 * rows * sum(widths)):
            return tuple(self.empty((rows, width), torch.float32) for width in widths)
        return CPU.banks(scratch, rows, widths)

    def chosen(self, array: Array, mask: npt.NDArray[np.bool_]) -> Array:
        return array if mask.all() else array[self.send(np.flatnonzero(mask))]

    def cast(self, array: Array, dtype: Any) -> Array:  # noqa: ANN401
        return array.to(dtype)

    def double(self, array: Array) -> Array:
        return array.to(torch.float64, copy=True)

    def clip(self, array: Array, least: float, most: float | None = None) -> Array:
        return array.clip_(least, most)

    def epsilon(self, array: Array) -> float:
        return torch.finfo(array.dtype).eps

    def product(self, first: Array, second: Array) -> Array:
        with _without_tf32():
            return first @ second

    def eigh(self, matrix: Array) -> tuple[Array, Array]:
        values, vectors = torch.linalg.eigh(matrix)
        return values, vectors

    def leading_eigenvectors(self, matrix: Array, count: int, rank: int | None = None) -> tuple[Array, Array]:
        values, vectors = torch.linalg.eigh(matrix)  # there is no driver for a part of them
        return values[-count:].flip(0), vectors[:, -count:].flip(1)

    def cholesky(self, matrix: Array) -> Array:
        return torch.linalg.cholesky(matrix)

    def solve_lower(self, lower: Array, right: Array, *, transposed: bool = False) -> Array:
        return torch.linalg.solve_triangular(lower.mT if transposed else lower, right, upper=transposed)


def arithmetic_on(device: torch.device) -> Arithmetic:
    """Return the arithmetic of a device."""
    return CPU if device.type == "cpu" else _Torch(device)


def arithmetic_of(array: Array) -> Arithmetic:
    """Return the arithmetic that an array belongs to."""
    return CPU if isinstance(array, np.ndarray) else _Torch(array.device)


def as_tensor(array: Array) -> Tensor:
    """Return an array as a tensor that shares its memory."""
    return array if isinstance(array, Tensor) else torch.from_numpy(array)


def has_room(device: torch.device, size: int) -> bool:
    """Return whether components of ``size`` bytes may be on a device: ``KEPT_FREE`` of its memory stays free."""
    if device.type != "cuda":
        return True
    free, total = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return size <= free - KEPT_FREE * total


@contextmanager
def _without_tf32() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
