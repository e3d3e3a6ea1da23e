"""Aligner: fit, transform, fuse, save and load; the Python face of pmrl."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np
import numpy.typing as npt
import torch

from pmrl_cli.batch import Encoded
from pmrl_cli.closed_form.init import GccaConfig
from pmrl_cli.closed_form.projection import FeatureMap, Projection
from pmrl_cli.data.columns import group_column, label_column
from pmrl_cli.data.dataset import Dataset, EmbeddedBlock, Features, FloatArray, Imputation, Rows
from pmrl_cli.data.leaks import VECTORS, Leaks, find_leaks, trained_vectors
from pmrl_cli.data.repeats import hashes_of, with_hashes
from pmrl_cli.data.split import shard
from pmrl_cli.data.validate import dataset_from_arrays, dataset_without_rows
from pmrl_cli.encoders import encoder_from_state
from pmrl_cli.ensemble import Member, together
from pmrl_cli.errors import DataError, Place, StateError, UsageError
from pmrl_cli.files.artifacts.model import FORMAT, read_model, to_toml, write_model
from pmrl_cli.files.artifacts.tensors import read_tensors, write_tensors
from pmrl_cli.files.durable.atomic import atomic_folder, to_json
from pmrl_cli.files.durable.scratch import Scratch
from pmrl_cli.fit.base import Base
from pmrl_cli.fit.card import texts_of
from pmrl_cli.fit.context import Hooks
from pmrl_cli.fit.fit import fit
from pmrl_cli.fusion import fuse
from pmrl_cli.imputation import can_impute, impute
from pmrl_cli.process_group import SINGLE_PROCESS, ProcessGroup
from pmrl_cli.train.devices import choose_device
from pmrl_cli.train.run import check_objective
from pmrl_cli.train.settings import FitSettings

if TYPE_CHECKING:
    import pyarrow as pa

    from pmrl_cli.diagnosis import Diagnosis
    from pmrl_cli.retrieval import Evaluation

__all__ = ["SPLITS", "Aligner"]

Arrays = Mapping[str, object]

SPLITS = ("auto", "train", "validation", "test", "all")


@dataclass(frozen=True)
class _Space:
    """Everything that embedding and saving need."""

    names: tuple[str, ...]
    members: tuple[Member, ...]
    seen: dict[str, npt.NDArray[np.uint64]]
    texts: dict[str, str]
    inputs: dict[str, object]
    origin: str

    @property
    def dim(self) -> int:
        """Dimension of the shared space."""
        return int(json.loads(self.texts["config.json"])["dim"])


class Aligner:
    """Maps the features of k modalities into one space, trained so that an instance's vectors agree.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        **settings: those of ``pmrl_cli.train.settings.FitSettings``: objective, adapter, dim, steps, seed, ...

    Example:
        >>> aligner = Aligner(dim=32, seed=0).fit({"image": images, "text": texts})
        >>> aligner.transform({"image": new_images})["image"]
    """

    def __init__(self, *, device: str = "auto", **settings: Any) -> None:  # noqa: ANN401 - FitSettings checks them
        self.device = device
        self.settings = _with(FitSettings(), settings)
        self._check()
        self._space: _Space | None = None
        self.notes: tuple[str, ...] = ()
        """What the last fit has to say, one sentence each."""

    def get_params(self, deep: bool = True) -> dict[str, object]:  # noqa: FBT001, FBT002 - scikit-learn's signature
        """Return the settings by name, as scikit-learn does (``deep`` changes nothing: none is an estimator)."""
        # The objects themselves, as scikit-learn's clone compares by identity.
        return {"device": self.device, **{f.name: getattr(self.settings, f.name) for f in fields(self.settings)}}

    def __repr__(self) -> str:
        unchanged = FitSettings().as_dict() | {"device": "auto"}
        changed = {name: value for name, value in self.get_params().items() if value != unchanged[name]}
        return f"Aligner({', '.join(f'{name}={value!r}' for name, value in changed.items())})"

    def set_params(self, **params: Any) -> Self:  # noqa: ANN401 - FitSettings checks them
        """Change settings by name, as scikit-learn does.

        Raises: UsageError for an unknown one.
        """
        self.device = params.pop("device", self.device)
        self.settings = _with(self.settings, params)
        self._check()
        return self

    def _check(self) -> None:
        # Now, and not after the features have been read.
        choose_device(self.device)
        check_objective(self.settings)

    def fit(
        self,
        features: Arrays | Dataset,
        ids: Sequence[str] | None = None,
        *,
        columns: Mapping[str, Sequence[object]] | None = None,
        max_memory: int | None = None,
        exclude: npt.NDArray[np.bool_] | None = None,
        checkpoint: Path | None = None,
        hooks: Hooks | None = None,
        processes: ProcessGroup = SINGLE_PROCESS,
    ) -> Self:
        """Train on paired features.

        Args:
            features: per modality an (n, d_m) array (NumPy, torch or Arrow) whose row i is instance i (an all-NaN
                or null row: missing), or a data set from ``read_dataset``.
            ids: n unique strings that decide the split; row numbers if None.
            columns: side columns by name, n values each (for ``group`` or ``split_column``).
            max_memory: bytes for working arrays; beyond it they live on disk.
            exclude: (n, k), vectors that neither train nor choose; None for none.
            checkpoint: folder of the resumable state.
            hooks: called while it runs: stage, report, should_stop.
            processes: the processes that fit together (``pmrl_cli.process_group``), each with all the features.

        Raises: PmrlError of the kind that fits (see ``pmrl_cli.errors``).
        """
        dataset = self._dataset(features, ids, columns)
        model = self.settings.continue_from
        fitted = fit(
            dataset,
            self.settings,
            device=self.device,
            max_memory=max_memory,
            excluded=exclude,
            checkpoint=checkpoint,
            hooks=hooks,
            processes=processes,
            base=None if model is None else Aligner.load(model, device=self.device)._base(model),
        )
        self._space = _Space(
            fitted.names,
            fitted.members,
            fitted.seen,
            texts_of(fitted),
            {"ids": fitted.ids_digest, "modalities": fitted.inputs},
            "this fit",
        )
        self.notes = () if fitted.continued is None else fitted.continued.notes
        return self

    @staticmethod
    def _dataset(
        features: Arrays | Dataset,
        ids: Sequence[str] | None = None,
        columns: Mapping[str, Sequence[object]] | None = None,
    ) -> Dataset:
        return features if isinstance(features, Dataset) else dataset_from_arrays(features, ids, columns)

    def _base(self, path: str) -> Base:
        """Return the model as one that a fit goes on from."""
        space = self._fitted()
        configs = tuple(
            GccaConfig(
                FeatureMap(about["features"], squash=about["squash"]), about["ridge"], about["power"], about["dim"]
            )
            for about in json.loads(space.texts["config.json"])["members"]
        )
        digest = hashlib.sha256()
        for member in space.members:
            for projection in member.projections:
                for array in projection.arrays().values():
                    digest.update(array.tobytes())
            for tensor in member.encoder.state()[1].values():
                digest.update(tensor.numpy().tobytes())
        inputs = cast("dict[str, dict[str, object]]", space.inputs["modalities"])
        return Base(space.names, space.members, configs, space.seen, inputs, digest.hexdigest(), path)

    def _fitted(self) -> _Space:
        if self._space is None:
            what = "aligner is not fitted"
            raise UsageError(what, found="no weights", expected="a fit", next_step="Call fit or Aligner.load first.")
        return self._space

    @property
    def dim(self) -> int:
        """Dimension of the shared space."""
        return self._fitted().dim

    @property
    def names(self) -> tuple[str, ...]:
        """Modalities the model maps, in order."""
        return self._fitted().names

    @property
    def widths(self) -> tuple[int, ...]:
        """Columns of the features of each modality that the model maps, in order."""
        return tuple(projection.dim for projection in self._fitted().members[0].projections)

    @property
    def texts(self) -> dict[str, str]:
        """The model folder's text files by name (config, metrics, history, card, ...)."""
        return dict(self._fitted().texts)

    def _indices(self, dataset: Dataset) -> list[int]:
        space = self._fitted()
        unknown = [name for name in dataset.names if name not in space.names]
        if unknown:
            what = "modality the model does not know"
            raise StateError(
                what,
                at=Place(space.origin),
                found=", ".join(unknown),
                expected=f"some of {', '.join(space.names)}",
                next_step=f"Name the file's modality, as in {space.names[0]}=FILE, or leave it out.",
            )
        indices = [space.names.index(name) for name in dataset.names]
        for index, features in zip(indices, dataset.modalities, strict=True):
            expected = space.members[0].projections[index].dim
            if features.dim != expected:
                what = "dimension differs from the model"
                raise StateError(
                    what,
                    at=Place(space.origin),
                    found=f"modality {features.name!r} with {features.dim} columns",
                    expected=f"{expected}, as the model was fitted on",
                    next_step="Give the features of the same encoder, or fit again.",
                )
        return indices

    def embed(
        self, dataset: Dataset, rows: Rows | None = None, *, fusion: str = "leading"
    ) -> Iterator[EmbeddedBlock]:
        """Yield the aligned embeddings of a data set block by block, in its order.

        The next block is read while this one is embedded. Those of a slice are, bit for bit, what they are among all.

        Args:
            dataset: some of the model's modalities, each with the dimension it was fitted on.
            rows: a slice or ascending row numbers, or None for all.
            fusion: as for ``fuse``.

        Raises: StateError for a modality or dimension the model does not know; UsageError for an unknown fusion.
        """
        indices = self._indices(dataset)
        for ids, present, at, features, mask in self._read(dataset, rows):
            with torch.inference_mode():
                encoded, unit = self._encode(indices, features, mask)
                extra = _extra_of(encoded, indices, mask)
                fused = extra.pop("fused") if "fused" in extra else fuse(unit, mask, fusion)
            outputs = {name: output[at].cpu().numpy() for name, output in extra.items()}
            yield EmbeddedBlock(ids, unit[at].cpu().numpy(), present, fused[at].cpu().numpy(), outputs)

    def _encode(
        self, indices: Sequence[int], features: Sequence[FloatArray], mask: torch.Tensor
    ) -> tuple[Encoded, torch.Tensor]:
        """Return what the members make of some modalities, and the (B, k, d) vectors of these, zero where absent."""
        encoded = together([member.embed(indices, features, mask) for member in self._fitted().members])
        return encoded, encoded.vectors[:, indices] * mask[:, :, None]

    def impute(
        self, dataset: Dataset, rows: Rows | None = None, *, fusion: str = "leading"
    ) -> Iterator[EmbeddedBlock]:
        """Yield blocks as ``embed`` does, of all modalities of the model, those missing filled in.

        ``imputed`` of a block says what was predicted. An instance without any modality stays without.

        Args:
            dataset: as for ``embed``, as are the others.
            rows: see there.
            fusion: see there.

        Raises: StateError for a model that cannot predict features, or as ``embed``.
        """
        space, indices = self._fitted(), self._indices(dataset)
        if not can_impute(space.members):
            what = "model cannot impute"
            raise StateError(
                what,
                at=Place(space.origin),
                found="an encoder without decoders",
                expected="a model of --objective mvae",
                next_step="Fit with --objective mvae.",
            )
        for (ids, _, at, features, mask), block in zip(
            self._read(dataset, rows), self.embed(dataset, rows, fusion=fusion), strict=True
        ):
            with torch.inference_mode():
                inputs = space.members[0].inputs(indices, features, mask)
                filled = impute(space.members[0], inputs)
                anything = inputs.present.any(1, keepdim=True)
            has = anything.expand_as(inputs.present)[at].cpu().numpy()
            predicted = has & ~inputs.present[at].cpu().numpy()
            vectors = filled.vectors[at].cpu().numpy() * has[:, :, None]
            given = {m: array[at] for m, array in zip(indices, features, strict=True)}
            values, errors = [], []
            for m, (found, deviation) in enumerate(zip(filled.features, filled.deviations, strict=True)):
                missing = predicted[:, m, None]
                values.append(np.where(missing, found[at], given.get(m, found[at])).astype(np.float32))
                errors.append(np.where(missing, deviation[at], 0).astype(np.float32))
            imputed = Imputation(predicted, values, errors)
            yield EmbeddedBlock(ids, vectors, has, block.fused, imputed=imputed)

    def _read(
        self, dataset: Dataset, rows: Rows | None
    ) -> Iterator[tuple[pa.LargeStringArray, npt.NDArray[np.bool_], slice, list[FloatArray], torch.Tensor]]:
        """Yield ids and presence of each block, where it is among the rows that follow, and these and their mask."""
        device = choose_device(self.device)
        for member in self._fitted().members:
            member.encoder.to(device)
        for block, features in dataset.read_ahead(rows):
            present = dataset.present[block]
            at, filled = slice(None), present
            if isinstance(block, slice) and (whole := dataset.block_of(block)) != block:
                # A product of matrices rounds a row by where it stands and how many there are: so it stands where it
                # does among all, with zeros for the others.
                at = slice(block.start - whole.start, block.stop - whole.start)
                features = [_amid_zeros(array, at, whole.stop - whole.start) for array in features]
                filled = _amid_zeros(present, at, whole.stop - whole.start)
            ids = dataset.ids[block] if isinstance(block, slice) else dataset.ids.take(block)
            yield ids, present, at, list(features), torch.from_numpy(filled).to(device)

    @property
    def codes(self) -> FloatArray | None:
        """(N, dim) codes of the space, where the model has them (``objective="fcid"``)."""
        codes = [member.encoder.codes() for member in self._fitted().members]
        return codes[0].cpu().numpy() if len(codes) == 1 and codes[0] is not None else None

    def further_outputs(self, asked: Sequence[str] = ()) -> dict[str, tuple[int, bool]]:
        """Return what the model makes besides embeddings, by name: columns, and whether each modality has one.

        Args:
            asked: names that must be among them.

        Raises: UsageError if one is not.
        """
        space = self._fitted()
        features = [np.zeros((1, projection.dim), dtype=np.float32) for projection in space.members[0].projections]
        present = torch.ones(1, len(features), dtype=torch.bool)
        with torch.inference_mode():
            everywhere = range(len(features))
            encoded = together([member.embed(everywhere, features, present) for member in space.members])
        found = {
            name: (output.shape[-1], output.ndim == 3) for name, output in encoded.extra.items() if name != "fused"
        }
        unknown = sorted(set(asked) - set(found))
        if unknown:
            what = "output the model does not have"
            raise UsageError(
                what,
                at=Place(space.origin),
                found=", ".join(unknown),
                expected=f"one of {', '.join(sorted(found))}" if found else "none: it makes embeddings alone",
                next_step="Leave --also out, or export with a model whose objective makes it.",
            )
        return found

    def embed_dataset(
        self,
        dataset: Dataset,
        rows: npt.NDArray[np.int64] | None = None,
        *,
        max_memory: int | None = None,
        processes: ProcessGroup = SINGLE_PROCESS,
    ) -> Dataset:
        """Return the rows of a data set in the shared space, as a data set (side columns kept).

        What is a copy of what is carried over: equal are the vectors as they were given (``Dataset.hashes``).

        Args:
            dataset: as for ``embed``.
            rows: ascending row numbers, or None for all.
            max_memory: bytes the embeddings may take in memory; beyond it they live on disk.
            processes: the processes that embed a share each; every one of them gets all.
        """
        taken = np.arange(len(dataset)) if rows is None else rows
        scratch = Scratch(max_memory)
        arrays = [scratch.empty((len(taken), self.dim)) for _ in dataset.modalities]
        share = shard(len(taken), processes.rank, processes.size)
        start = share.start
        for block in self.embed(dataset, taken[share]):
            stop = start + len(block.ids)
            for m, array in enumerate(arrays):
                array[start:stop] = block.embeddings[:, m]
            start = stop
        for array in arrays:
            processes.all_gather_rows(
                array, [shard(len(taken), rank, processes.size).stop for rank in range(processes.size)]
            )
        return Dataset(
            dataset.ids.take(taken),
            tuple(Features(name, array) for name, array in zip(dataset.names, arrays, strict=True)),
            dataset.present[taken],
            {name: column.take(taken) for name, column in dataset.columns.items()},
            dataset.named_by_row,
            dataset.notes,
            hashes_of(dataset, rows),
        )

    def rows(self, dataset: Dataset, split: str = "auto") -> tuple[npt.NDArray[np.int64], str]:
        """Return which instances of a data set to judge the model on, and a sentence that says so.

        ``train`` and ``validation`` are the instances that trained and that chose; ``test`` those fit never saw;
        ``auto`` is test if there are two or more, else validation (then a little optimistic: they chose).

        Raises: DataError if the part asked for is empty; UsageError for another word.
        """
        if split not in SPLITS:
            what = "unknown split"
            raise UsageError(what, found=repr(split), expected=f"one of {', '.join(SPLITS)}", next_step="Choose one.")
        seen = self._fitted().seen
        hashes = dataset.id_hashes(0)
        train, validation = (np.isin(hashes, seen[part]) for part in ("train", "validation"))
        parts = {"train": train, "validation": validation, "test": ~(train | validation)}
        sentences = {
            "train": "instances the adapters trained on",
            "validation": "validation instances: they chose the settings, so a little optimistic",
            "test": "instances that fit never saw",
            "all": "all instances, those the adapters trained on among them",
        }
        chosen = split
        if split == "auto":
            chosen = "test" if parts["test"].sum() >= 2 else "validation" if validation.any() else "train"
        rows = np.arange(len(dataset)) if chosen == "all" else np.flatnonzero(parts[chosen])
        if len(rows) == 0:
            what = "no instance in the split"
            raise DataError(
                what,
                found=f"no {chosen} instance among {len(dataset)}",
                expected="some",
                next_step="Choose another --split.",
            )
        return rows, f"{len(rows):,} of {len(dataset):,} instances: {sentences[chosen]}"

    def leaks(self, dataset: Dataset, rows: npt.NDArray[np.int64]) -> Leaks:
        """Return how many of the instances to be judged share vectors with those that trained the model.

        Vectors are compared by what the model holds of those that trained; a model that an older pmrl wrote holds
        nothing of them, and then those of the same ids in this data set are compared.

        Args:
            dataset: of some of the model's modalities.
            rows: ascending row numbers of the instances to be judged; those whose ids trained are left out.
        """
        seen = self._fitted().seen
        own = np.isin(dataset.id_hashes(0), seen["train"])
        trained = {name.removeprefix(VECTORS): seen[name] for name in seen if name.startswith(VECTORS)}
        judged = rows[~own[rows]]
        return find_leaks(hashes_of(dataset, judged), trained or trained_vectors(dataset, own), dataset.names)

    def transform(self, features: Arrays | Dataset) -> dict[str, FloatArray]:
        """Return per modality the (n, d) float32 unit embeddings; a missing row is all NaN.

        Args:
            features: some or all of the model's modalities, as for ``fit``; here they may have no rows.
        """
        empty = None if isinstance(features, Dataset) else dataset_without_rows(features)
        dataset = self._dataset(features) if empty is None else empty
        indices = self._indices(dataset)
        blocks = [np.zeros((0, len(indices), self.dim), dtype=np.float32)]
        for _, _, at, arrays, mask in self._read(dataset, None):
            with torch.inference_mode():  # not fused, as ``embed`` does: that takes longer than a row
                blocks.append(self._encode(indices, arrays, mask)[1][at].cpu().numpy())
        stacked = np.concatenate(blocks)
        stacked[~dataset.present] = np.nan
        return {name: np.ascontiguousarray(stacked[:, m]) for m, name in enumerate(dataset.names)}

    def fuse(self, features: Arrays | Dataset, *, fusion: str = "leading") -> FloatArray:
        """Return (n, d) float32 unit vectors, one for each instance, from its present embeddings.

        Args:
            features: some or all of the model's modalities, as for ``fit``.
            fusion: ``leading``, their leading direction, or ``weighted``, the consensus weighted by the agreement of
                each with that direction (see ``pmrl_cli.fusion``).

        Raises: UsageError for another fusion.
        """
        dataset = self._dataset(features)
        return np.concatenate([block.fused for block in self.embed(dataset, fusion=fusion)])

    def evaluate(
        self,
        features: Arrays | Dataset,
        ids: Sequence[str] | None = None,
        *,
        columns: Mapping[str, Sequence[object]] | None = None,
        split: str = "auto",
        **options: Any,  # noqa: ANN401 - those of retrieval.evaluate
    ) -> Evaluation:
        """Measure retrieval in the shared space, as ``pmrl evaluate --model`` does: the numbers are the same.

        Args:
            features: some of the model's modalities, as for ``fit``.
            ids: as for ``fit``: they say which instances it saw.
            columns: side columns by name.
            split: which instances are judged, as for ``rows``; the ``scope`` of the result says which.
            **options: those of ``pmrl_cli.retrieval.evaluate``.

        Raises: DataError if the part asked for is empty, or has no instance with two modalities; UsageError for an
            unknown word or column.
        """
        from pmrl_cli.retrieval import evaluate

        dataset = with_hashes(self._dataset(features, ids, columns))
        rows, scope = self.rows(dataset, split)
        leaks = self.leaks(dataset, rows)
        return replace(evaluate(self.embed_dataset(dataset, rows), **options), scope=scope, leaks=leaks)

    def diagnose(
        self,
        features: Arrays | Dataset,
        ids: Sequence[str] | None = None,
        *,
        columns: Mapping[str, Sequence[object]] | None = None,
        split: str = "auto",
        **options: Any,  # noqa: ANN401 - those of diagnosis.state_of
    ) -> Diagnosis:
        """Diagnose the alignment in the shared space, as ``pmrl diagnose --model`` does: the numbers are the same.

        Args:
            features: some of the model's modalities, as for ``fit``.
            ids: as for ``fit``: they say which instances it saw.
            columns: side columns by name.
            split: which instances are judged, as for ``rows``; ``inputs.scope`` of the result says which.
            **options: those of ``pmrl_cli.diagnosis.state_of``; the columns ``group`` and ``label`` are used where
                there are such.

        Raises: as ``evaluate``.
        """
        from pmrl_cli.diagnosis import diagnose_state, state_of
        from pmrl_cli.train.history import training_of

        dataset = with_hashes(self._dataset(features, ids, columns))
        rows, scope = self.rows(dataset, split)
        embedded = self.embed_dataset(dataset, rows)
        options["group"] = group_column(dataset, options.get("group"))
        options["label"] = label_column(dataset, options.get("label"))
        state = state_of(embedded, columns=dataset.dims, **options)
        inputs = {"scope": scope, "model": self._fitted().origin, "leaks": self.leaks(dataset, rows).as_dict()}
        return diagnose_state(state, embedded, training_of(self.texts), inputs=inputs)

    def search(
        self,
        queries: Arrays | Dataset,
        gallery: Arrays | Dataset,
        count: int = 10,
        *,
        source: str | None = None,
        target: str | None = None,
        csls: bool = False,
    ) -> tuple[npt.NDArray[np.int64], FloatArray]:
        """Return the nearest instances of a gallery for each query, exactly.

        Args:
            queries: some of the model's modalities, as for ``fit``.
            gallery: likewise.
            count: how many of the nearest; at most as many as the gallery has.
            source: modality that asks; None: all that an instance has, fused.
            target: modality that is searched; None: likewise.
            csls: rank by CSLS instead of the cosine (``pmrl_cli.retrieval.search``).

        Returns: (q, count) row numbers of the gallery, best first, -1 for a query without the modality that asks; and
            their (q, count) scores, NaN there.

        Raises: DataError for a modality that is not there, or if nothing asks or nothing can be found.
        """
        from pmrl_cli.retrieval.search import search

        asking, searched = (
            self.embed_dataset(side if isinstance(side, Dataset) else dataset_from_arrays(side, None, None))
            for side in (queries, gallery)
        )
        found = list(search(asking, searched, count, source=source, target=target, csls=csls))
        rows = np.full((len(asking), found[0].rows.shape[1]), -1, dtype=np.int64)
        scores = np.full(rows.shape, np.nan, dtype=np.float32)
        for part in found:
            rows[part.queries], scores[part.queries] = part.rows, part.scores
        return rows, scores

    def write_onnx(self, folder: Path) -> None:
        """Write ``<modality>.onnx`` for each modality into a folder: its features to unit vectors, any batch size.

        Input ``features`` (batch, d_m), output ``vectors`` (batch, d), both float32. A modality is given alone, as
        where the others are missing.

        Raises: UsageError without the package ``onnx`` (the extra 'onnx').
        """
        from pmrl_cli.onnx_graph import write_onnx

        space = self._fitted()
        if find_spec("onnx") is None:
            what = "the package onnx is not installed"
            raise UsageError(
                what, found="no module 'onnx'", expected="the extra 'onnx'", next_step="Type: pip install onnx"
            )
        members = [replace(member, encoder=member.encoder.cpu().eval()) for member in space.members]
        for m, name in enumerate(space.names):
            write_onnx(folder / f"{name}.onnx", members, m)

    def save(
        self,
        path: str | Path,
        *,
        force: bool = False,
        run: Mapping[str, object] | None = None,
        reading: Mapping[str, object] | None = None,
    ) -> Path:
        """Write the model folder (replacing an earlier output of pmrl, or anything with ``force``).

        Args:
            path: the folder.
            force: replace what pmrl did not write.
            run: times, host and versions for ``run.json``, the one file that differs between equal fits.
            reading: how the files were read, for ``resolved.toml``.
        """
        space = self._fitted()
        folder = Path(path)
        tensors: dict[str, torch.Tensor] = {}
        for i, member in enumerate(space.members):
            for name, projection in zip(space.names, member.projections, strict=True):
                # Copies: members of one kind share their projections, which safetensors refuses to write twice.
                arrays = {
                    f"{name}.projection.{k}": torch.from_numpy(a.copy()) for k, a in projection.arrays().items()
                }
                tensors |= {f"{i}.{key}": tensor for key, tensor in arrays.items()}
            tensors |= {f"{i}.{key}": tensor for key, tensor in member.encoder.state()[1].items()}
        with atomic_folder(folder, kind=FORMAT, force=force) as temporary:
            write_tensors(temporary / "model.safetensors", tensors)
            write_tensors(
                temporary / "seen.safetensors", {part: torch.from_numpy(h) for part, h in space.seen.items()}
            )
            texts = dict(space.texts)
            if reading is not None:
                texts["resolved.toml"] += to_toml(reading)
            write_model(temporary, texts=texts, inputs=space.inputs, run=run)
        return folder

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto") -> Self:
        """Read a model folder, its bytes checked against its manifest.

        Raises: DataError if it is no model; StateError if it changed or is from a newer pmrl.
        """
        folder = Path(path)
        files, manifest = read_model(folder)
        try:
            return cls._from_files(folder, files, manifest, device)
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            what = "not a model"  # digests show that bytes are as written, not who wrote them
            raise DataError(
                what,
                at=Place(str(folder)),
                found=" ".join(f"{type(error).__name__}: {error}".split())[:120],
                expected="a folder written by pmrl fit",
                next_step="Give the folder that pmrl fit printed.",
            ) from error

    @classmethod
    def _from_files(cls, folder: Path, files: Mapping[str, bytes], manifest: Mapping[str, Any], device: str) -> Self:
        texts = {name: content.decode() for name, content in files.items() if not name.endswith(".safetensors")}
        config = json.loads(texts["config.json"])
        numbered = "members" in config  # a model of format 1 is one alignment, whose tensors have no number
        if not numbered:
            config["members"] = [{"features": "linear", "squash": False}]
            texts["config.json"] = to_json(config)
        names = tuple(str(m["name"]) for m in config["modalities"])
        tensors = read_tensors(files["model.safetensors"], folder / "model.safetensors")

        def member(i: int, about: Mapping[str, Any]) -> Member:
            prefix = f"{i}." if numbered else ""
            own = {key.removeprefix(prefix): tensors.pop(key) for key in list(tensors) if key.startswith(prefix)}
            keys = Projection.array_names(kernel=about["features"] == "kernel")
            projections = tuple(
                Projection.from_arrays(
                    {key: own.pop(f"{name}.projection.{key}").numpy() for key in keys}, squash=bool(about["squash"])
                )
                for name in names
            )
            # Models from before an encoder stated its kind have one adapter for each modality.
            encoder = about.get("encoder") or {"kind": "residual", "names": names, "hidden": config["hidden"]}
            return Member(projections, encoder_from_state(encoder, own))

        members = tuple(member(i, about) for i, about in enumerate(config["members"]))
        if tensors:
            message = f"tensors of no member: {', '.join(sorted(tensors)[:5])}"
            raise ValueError(message)
        aligner = cls(device=device, **config["settings"])
        aligner._space = _Space(
            names,
            members,
            _read_seen(files["seen.safetensors"], folder / "seen.safetensors", names),
            texts,
            manifest["inputs"],
            str(folder),
        )
        return aligner


def _read_seen(content: bytes, path: Path, names: Sequence[str]) -> dict[str, npt.NDArray[np.uint64]]:
    """Return what a fit has seen: hashes of ids, and of vectors unless an older pmrl wrote the model."""
    tensors = read_tensors(content, path)
    ids, vectors = {"train", "validation"}, {f"{VECTORS}{name}" for name in names}
    if set(tensors) not in (ids, ids | vectors):
        message = f"seen.safetensors holds {', '.join(sorted(tensors)[:5])}"
        raise ValueError(message)
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _amid_zeros(array: npt.NDArray[Any], at: slice, rows: int) -> npt.NDArray[Any]:
    """Return (rows, ...) zeros with the array as the rows ``at``."""
    padded = np.zeros((rows, *array.shape[1:]), dtype=array.dtype)
    padded[at] = array
    return padded


def _extra_of(encoded: Encoded, modalities: Sequence[int], present: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the further outputs of some modalities, zero where absent; those for instances as they are."""
    extra = {}
    for name, output in encoded.extra.items():
        for_each = output.ndim == 3
        extra[name] = output[:, modalities] * present[:, :, None] if for_each else output
    return extra


def _with(settings: FitSettings, changes: Mapping[str, object]) -> FitSettings:
    unknown = sorted(set(changes) - set(settings.as_dict()))
    if unknown:
        what = "unknown setting"
        raise UsageError(
            what,
            found=", ".join(unknown),
            expected=f"some of {', '.join(sorted(settings.as_dict()))}",
            next_step="Fix its name.",
        )
    return replace(settings, **changes)  # type: ignore[arg-type]
