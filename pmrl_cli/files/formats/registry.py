"""The formats that pmrl reads: one file each, behind one protocol and one registry.

To add one: write its file with a function ``probe(path, options) -> Contents`` that reads no feature, and add its
line to ``FORMATS``. It is found by its suffix, or, if it is a folder, by ``sniff``.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pmrl_cli.errors import UsageError

if TYPE_CHECKING:
    from pmrl_cli.files.formats.contents import Contents, ProbeOptions

__all__ = ["FORMATS", "PER_INSTANCE", "Format", "find", "format_named", "suffixes"]


class Format(NamedTuple):
    """One format.

    Args:
        name: as the reading process is asked for it.
        title: as people call it.
        home: module with its ``probe``, imported where it runs.
        suffixes: of its files, in lower case.
        sniff: whether a folder is one; reads names and small files only. None where it is no folder.
        in_folders: a folder is searched for such files; others are read only if they are named.
        sandboxed: read in the reading process, for its library can be crashed by a malformed file.
        library: what it needs beyond the dependencies of pmrl; the extra of the same name as the format brings it.
    """

    name: str
    title: str
    home: str
    suffixes: tuple[str, ...] = ()
    sniff: Callable[[Path], bool] | None = None
    sandboxed: bool = True
    in_folders: bool = True
    library: str | None = None

    @property
    def probe(self) -> Callable[[Path, ProbeOptions], Contents]:
        """Its probe, in this process.

        Raises: UsageError if its library is not installed.
        """
        if self.library is not None and find_spec(self.library) is None:
            raise UsageError(
                what=f"{self.title} needs more than is installed",
                found=f"no {self.library}",
                expected=f"the extra {self.name!r}",
                next_step=f"Install it with: pip install 'pmrl-cli[{self.name}]'.",
            )
        found: Callable[[Path, ProbeOptions], Contents] = import_module(self.home).probe
        return found


def _is_store(folder: Path) -> bool:
    from pmrl_cli.files.formats.store import STORE, folder_format

    return folder_format(folder) == STORE


def _is_clip_retrieval(folder: Path) -> bool:
    return any(any((folder / part).glob("*.npy")) for part in ("img_emb", "text_emb"))


def _is_lance(folder: Path) -> bool:
    return (folder / "_versions").is_dir() and (folder / "data").is_dir()


def _is_zarr(folder: Path) -> bool:
    return any((folder / name).is_file() for name in (".zgroup", ".zarray", "zarr.json"))


def _is_saved_dataset(folder: Path) -> bool:
    if (folder / "dataset_dict.json").is_file():
        return True
    return (folder / "state.json").is_file() and any(folder.glob("*.arrow"))


_HERE = "pmrl_cli.files.formats."

FORMATS: list[Format] = [
    Format("store", "store", _HERE + "store", sniff=_is_store, sandboxed=False),
    Format("hdf5", "HDF5", _HERE + "hdf5", (".h5", ".hdf5")),
    Format("anndata", "AnnData", _HERE + "anndata", (".h5ad", ".h5mu")),
    Format("mat", "MATLAB", _HERE + "mat", (".mat",)),
    Format("parquet", "Parquet", _HERE + "parquet", (".parquet", ".pq")),
    Format("csv", "CSV", _HERE + "csv", (".csv", ".tsv")),
    Format("json", "JSON", _HERE + "json", (".json",), in_folders=False),
    Format("jsonl", "JSON lines", _HERE + "jsonl", (".jsonl", ".ndjson")),
    Format("arrow", "Arrow", _HERE + "arrow", (".arrow", ".arrows", ".feather", ".ipc")),
    Format("datasets", "Hugging Face datasets", _HERE + "datasets", sniff=_is_saved_dataset),
    Format("clip_retrieval", "clip-retrieval", _HERE + "clip_retrieval", sniff=_is_clip_retrieval),
    Format("lance", "Lance", _HERE + "lance", (".lance",), _is_lance, library="lance"),
    Format("zarr", "zarr", _HERE + "zarr", (".zarr",), _is_zarr, library="zarr"),
    Format("tar", "WebDataset", _HERE + "tar", (".tar",), sandboxed=False),
    Format("word_vectors", "word vectors", _HERE + "word_vectors", (".vec", ".txt", ".bin"), in_folders=False),
    Format("npy", "npy", _HERE + "npy", (".npy",), sandboxed=False),
    Format("npz", "npz", _HERE + "npz", (".npz",), sandboxed=False),
    Format("safetensors", "safetensors", _HERE + "safetensors", (".safetensors",), sandboxed=False),
]

PER_INSTANCE = Format("per_instance", "folder of one file per instance", _HERE + "per_instance")
"""A folder without a name of its own: the join recognises it by what its files hold."""


def find(path: Path) -> Format | None:
    """Return the format of a file or folder, None if it is of none."""
    if path.is_dir():
        return next((one for one in FORMATS if one.sniff is not None and one.sniff(path)), None)
    return next((one for one in FORMATS if path.suffix.lower() in one.suffixes), None)


def format_named(name: str) -> Format:
    """Return the format of a name.

    Raises: KeyError.
    """
    return {one.name: one for one in (*FORMATS, PER_INSTANCE)}[name]


def suffixes(*, in_folders: bool = False) -> list[str]:
    """Return every suffix that is read, or those for which a folder is searched."""
    return [suffix for one in FORMATS for suffix in one.suffixes if one.in_folders or not in_folders]
