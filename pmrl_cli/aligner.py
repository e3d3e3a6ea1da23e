"""Aligner: fit, transform, fuse, evaluate, search, save and load; the Python face of pmrl."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from pmrl_cli.data.arrays import dataset_from_arrays, dataset_without_rows
from pmrl_cli.data.columns import group_column, label_column
from pmrl_cli.data.dataset import Dataset, EmbeddedBlock, FloatArray, Rows
from pmrl_cli.data.frames import in_modalities, to_frame
from pmrl_cli.data.leaks import Leaks
from pmrl_cli.data.repeats import with_hashes
from pmrl_cli.errors import UsageError
from pmrl_cli.estimator import Estimator
from pmrl_cli.model.embedding import embed, embed_dataset, further_outputs, vectors_of
from pmrl_cli.model.fitted import FittedModel
from pmrl_cli.model.folder import load_model, save_model
from pmrl_cli.model.splits import evaluated_rows, leaks_of
from pmrl_cli.process_group import SINGLE_PROCESS, ProcessGroup
from pmrl_cli.python_words import python_words
from pmrl_cli.train.devices import choose_device

if TYPE_CHECKING:
    from pmrl_cli.diagnosis import Diagnosis
    from pmrl_cli.fit.context import Hooks
    from pmrl_cli.retrieval import Evaluation

__all__ = ["Aligner"]

Arrays = Mapping[str, object]


class Aligner(Estimator):
    """Maps the features of k modalities into one space, trained so that an instance's vectors agree.

    Args:
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        **settings: those of ``pmrl_cli.train.settings.FitSettings``: objective, adapter, dim, steps, seed, ...

    It runs in scikit-learn's ``Pipeline`` as the last step, and in ``GridSearchCV`` on what can be indexed by
    instance: a frame of two levels of columns (modality, column), or a structured array with a field for each
    modality.

    Example:
        >>> aligner = Aligner(dim=32, seed=0).fit({"image": images, "text": texts})
        >>> aligner.transform({"image": new_images})["image"]
    """

    _model: FittedModel | None = None
    _notes: tuple[str, ...] = ()

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes of the last fit, one sentence each."""
        return self._notes

    def _state(self) -> str:
        fitted = self._model
        return "not fitted" if fitted is None else f"{fitted.dim} dims · {', '.join(fitted.names)}"

    def __sklearn_is_fitted__(self) -> bool:
        return self._model is not None

    @python_words
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
        from pmrl_cli.fit.base import Base
        from pmrl_cli.fit.card import texts_of
        from pmrl_cli.fit.context import Hooks, Machine
        from pmrl_cli.fit.fit import fit

        path = self.settings.continue_from
        fitted = fit(
            _dataset(features, ids, columns),
            self.settings,
            machine=Machine(self.device, max_memory, processes),
            excluded=exclude,
            checkpoint=checkpoint,
            hooks=hooks or Hooks(),
            base=None if path is None else Base.of(load_model(Path(path)), path),
        )
        self._model = FittedModel(
            fitted.names,
            fitted.members,
            fitted.seen,
            texts_of(fitted),
            {"ids": fitted.ids_digest, "modalities": fitted.inputs},
            "this fit",
            fitted.axes,
            fitted.reduced,
        )
        self._notes = () if fitted.continued is None else fitted.continued.notes
        return self

    def fit_transform(
        self,
        features: Arrays | Dataset,
        ids: Sequence[str] | None = None,
        **options: Any,  # noqa: ANN401 - those of fit
    ) -> Any:  # noqa: ANN401 - as ``transform``
        """Fit, and return what ``transform`` makes of the same features."""
        return self.fit(features, ids, **options).transform(features)

    @property
    def model(self) -> FittedModel:
        """What the last fit left, or what was loaded.

        Raises: UsageError before either.
        """
        if self._model is None:
            raise UsageError(
                what="aligner is not fitted",
                found="no weights",
                expected="a fit",
                next_step="Call fit or Aligner.load first.",
            )
        return self._model

    @property
    def dim(self) -> int:
        """Dimension of the shared space."""
        return self.model.dim

    @property
    def names(self) -> tuple[str, ...]:
        """Modalities the model maps, in order."""
        return self.model.names

    @property
    def widths(self) -> tuple[int, ...]:
        """Columns of the features of each modality that the model maps, in order."""
        return self.model.widths

    @property
    def texts(self) -> dict[str, str]:
        """The model folder's text files by name (config, metrics, history, card, ...)."""
        return dict(self.model.texts)

    def in_dims(self, dim: int) -> Aligner:
        """Return the aligner with a space of fewer dimensions: the vectors along its principal axes, at unit length.

        Args:
            dim: how many; at most ``self.dim``.

        Raises: UsageError for more, or a model with codes; StateError for a model that an older pmrl wrote.
        """
        aligner = Aligner(device=self.device, **self.model.settings)
        aligner._model = self.model.in_dims(dim)
        return aligner

    @property
    def codes(self) -> FloatArray | None:
        """(N, dim) codes of the space, where the model has them (``objective="fcid"``)."""
        return self.model.codes

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
        return embed(self.model, dataset, rows, fusion=fusion, device=choose_device(self.device))

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
        from pmrl_cli.model.imputation import embed_imputed

        return embed_imputed(self.model, dataset, rows, fusion=fusion, device=choose_device(self.device))

    def further_outputs(self, asked: Sequence[str] = ()) -> dict[str, tuple[int, bool]]:
        """Return what the model makes besides embeddings, by name: columns, and whether each modality has one.

        Args:
            asked: names that must be among them.

        Raises: UsageError if one is not.
        """
        return further_outputs(self.model, asked)

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
            processes: the processes that embed a shard each; every one of them gets all.
        """
        device = choose_device(self.device)
        return embed_dataset(self.model, dataset, rows, device=device, max_memory=max_memory, processes=processes)

    def rows(self, dataset: Dataset, split: str = "auto") -> tuple[npt.NDArray[np.int64], str]:
        """Return which instances of a data set to evaluate the model on, and a sentence that names them.

        ``train`` and ``validation`` are the instances that trained and that chose; ``test`` those fit never saw;
        ``auto`` is test if there are two or more, else validation (then a little optimistic: they chose).

        Raises: DataError if the part asked for is empty; UsageError for an unknown split.
        """
        return evaluated_rows(self.model, dataset, split)

    def leaks(self, dataset: Dataset, rows: npt.NDArray[np.int64]) -> Leaks:
        """Return how many of the instances to be evaluated share vectors with those that trained the model.

        Vectors are compared by what the model holds of those that trained; a model that an older pmrl wrote holds
        nothing of them, and then those of the same ids in this data set are compared.

        Args:
            dataset: of some of the model's modalities.
            rows: ascending row numbers of the instances to be evaluated; those whose ids trained are left out.
        """
        return leaks_of(self.model, dataset, rows)

    @python_words
    def transform(self, features: Arrays | Dataset) -> Any:  # noqa: ANN401 - ``set_output`` decides
        """Return the unit embeddings of each modality; a missing row is all NaN.

        Args:
            features: some or all of the model's modalities, as for ``fit``; here they may have no rows.

        Returns: (n, d) float32 by modality; after ``set_output(transform="pandas")`` a frame of two levels of
            columns, modality and dimension, with the ids as its index.
        """
        empty = None if isinstance(features, Dataset) else dataset_without_rows(in_modalities(features))
        dataset = _dataset(features) if empty is None else empty
        vectors = vectors_of(self.model, dataset, choose_device(self.device))
        arrays = {name: np.ascontiguousarray(vectors[:, m]) for m, name in enumerate(dataset.names)}
        return to_frame(arrays, dataset.ids.to_pylist()) if self._frames else arrays

    @python_words
    def score(
        self,
        features: Arrays | Dataset,
        ids: Sequence[str] | None = None,
        *,
        columns: Mapping[str, Sequence[object]] | None = None,
    ) -> float:
        """Return the MRR in (0, 1], the mean over all directions between two modalities, among all that is given.

        Give instances that did not train: ``GridSearchCV`` does. ``evaluate`` takes what ``fit`` itself kept unseen
        of its instances.

        Args:
            features: two or more of the model's modalities, as for ``fit``.
            ids: as for ``fit``.
            columns: side columns by name.
        """
        found = self.evaluate(features, ids, columns=columns, split="all").as_dict()
        return float(found["pairwise"]["MRR"]["value"])

    @python_words
    def fuse(self, features: Arrays | Dataset, *, fusion: str = "leading") -> FloatArray:
        """Return (n, d) float32 unit vectors, one for each instance, from its present embeddings.

        Args:
            features: some or all of the model's modalities, as for ``fit``.
            fusion: ``leading``, their leading direction, or ``weighted``, the consensus weighted by the agreement of
                each with that direction (see ``pmrl_cli.fusion``).

        Raises: UsageError for another fusion.
        """
        dataset = _dataset(features)
        return np.concatenate([block.fused for block in self.embed(dataset, fusion=fusion)])

    @python_words
    def evaluate(
        self,
        features: Arrays | Dataset,
        ids: Sequence[str] | None = None,
        *,
        columns: Mapping[str, Sequence[object]] | None = None,
        classes: Arrays | Dataset | None = None,
        split: str = "auto",
        **options: Any,  # noqa: ANN401 - those of retrieval.evaluate
    ) -> Evaluation:
        """Measure retrieval in the shared space, as ``pmrl evaluate --model`` does: the numbers are the same.

        Args:
            features: some of the model's modalities, as for ``fit``.
            ids: as for ``fit``: they say which instances it saw.
            columns: side columns by name.
            classes: one modality whose ids are values of the label, as a data set or as a frame with the classes as
                its index: adds zero-shot accuracy.
            split: which instances are evaluated, as for ``rows``; the ``scope`` of the result names them.
            **options: the others of ``pmrl_cli.retrieval.evaluate``.

        Raises: DataError if the part asked for is empty, or has no instance with two modalities; UsageError for an
            unknown split or column.
        """
        from pmrl_cli.retrieval import evaluate

        dataset = with_hashes(_dataset(features, ids, columns))
        rows, scope = self.rows(dataset, split)
        leaks = self.leaks(dataset, rows)
        of_classes = None if classes is None else self.embed_dataset(_dataset(classes))
        found = evaluate(self.embed_dataset(dataset, rows), classes=of_classes, **options)
        return replace(found, scope=scope, leaks=leaks)

    @python_words
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
            split: which instances are evaluated, as for ``rows``; ``inputs.scope`` of the result names them.
            **options: those of ``pmrl_cli.diagnosis.state_of``; the columns ``group`` and ``label`` are used where
                there are such.

        Raises: as ``evaluate``.
        """
        from pmrl_cli.diagnosis import Embedded, diagnose_state, state_of
        from pmrl_cli.train.history import training_of

        dataset = with_hashes(_dataset(features, ids, columns))
        rows, scope = self.rows(dataset, split)
        embedded = self.embed_dataset(dataset, rows)
        options["group"] = group_column(dataset, options.get("group"))
        options["label"] = label_column(dataset, options.get("label"))
        state = state_of(embedded, embedded=Embedded(dataset.dims), **options)
        inputs = {"scope": scope, "model": self.model.origin, "leaks": self.leaks(dataset, rows).as_dict()}
        return diagnose_state(state, embedded, training_of(self.model.texts), inputs=inputs)

    @python_words
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
            source: modality of the queries; None: all of an instance, fused.
            target: modality of the candidates; None: likewise.
            csls: rank by CSLS instead of the cosine (``pmrl_cli.retrieval.search``).

        Returns: (q, count) row numbers of the gallery, best first, -1 for a query without its modality; and
            their (q, count) scores, NaN there.

        Raises: DataError for a modality that is not there, or if there is no query or no candidate.
        """
        from pmrl_cli.retrieval.search import search

        asking, searched = (self.embed_dataset(_dataset(side)) for side in (queries, gallery))
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
        from pmrl_cli.model.onnx_graph import write_onnx

        if find_spec("onnx") is None:
            raise UsageError(
                what="the package onnx is not installed",
                found="no module 'onnx'",
                expected="the extra 'onnx'",
                next_step="Type: pip install onnx",
            )
        members = [replace(member, encoder=member.encoder.cpu().eval()) for member in self.model.members]
        for m, name in enumerate(self.names):
            write_onnx(folder / f"{name}.onnx", members, m, self.model.reduction)

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
        folder = Path(path)
        save_model(self.model, folder, force=force, run=run, reading=reading)
        return folder

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto") -> Self:
        """Read a model folder, its bytes checked against its manifest.

        Raises: DataError if it is no model; StateError if it changed or is from a newer pmrl.
        """
        model = load_model(Path(path))
        aligner = cls(
            device=device, **{name: None if value == {} else value for name, value in model.settings.items()}
        )
        aligner._model = model
        return aligner


def _dataset(
    features: Arrays | Dataset,
    ids: Sequence[str] | None = None,
    columns: Mapping[str, Sequence[object]] | None = None,
) -> Dataset:
    return features if isinstance(features, Dataset) else dataset_from_arrays(in_modalities(features), ids, columns)
