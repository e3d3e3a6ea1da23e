"""Entries of a data set that are to be left out: instances, or single modalities of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.join import rows_of
from pmrl_cli.data.validate import SHOWN
from pmrl_cli.errors import DataError, Place

__all__ = ["PAIR", "Exclusions"]

PAIR = "|"
"""Between modalities of which one is wrong, but not known which: then all of them are left out."""


@dataclass(frozen=True)
class Exclusions:
    """What a list leaves out.

    Args:
        file: the list, as the user typed it.
        ids: (n,) Arrow large_string; an id may stand in it for several modalities.
        modalities: of each id, a modality or several with ``PAIR`` between; None for the whole instance.
    """

    file: str
    ids: pa.LargeStringArray
    modalities: tuple[str | None, ...]

    def mask(self, dataset: Dataset) -> npt.NDArray[np.bool_]:
        """Return (n, k): the entries of a data set that are left out.

        Raises: DataError for a modality the data set has not, or if it has none of the ids.
        """
        rows = rows_of(dataset.ids, self.ids)
        excluded = np.zeros(dataset.present.shape, dtype=np.bool_)
        columns = {name: self._columns(dataset, name) for name in dict.fromkeys(self.modalities)}
        for row, modality in zip(rows.tolist(), self.modalities, strict=True):
            if row >= 0:
                excluded[row, columns[modality]] = True
        if len(rows) and not (rows >= 0).any():
            raise DataError(
                what="none of the instances to exclude is in the data",
                at=Place(self.file, instance_id=str(self.ids[0])),
                found=f"{len(rows)} ids, none of them in the data",
                expected="ids of these instances",
                next_step="Give the list that pmrl diagnose --suspects wrote for these files.",
            )
        return excluded & dataset.present

    def _columns(self, dataset: Dataset, modality: str | None) -> list[int]:
        if not modality:
            return list(range(len(dataset.names)))
        names = [modality] if modality in dataset.names else modality.split(PAIR)
        unknown = [name for name in names if name not in dataset.names]
        if unknown:
            at = [row for row, name in enumerate(self.modalities) if name == modality]
            places = [Place(self.file, row=row, instance_id=self.ids[row].as_py()) for row in at[:SHOWN]]
            raise DataError(
                what="unknown modality to exclude",
                at=places[0],
                others=places[1:],
                total=len(at),
                found=repr(unknown[0]),
                expected=f"one of {', '.join(dataset.names)}, or nothing for the whole instance",
                next_step="Fix the list.",
            )
        return [dataset.names.index(name) for name in names]
