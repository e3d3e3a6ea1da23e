"""Aligned vectors put into a file of AnnData (``.h5ad``) or MuData (``.h5mu``), the rest of it unchanged.

The vectors become arrays of ``obsm``, one row for each observation, NaN where there is none:

* ``.h5ad``: ``X_pmrl_<modality>`` for each modality and ``X_pmrl``, fused;
* ``.h5mu``: ``X_pmrl`` in the ``obsm`` of each modality of that name and, fused, in that of the file.

The file is copied, the copy changed in a process of its own (a malformed file can crash the HDF5 library), and put in
its place when it is complete: a reader sees the earlier file or the new one.

Source: the on-disk format of AnnData 0.12 ("dict" and "array" elements, versions 0.1.0 and 0.2.0).
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pmrl_cli.data.dataset import EmbeddedBlock
from pmrl_cli.errors import DataError, Place, UsageError
from pmrl_cli.files.durable.atomic import atomic_file
from pmrl_cli.files.formats.sandbox_client import environment

__all__ = ["KEY", "check_into", "put_into"]

KEY = "X_pmrl"

_SUFFIXES = (".h5ad", ".h5mu")


def check_into(path: Path) -> None:
    """Refuse what is no file of AnnData or MuData, by its name.

    Raises: UsageError.
    """
    if path.suffix not in _SUFFIXES or not path.is_file() or path.is_symlink():
        raise UsageError(
            what="not a file to put vectors into",
            at=Place(str(path)),
            found="no regular file" if path.suffix in _SUFFIXES else f"suffix {path.suffix!r}",
            expected="a file that is there, of AnnData (.h5ad) or MuData (.h5mu)",
            next_step="Name one with --into, or write a folder with -o.",
        )


def put_into(
    path: Path, blocks: Iterable[EmbeddedBlock], names: Sequence[str], size: tuple[int, int]
) -> dict[str, int]:
    """Put the vectors of some instances into a file.

    Args:
        path: the file; the names of its observations are the ids of the instances.
        blocks: the instances, in any number of blocks.
        names: their modalities.
        size: how many instances there are, and the dimension of the space.

    Returns: how many observations have a vector, by the place of the array in the file.

    Raises: DataError if the file cannot be read as what its name says, if an instance of a MuData file has a modality
        that the file has not, or if no observation is an instance.
    """
    with tempfile.TemporaryDirectory() as folder, atomic_file(path) as working:
        _store(Path(folder), blocks, names, size)
        shutil.copyfile(path, working)
        # -P, so that no module is taken from the folder the command runs in.
        command = [sys.executable, "-P", "-m", __name__, path.suffix, str(working), folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment())
        answer: dict[str, Any] = (
            json.loads(done.stdout)
            if done.returncode == 0
            else {"found": f"the HDF5 library stopped ({done.returncode})"}
        )
        if "found" in answer:
            raise DataError(
                what="vectors cannot be put into the file",
                at=Place(str(path)),
                found=answer["found"],
                expected=answer.get("expected", "a whole file of AnnData or MuData"),
                next_step="Check the file with pmrl inspect, or write a folder with -o.",
            )
        written: dict[str, int] = answer["written"]
    return written


def _store(folder: Path, blocks: Iterable[EmbeddedBlock], names: Sequence[str], size: tuple[int, int]) -> None:
    """Store the vectors where the other process finds them: an array for each modality, then the fused one."""
    arrays = [
        np.lib.format.open_memmap(folder / f"{m}.npy", mode="w+", dtype=np.float32, shape=size)
        for m in range(len(names) + 1)
    ]
    ids: list[str] = []
    for block in blocks:
        rows = slice(len(ids), len(ids) + len(block.ids))
        for m in range(len(names)):
            arrays[m][rows] = np.where(block.present[:, [m]], block.embeddings[:, m], np.nan)
        arrays[-1][rows] = np.where(block.present.any(axis=1, keepdims=True), block.fused, np.nan)
        ids += block.ids.to_pylist()
    for array in arrays:
        array.flush()
    (folder / "index.json").write_text(json.dumps({"ids": ids, "names": list(names)}), encoding="utf-8")


class _UnfitError(Exception):
    """What was found in the file, and what was expected."""


def _observations(group: object, where: str) -> list[str]:
    import h5py

    obs = group.get("obs") if isinstance(group, h5py.Group) else None
    if not isinstance(obs, h5py.Group) or "_index" not in obs.attrs:
        raise _UnfitError(f"no obs with an index in {where}")
    index = obs.get(obs.attrs["_index"])
    if isinstance(index, h5py.Group):  # nullable strings are values beside a mask
        index = index.get("values")
    if not isinstance(index, h5py.Dataset) or index.ndim != 1:
        raise _UnfitError(f"an index of obs that is no list in {where}")
    return [value.decode() if isinstance(value, bytes) else str(value) for value in index[:]]


def _insert(group: object, where: str, key: str, vectors: np.ndarray, rows: dict[str, int]) -> int:
    """Write one array of ``obsm``, and return for how many observations there is a vector."""
    observations = _observations(group, where)
    positions = np.array([rows.get(name, -1) for name in observations], dtype=np.int64)
    matrix = np.full((len(observations), vectors.shape[1]), np.nan, dtype=np.float32)
    matrix[positions >= 0] = vectors[positions[positions >= 0]]
    obsm = group.require_group("obsm")  # type: ignore[attr-defined]
    obsm.attrs.setdefault("encoding-type", "dict")
    obsm.attrs.setdefault("encoding-version", "0.1.0")
    if key in obsm:  # of an earlier call
        del obsm[key]
    dataset = obsm.create_dataset(key, data=matrix)
    dataset.attrs["encoding-type"] = "array"
    dataset.attrs["encoding-version"] = "0.2.0"
    return int((~np.isnan(matrix).any(axis=1)).sum())


def _change(suffix: str, path: str, folder: Path) -> dict[str, int]:
    import h5py

    asked = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    names = asked["names"]
    rows = {name: row for row, name in enumerate(asked["ids"])}
    arrays = [np.load(folder / f"{m}.npy", mmap_mode="r") for m in range(len(names) + 1)]
    with h5py.File(path, "r+") as file:
        if suffix == ".h5ad":
            places = [(file, "/", f"{KEY}_{name}") for name in names]
        else:
            modalities = file.get("mod")
            missing = [name for name in names if modalities is None or name not in modalities]
            if missing:
                raise _UnfitError(f"no modality {', '.join(missing)}")
            places = [(modalities[name], f"/mod/{name}", KEY) for name in names]
        places.append((file, "/", KEY))
        written = {
            f"{where.rstrip('/')}/obsm/{key}": _insert(group, where, key, array, rows)
            for (group, where, key), array in zip(places, arrays, strict=True)
        }
    if not any(written.values()):
        raise _UnfitError("no observation whose name is the id of an instance")
    return written


def main() -> None:
    """Change the copy that the command line names, and print what was written or found."""
    suffix, path, folder = sys.argv[1:]
    try:
        answer: dict[str, object] = {"written": _change(suffix, path, Path(folder))}
    except _UnfitError as error:
        answer = {"found": str(error)}
    except OSError as error:
        answer = {"found": " ".join(str(error).split())[:160]}
    print(json.dumps(answer))  # noqa: T201 - the answer to the process that started this one


if __name__ == "__main__":
    main()
