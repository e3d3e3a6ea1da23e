"""AnnData (``.h5ad``) and MuData (``.h5mu``) in HDF5."""

from __future__ import annotations

from pathlib import Path

import h5py

from pmrl_cli.files.formats.annotated import annotated
from pmrl_cli.files.formats.contents import Contents, ProbeOptions, reading
from pmrl_cli.files.formats.hdf5 import Hdf5Tree

__all__ = ["probe"]


def probe(path: Path, options: ProbeOptions) -> Contents:
    """Return what an AnnData or MuData file holds.

    Raises: DataError if it cannot be read; PolicyError for a declared size out of proportion to what is stored.
    """
    with reading(str(path)), h5py.File(path) as file:
        return annotated(Hdf5Tree(path, file), options)
