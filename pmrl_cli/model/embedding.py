"""Embedding: features of a data set to vectors of the shared space, block by block."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pmrl_cli.batch import Encoded
from pmrl_cli.data.dataset import Dataset, EmbeddedBlock, Features, FloatArray, Rows
from pmrl_cli.data.repeats import hashes_of
from pmrl_cli.data.shards import shard_rows
from pmrl_cli.errors import Place, UsageError
from pmrl_cli.files.durable.scratch import Scratch
from pmrl_cli.fusion import fuse
from pmrl_cli.model.fitted import FittedModel
from pmrl_cli.model.members import together
from pmrl_cli.model.reduction import reduced
from pmrl_cli.process_group import ProcessGroup

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Block", "embed", "embed_dataset", "further_outputs", "read_blocks", "vectors_of"]


_FEW = 16
"""Rows that NumPy embeds sooner than torch."""


class Block(NamedTuple):
    """Some instances of a data set, as a model takes them.

    Args:
        ids: of the B instances.
        present: (B, k) which modalities they have.
        at: where these instances are among the rows of ``features`` and ``mask``.
        features: per modality (R, d_m), R at least B.
        mask: (R, k) presence of those rows, on the device of the model.
    """

    ids: pa.LargeStringArray
    present: npt.NDArray[np.bool_]
    at: slice
    features: list[FloatArray]
    mask: Tensor


def read_blocks(model: FittedModel, dataset: Dataset, rows: Rows | None, device: torch.device) -> Iterator[Block]:
    """Yield the blocks of a data set, and move the model to the device; the next block is read meanwhile."""
    for member in model.members:
        where = next(member.encoder.buffers(), None)
        if where is None or where.device != device:  # asking takes less than moving what is there
            member.encoder.to(device)
    for block, features in dataset.read_ahead(rows):
        present = dataset.present[block]
        at, mask = slice(None), present
        if isinstance(block, slice) and (whole := dataset.block_of(block)) != block:
            # The rounding of a matrix product depends on the row's position and on the number of rows: padded to the
            # full block, a part has the bits of the whole.
            at = slice(block.start - whole.start, block.stop - whole.start)
            features = [_zero_padded(array, at, whole.stop - whole.start) for array in features]
            mask = _zero_padded(present, at, whole.stop - whole.start)
        ids = dataset.ids[block] if isinstance(block, slice) else dataset.ids.take(block)
        yield Block(ids, present, at, list(features), torch.from_numpy(mask).to(device))


def _zero_padded(array: npt.NDArray[Any], at: slice, rows: int) -> npt.NDArray[Any]:
    """Return the array as the rows ``at`` of (rows, ...) zeros."""
    padded = np.zeros((rows, *array.shape[1:]), dtype=array.dtype)
    padded[at] = array
    return padded


def embed(
    model: FittedModel, dataset: Dataset, rows: Rows | None, *, fusion: str, device: torch.device
) -> Iterator[EmbeddedBlock]:
    """Yield the aligned embeddings of a data set; see ``Aligner.embed``."""
    indices = model.indices(dataset)
    for ids, present, at, features, mask in read_blocks(model, dataset, rows, device):
        with torch.inference_mode():
            encoded, unit = _encode(model, indices, features, mask)
            extra = _extra_of(encoded, indices, mask)
            fused = extra.pop("fused") if "fused" in extra else fuse(unit, mask, fusion)
        outputs = {name: output[at].cpu().numpy() for name, output in extra.items()}
        yield EmbeddedBlock(ids, unit[at].cpu().numpy(), present, fused[at].cpu().numpy(), outputs)


def vectors_of(model: FittedModel, dataset: Dataset, device: torch.device) -> FloatArray:
    """Return the (n, k, d) unit vectors of a data set, NaN where missing, without the cost of fusing them."""
    indices = model.indices(dataset)
    vectors = np.empty((len(dataset), len(indices), model.dim), dtype=np.float32)
    if device.type == "cpu" and len(dataset) <= _FEW and model.row_maps is not None:
        for m, (index, modality) in enumerate(zip(indices, dataset.modalities, strict=True)):
            vectors[:, m] = model.row_maps[index](modality.read(slice(0, len(dataset))))
    else:
        start = 0
        for ids, _, at, features, mask in read_blocks(model, dataset, None, device):
            with torch.inference_mode():
                found = _encode(model, indices, features, mask)[1][at]
            vectors[start : start + len(ids)] = found.cpu().numpy()
            start += len(ids)
    if not dataset.present.all():
        vectors[~dataset.present] = np.nan
    return vectors


def embed_dataset(
    model: FittedModel,
    dataset: Dataset,
    rows: npt.NDArray[np.int64] | None,
    *,
    device: torch.device,
    max_memory: int | None,
    processes: ProcessGroup,
) -> Dataset:
    """Return the rows of a data set in the shared space; see ``Aligner.embed_dataset``."""
    taken = np.arange(len(dataset)) if rows is None else rows
    scratch = Scratch(max_memory)
    arrays = [scratch.empty((len(taken), model.dim)) for _ in dataset.modalities]
    part = shard_rows(len(taken), processes.rank, processes.size)
    start = part.start
    for block in embed(model, dataset, taken[part], fusion="leading", device=device):
        stop = start + len(block.ids)
        for m, array in enumerate(arrays):
            array[start:stop] = block.embeddings[:, m]
        start = stop
    stops = [shard_rows(len(taken), rank, processes.size).stop for rank in range(processes.size)]
    for array in arrays:
        processes.all_gather_rows(array, stops)
    return Dataset(
        dataset.ids.take(taken),
        tuple(Features(name, array) for name, array in zip(dataset.names, arrays, strict=True)),
        dataset.present[taken],
        {name: column.take(taken) for name, column in dataset.columns.items()},
        dataset.named_by_row,
        dataset.notes,
        hashes_of(dataset, rows),
    )


def further_outputs(model: FittedModel, asked: Sequence[str]) -> dict[str, tuple[int, bool]]:
    """Return what the model makes besides embeddings; see ``Aligner.further_outputs``."""
    features = [np.zeros((1, width), dtype=np.float32) for width in model.widths]
    present = torch.ones(1, len(features), dtype=torch.bool)
    with torch.inference_mode():
        encoded, _ = _encode(model, range(len(features)), features, present)
    found = {name: (output.shape[-1], output.ndim == 3) for name, output in encoded.extra.items() if name != "fused"}
    unknown = sorted(set(asked) - set(found))
    if unknown:
        raise UsageError(
            what="output the model does not have",
            at=Place(model.origin),
            found=", ".join(unknown),
            expected=f"one of {', '.join(sorted(found))}" if found else "none: it makes embeddings alone",
            next_step="Leave --also out, or export with a model whose objective makes it.",
        )
    return found


def _encode(
    model: FittedModel, indices: Sequence[int], features: Sequence[FloatArray], mask: Tensor
) -> tuple[Encoded, Tensor]:
    """Return what the members make of some modalities, and the (B, k, d) vectors of these, zero where absent."""
    encoded = together([member.embed(indices, features, mask) for member in model.members])
    vectors = encoded.vectors
    if len(indices) < vectors.shape[1] or list(indices) != sorted(indices):
        vectors = vectors[:, indices]
    vectors = vectors * mask[:, :, None]
    if model.reduction is not None:
        vectors = reduced(vectors, torch.from_numpy(model.reduction).to(vectors.device))
    return encoded, vectors


def _extra_of(encoded: Encoded, modalities: Sequence[int], present: Tensor) -> dict[str, Tensor]:
    """Return the further outputs of some modalities, zero where absent; those for instances as they are."""
    extra = {}
    for name, output in encoded.extra.items():
        for_each = output.ndim == 3
        extra[name] = output[:, modalities] * present[:, :, None] if for_each else output
    return extra
