"""Predicted features and further outputs, from a fit to the tables of an export."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from pmrl_cli import Aligner
from pmrl_cli.closed_form.moments import ColumnMoments, SecondMoment
from pmrl_cli.closed_form.projection import fit_projection, inverse_deviation, standardise
from pmrl_cli.data.arrays import dataset_from_arrays
from pmrl_cli.errors import StateError, UsageError
from tests import typed

SETTINGS = {"steps": 60, "batch_size": 64, "learning_rate": 3e-3, "dim": 8, "dropout": 0.0, "refit": False}


def run(*arguments):
    return typed.pmrl(*arguments)


def features(n=240, seed=0):
    """Three modalities of five shared factors, on scales of their own; the last is missing from a quarter."""
    generator = np.random.default_rng(seed)
    factors = generator.normal(size=(n, 5))
    arrays = {}
    for name, width, scale in (("audio", 12, 1.0), ("image", 9, 100.0), ("text", 7, 0.01)):
        values = factors @ generator.normal(size=(5, width)) + 0.3 * generator.normal(size=(n, width))
        arrays[name] = (scale * (values + 3)).astype(np.float32)
    truth = arrays["text"].copy()
    arrays["text"][::4] = np.nan
    return arrays, truth


@pytest.fixture(scope="module")
def fitted():
    arrays, truth = features()
    return Aligner(objective="mvae", **SETTINGS).fit(arrays), arrays, truth


def test_missing_features_are_predicted_in_their_own_units(fitted):
    aligner, arrays, truth = fitted
    (block,) = aligner.impute(dataset_from_arrays(arrays, None, None))
    missing = block.imputed.missing
    assert missing[::4, 2].all()
    assert missing.sum() == 60
    assert block.present.all()
    errors = block.imputed.features[2][::4] - truth[::4]
    assert (errors**2).sum() < 0.4 * ((truth[::4] - truth.mean(0)) ** 2).sum()
    within = (np.abs(errors) < block.imputed.deviations[2][::4]).mean()
    assert 0.5 < within < 0.95
    np.testing.assert_allclose(np.linalg.norm(block.embeddings, axis=2), 1, atol=1e-5)


def test_what_is_there_is_embedded_as_without_imputation(fitted):
    aligner, arrays, _ = fitted
    dataset = dataset_from_arrays(arrays, None, None)
    (plain,), (filled,) = aligner.embed(dataset), aligner.impute(dataset)
    there = plain.present
    np.testing.assert_allclose(filled.embeddings[there], plain.embeddings[there], atol=1e-5)
    np.testing.assert_array_equal(filled.fused, plain.fused)


def test_a_modality_that_is_not_given_at_all_is_predicted(fitted):
    aligner, arrays, truth = fitted
    (block,) = aligner.impute(dataset_from_arrays({"image": arrays["image"]}, None, None))
    assert block.imputed.missing.sum(0).tolist() == [240, 0, 240]
    errors = block.imputed.features[2] - truth
    assert (errors**2).sum() < 0.7 * ((truth - truth.mean(0)) ** 2).sum()


def test_a_saved_model_imputes_the_same(fitted, tmp_path):
    aligner, arrays, _ = fitted
    aligner.save(tmp_path / "model")
    dataset = dataset_from_arrays(arrays, None, None)
    (one,), (other,) = aligner.impute(dataset), Aligner.load(tmp_path / "model").impute(dataset)
    np.testing.assert_array_equal(one.embeddings, other.embeddings)
    np.testing.assert_array_equal(one.imputed.features[2], other.imputed.features[2])


def write(folder, arrays):
    paths = []
    for name, values in arrays.items():
        folder.mkdir(exist_ok=True)
        np.savez(folder / f"{name}.npz", ids=np.array([f"i{i}" for i in range(len(values))]), features=values)
        paths.append(str(folder / f"{name}.npz"))
    return paths


def test_an_export_says_which_features_are_predicted(fitted, tmp_path):
    aligner, arrays, _ = fitted
    aligner.save(tmp_path / "model")
    has = ~np.isnan(arrays["text"][:, 0])
    paths = write(tmp_path / "data", {"audio": arrays["audio"], "image": arrays["image"]})
    ids = np.array([f"i{i}" for i in np.flatnonzero(has)])
    np.savez(tmp_path / "data" / "text.npz", ids=ids, features=arrays["text"][has])
    paths.append(str(tmp_path / "data" / "text.npz"))
    result = run("export", *paths, "--model", tmp_path / "model", "-o", tmp_path / "out", "--impute")
    assert result.returncode == 0, result.stderr
    table = pq.read_table(tmp_path / "out" / "text")
    assert table.column_names == ["id", "embedding", "imputed"]
    imputed = np.array(table["imputed"])
    assert imputed.sum() == 60
    values, errors = (pq.read_table(tmp_path / "out" / f"text.{name}") for name in ("features", "deviation"))
    assert values["id"].equals(table["id"])
    (block,) = aligner.impute(dataset_from_arrays(arrays, [f"i{i}" for i in range(240)], None))
    predictions = zip(block.imputed.features[2], block.imputed.deviations[2], strict=True)
    wanted = dict(zip(block.ids.to_pylist(), predictions, strict=True))
    for name, value, error in zip(values["id"].to_pylist(), values["embedding"], errors["embedding"], strict=True):
        np.testing.assert_allclose(value.as_py(), wanted[name][0], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(error.as_py(), wanted[name][1], rtol=1e-4, atol=1e-6)
    assert ((np.stack(errors["embedding"].to_pylist()) == 0).all(1) == (imputed == 0)).all()


@pytest.mark.parametrize(
    ("more", "words"), [(("--keep-channels", "4"), "--keep-channels"), (("--also", "unique"), "--also")]
)
def test_predicted_features_are_refused_with_what_does_not_hold_them(fitted, tmp_path, more, words):
    fitted[0].save(tmp_path / "model")
    paths = write(tmp_path / "data", {"image": fitted[1]["image"]})
    result = run("export", *paths, "--model", tmp_path / "model", "-o", tmp_path / "out", "--impute", *more)
    assert result.returncode == 2
    assert words in result.stderr


def test_other_models_do_not_impute_and_have_no_unique_part(tmp_path):
    arrays, _ = features(80)
    aligner = Aligner(objective="infonce", **SETTINGS | {"steps": 2}).fit(arrays)
    with pytest.raises(StateError, match="mvae"):
        list(aligner.impute(dataset_from_arrays(arrays, None, None)))
    aligner.save(tmp_path / "model")
    paths = write(tmp_path / "data", {"image": arrays["image"]})
    result = run("export", *paths, "--model", tmp_path / "model", "-o", tmp_path / "out", "--also", "unique")
    assert result.returncode != 0
    assert "unique" in result.stderr


@pytest.mark.parametrize(
    "settings", [{"objective": "decalign"}, {"objective": "infonce", "terms": {"separation": 1.0}}]
)
def test_unique_parts_are_exported_beside_the_common_ones(settings, tmp_path):
    arrays, _ = features(120)
    aligner = Aligner(**SETTINGS | {"steps": 5} | settings).fit(arrays)
    (block,) = aligner.embed(dataset_from_arrays(arrays, None, None))
    unique = block.extra["unique"]
    assert unique.shape == block.embeddings.shape
    assert (unique[~block.present] == 0).all()
    aligner.save(tmp_path / "model")
    (again,) = Aligner.load(tmp_path / "model").embed(dataset_from_arrays(arrays, None, None))
    np.testing.assert_array_equal(again.extra["unique"], unique)
    paths = write(tmp_path / "data", {"audio": arrays["audio"], "image": arrays["image"]})
    result = run("export", *paths, "--model", tmp_path / "model", "-o", tmp_path / "out", "--also", "unique")
    assert result.returncode == 0, result.stderr
    table = pq.read_table(tmp_path / "out" / "image.unique")
    np.testing.assert_allclose(np.stack(table["embedding"].to_pylist()), unique[:, 1], atol=1e-5)


def test_kernel_components_are_refused_where_features_are_to_be_predicted():
    arrays, _ = features(60)
    with pytest.raises(UsageError, match="kernel"):
        Aligner(objective="mvae", adapter="kernel").fit(arrays)


@pytest.mark.parametrize("squash", [False, True])
def test_a_projection_is_undone_on_what_it_holds(squash):
    generator = np.random.default_rng(0)
    block = (generator.normal(size=(200, 6)) * 5 + 2).astype(np.float32)
    block[:, 3] = 7  # a constant column
    columns = ColumnMoments(6)
    columns.add(block)
    second = SecondMoment(6)
    second.add(standardise(block, columns.mean, inverse_deviation(columns), squash=squash))
    projection, variances = fit_projection(columns, second, 6, squash=squash)
    projection = projection.times((1 / np.sqrt(variances + 0.1)).astype(np.float32))
    components = projection.scores(block)
    spread = components.std(0)
    found, deviations = projection.features(components, np.zeros_like(components), spread)
    np.testing.assert_allclose(found, block, rtol=1e-3, atol=1e-3)
    assert (deviations[:, 3] == 0).all()
    assert deviations.max() < 0.5  # all components are held, so that nothing is left
    unknown, errors = projection.features(components * 0, np.tile(spread, (200, 1)), spread)
    if not squash:
        np.testing.assert_allclose(errors[0], block.std(0), rtol=0.02, atol=1e-4)
    np.testing.assert_allclose(unknown[0, 3], 7)


def test_moments_of_a_squashed_projection_are_those_of_draws():
    generator = np.random.default_rng(1)
    block = (np.sinh(generator.normal(size=(300, 4)) @ generator.normal(size=(4, 4)) / 2)).astype(np.float32)
    columns = ColumnMoments(4)
    columns.add(block)
    second = SecondMoment(4)
    second.add(standardise(block, columns.mean, inverse_deviation(columns), squash=True))
    projection, _ = fit_projection(columns, second, 4, squash=True)
    components, spread = projection.scores(block[:1]), np.full((1, 4), 0.5, np.float32)
    found, deviations = projection.features(components, spread, spread[0])
    draws = components + 0.5 * generator.normal(size=(200_000, 4)).astype(np.float32)
    values, _ = projection.features(draws, np.zeros_like(draws), spread[0])
    np.testing.assert_allclose(found[0], values.mean(0), rtol=0.02, atol=0.02)
    np.testing.assert_allclose(deviations[0], values.std(0), rtol=0.02)
