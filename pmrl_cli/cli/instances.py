"""The tables of instances that ``pmrl diagnose`` writes: one second pass over the data for both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pmrl_cli.errors import UsageError

if TYPE_CHECKING:
    from pmrl_cli.data.dataset import Dataset
    from pmrl_cli.data.instances import InstanceRows
    from pmrl_cli.diagnosis import Mispairs

__all__ = ["check_outputs", "write_tables"]


def check_outputs(per_instance: Path | None, suspects: Path | None, *, force: bool) -> None:
    """Refuse outputs that would replace something else, before any work is done."""
    if per_instance is None and suspects is None:
        return
    from pmrl_cli.files.artifacts.suspects import INSTANCES, SUSPECTS_HEADER
    from pmrl_cli.files.durable.outputs import check_file

    if per_instance is not None:
        check_file(per_instance, INSTANCES.encode(), force=force)
    if suspects is not None:
        check_file(suspects, SUSPECTS_HEADER.encode(), force=force)


def write_tables(
    dataset: Dataset, mispairs: Mispairs | None, per_instance: Path | None, suspects: Path | None
) -> int:
    """Write the tables that are asked for.

    Args:
        dataset: the one that was diagnosed.
        mispairs: of its diagnosis.
        per_instance: Parquet of all instances with two modalities or more, or None.
        suspects: CSV of those that are mispaired rather than not, most suspect first, or None.

    Returns: how many suspects there are.
    Raises: UsageError if the modalities do not share a space.
    """
    if mispairs is None:
        raise UsageError(
            what="instances cannot be scored one by one",
            found="modalities of different columns",
            expected="modalities that share a space",
            next_step="Fit adapters with pmrl fit and pass --model MODEL.",
        )
    from pmrl_cli.diagnosis import FLAGGED
    from pmrl_cli.files.artifacts.suspects import write_instances, write_suspects

    flagged: list[tuple[str, str, float, float]] = []

    def blocks() -> Iterator[InstanceRows]:
        for block in mispairs.instances(dataset):
            flagged.extend(
                (block.ids[i].as_py(), block.suspect_modality[i], float(block.score[i]), float(block.probability[i]))
                for i in (block.probability >= FLAGGED).nonzero()[0].tolist()
            )
            yield block

    if per_instance is not None:
        write_instances(per_instance, dataset.names, blocks())
    else:
        for _ in blocks():
            pass
    if suspects is not None:
        write_suspects(suspects, sorted(flagged, key=lambda one: (-one[2], one[0])))
    return len(flagged)
