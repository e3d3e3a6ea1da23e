"""How FILES are read: the same options for every command and for ``read_dataset``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pmrl_cli.flags import flag, parse_bytes

__all__ = ["ReadOptions"]


@dataclass(frozen=True)
class ReadOptions:
    """How FILES become a data set.

    Args:
        join: ``inner`` keeps the instances that every modality has, ``outer`` those that ``min_modalities`` have.
        on_bad: what a row with NaN or Inf inside, or of no length, does: ``error`` stops, ``drop`` leaves its
            instance out, ``missing`` leaves its instance without that modality.
        id_column: datasets or columns that hold the ids: the first of them that a file has, else the usual names;
            ``NAME=COLUMN`` is for one modality.
        id_pattern: what of an id is the id: regular expressions (RE2) with one group, each of which fits whole ids;
            ``NAME=REGEX`` is for one modality. Ids of side tables are taken so where one fits.
        on_repeat: what an id that names several rows of a modality is: ``error``; ``pair``, an instance for each row,
            which share the rows of the other modalities; ``mean`` or ``first``, one instance with the mean of the
            rows or the first.
        ids: file with one id a row, for features without any.
        by_row: row i of every file is instance i, whatever ids the files hold.
        feature_column: dataset or column that holds the vectors, None to go by the names; of a table also several
            numeric columns, with commas between or as a pattern such as ``f*``.
        pool: how several vectors of one instance become one; None refuses them.
        components: of the truncated SVD that a sparse matrix is read as; None refuses it.
        labels: side table with labels, groups or a split by id; ``FILE#column`` takes one column of it.
        max_memory: bytes that feature arrays may take in memory; None is half of what is available.
        min_modalities: fewer modalities than this are an error, and fewer of an instance leave it out.
    """

    PANEL: ClassVar = "Reading files"

    labels: Path | None = flag(
        None, "--labels", help="Side table (Parquet, HDF5 or CSV) with an id column and labels or groups."
    )
    join: Literal["inner", "outer"] = flag(
        "outer", "--join", help="Keep instances in all modalities, or in two or more."
    )
    on_bad: Literal["error", "drop", "missing"] = flag(
        "error", "--on-bad", help="Rows with NaN, Inf or no length: stop, drop the instance, or take as missing."
    )
    on_repeat: Literal["error", "pair", "mean", "first"] = flag(
        "error", "--on-repeat", help="Rows of one id: stop, an instance for each, their mean, or the first."
    )
    id_column: tuple[str, ...] = flag(
        (), "--id-column", metavar="[NAME=]COLUMN", help="Dataset or column of the ids; repeatable."
    )
    id_pattern: tuple[str, ...] = flag(
        (),
        "--id-pattern",
        metavar="[NAME=]REGEX",
        help="What of an id is the id: the group of a pattern, as in '(.+)-[^-]*'; repeatable.",
    )
    ids: Path | None = flag(None, "--ids", help="File with one id a row (npy or text), for features without ids.")
    by_row: bool = flag(False, "--by-row", help="Row i of every file is one instance, whatever ids they hold.")
    feature_column: str | None = flag(
        None, "--feature-column", help="Dataset or column of the vectors; numeric columns as A,B,C or 'f*'."
    )
    pool: Literal["mean", "max", "first"] | None = flag(
        None, "--pool", help="Make one vector of several per instance (frames, patches, tokens)."
    )
    components: int | None = flag(
        None,
        "--components",
        help="Read sparse matrices as their truncated SVD to so many columns.",
        metavar="N",
        min=1,
    )
    max_memory: int | None = flag(
        None,
        "--max-memory",
        help="Memory for feature arrays, e.g. 8G; beyond it they live on disk.",
        metavar="TEXT",
        parse=parse_bytes,
    )
    min_modalities: int = 2

    def __post_init__(self) -> None:
        for name in ("id_column", "id_pattern"):
            if isinstance(getattr(self, name), str):  # one, as it is written most often in Python
                object.__setattr__(self, name, (getattr(self, name),))
        for name in ("labels", "ids"):
            if isinstance(getattr(self, name), str):
                object.__setattr__(self, name, Path(getattr(self, name)))

    def as_settings(self) -> dict[str, object]:
        """Return the options that decide what is read, as a config file names them; None where not given."""
        return {
            "join": self.join,
            "on_bad": self.on_bad,
            "on_repeat": self.on_repeat,
            "id_column": list(self.id_column) or None,
            "id_pattern": list(self.id_pattern) or None,
            "ids": None if self.ids is None else str(self.ids),
            "by_row": self.by_row or None,
            "feature_column": self.feature_column,
            "pool": self.pool,
            "components": self.components,
        }
