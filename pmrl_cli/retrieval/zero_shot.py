"""Zero-shot classification: each instance asks which of the classes, given as vectors of the space, it is of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from pmrl_cli.data.columns import column_of, places_among
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.errors import DataError, UsageError, named
from pmrl_cli.fusion import fuse
from pmrl_cli.retrieval.batches import read_batch
from pmrl_cli.retrieval.ranks import Ranks
from pmrl_cli.retrieval.tally import TIE_BAND

__all__ = ["FUSED", "classes_of", "rank_classes", "split_off_classes"]

FUSED = "fused"
"""Name of what asks with all modalities of an instance."""


def split_off_classes(dataset: Dataset, name: str) -> tuple[Dataset, Dataset]:
    """Return the instances without a modality whose instances are classes, and those classes.

    Args:
        dataset: instances and classes, by id.
        name: the modality of the classes.

    Raises: UsageError if there is no such modality, or no other one.
    """
    if name not in dataset.names or len(dataset.names) < 2:
        raise UsageError(
            what="no modality of classes",
            found=f"--classes {name} and the modalities {', '.join(dataset.names)}",
            expected="one modality of classes and one or more of instances",
            next_step=f"Name the file whose ids are the classes, as in {name}=prompts.npz.",
        )
    own = dataset.names.index(name)
    others = [m for m in range(len(dataset.names)) if m != own]
    return _part(dataset, others), _part(dataset, [own])


def _part(dataset: Dataset, modalities: list[int]) -> Dataset:
    """Return some modalities of the instances that have one of them."""
    present = dataset.present[:, modalities]
    rows = np.flatnonzero(present.any(1))
    features = (dataset.modalities[m] for m in modalities)
    return Dataset(
        dataset.ids.take(rows),
        tuple(replace(one, rows=rows if one.rows is None else one.rows[rows], digest="") for one in features),
        present[rows],
        {key: column.take(rows) for key, column in dataset.columns.items()},
        dataset.named_by_row,
        dataset.notes,
        None if dataset.hashes is None else dataset.hashes[rows][:, modalities],
    )


def classes_of(dataset: Dataset, label: str | None, classes: Dataset) -> npt.NDArray[np.int64]:
    """Return (n,) which row of the classes each instance is of, -1 for none: its label is the id of its class.

    Raises: UsageError without a column of labels; DataError if no label is the id of a class, or the classes are not
        of one modality in the space of the instances.
    """
    if label is None:
        raise UsageError(
            what="classes without labels",
            found="no side column of labels",
            expected="one that holds the id of each instance's class",
            next_step="Name it with --label, and its file with --labels.",
        )
    if classes.dims != dataset.dims[:1]:
        raise DataError(
            what="classes are not in the space of the instances",
            found=f"{', '.join(classes.names)} of {', '.join(map(str, classes.dims))} columns",
            expected=f"one modality of {dataset.dims[0]}",
            next_step="Pass --model MODEL, or classes of the same encoder.",
        )
    codes = places_among(dataset, label, classes.ids)
    if not (codes >= 0).any():
        labels = column_of(dataset, label).drop_null().unique()[:3].to_pylist()
        raise DataError(
            what=f"no label is the id of a class of {classes.names[0]}",
            found=f"labels {', '.join(map(str, labels)) or 'none'}; ids {named(classes.ids[:3].to_pylist())}",
            expected="labels that are ids of classes",
            next_step="Write both alike, or choose another column with --label.",
        )
    return codes


def rank_classes(
    dataset: Dataset, classes: Dataset, codes: npt.NDArray[np.int64], *, fusion: str = "leading"
) -> dict[str, Ranks]:
    """Rank the class of each instance among all classes, by cosine.

    Args:
        dataset: instances in the space of the classes.
        classes: of one modality.
        codes: (n,) row of the class of each instance, -1 for none: it does not ask.
        fusion: how the modalities of an instance ask together (``pmrl_cli.fusion``).

    Returns: by modality, and ``fused`` where there are several; one that nothing asks with is absent.
    """
    vectors = read_batch(classes, slice(0, len(classes))).embeddings[:, 0]
    asking = [*dataset.names, *([FUSED] if len(dataset.names) > 1 else [])]
    found: dict[str, list[tuple[npt.NDArray[np.int64], torch.Tensor, torch.Tensor]]] = {name: [] for name in asking}
    for rows in dataset.blocks(np.flatnonzero(codes >= 0)):
        batch = read_batch(dataset, rows)
        own = torch.from_numpy(codes[batch.rows])
        for m, name in enumerate(asking):
            fused = m == len(dataset.names)
            has = batch.present.any(1) if fused else batch.present[:, m]
            sources = fuse(batch.embeddings, batch.present, fusion) if fused else batch.embeddings[:, m]
            scores = sources[has] @ vectors.mT
            right = scores.gather(1, own[has, None])
            above = (scores > right + TIE_BAND).sum(1)
            ties = ((scores - right).abs() <= TIE_BAND).sum(1) - 1
            found[name].append((batch.rows[has.numpy()], above, ties))
    return {
        name: Ranks(
            np.concatenate([rows for rows, _, _ in parts]),
            torch.cat([above for _, above, _ in parts]).numpy(),
            torch.cat([ties for _, _, ties in parts]).numpy(),
            len(classes),
        )
        for name, parts in found.items()
        if any(len(rows) for rows, _, _ in parts)
    }
