"""Aligner keeps scikit-learn's contract as far as several modalities let it, and speaks of Python's keywords."""

import inspect

import numpy as np
import pytest

from pmrl_cli import Aligner
from pmrl_cli.errors import DataError, PmrlError, UsageError
from pmrl_cli.python_words import command_line, translated
from pmrl_cli.train.settings import FitSettings

FAST = {"steps": 0, "adapter": "linear", "test": 0.0, "dim": 4}


def arrays(n=120, seed=0):
    generator = np.random.default_rng(seed)
    latent = generator.normal(size=(n, 4))
    parts = {}
    for i, (name, d) in enumerate({"image": 9, "text": 7}.items()):
        seen = latent @ np.random.default_rng(i).normal(size=(4, d))
        parts[name] = (seen + 0.3 * generator.normal(size=(n, d))).astype(np.float32)
    return parts


def structured(n=120, seed=0):
    parts = arrays(n, seed)
    whole = np.empty(n, dtype=[(name, "f4", (part.shape[1],)) for name, part in parts.items()])
    for name, part in parts.items():
        whole[name] = part
    return whole


def test_every_setting_is_a_keyword_of_the_signature_with_its_default():
    keywords = inspect.signature(Aligner).parameters
    assert set(keywords) == {"device", *FitSettings().as_dict()}
    assert {name: one.default for name, one in keywords.items()} == Aligner().get_params()
    assert "learning_rate" in str(inspect.signature(Aligner))


def test_a_setting_is_kept_as_it_was_given():
    terms = {"spectrum": 0.1}
    aligner = Aligner(terms=terms)
    assert aligner.get_params()["terms"] is terms
    assert (Aligner().get_params()["terms"], Aligner().settings.terms) == (None, {})
    assert aligner.set_params(terms=None).settings.terms == {}


@pytest.mark.parametrize(
    "check",
    [
        "estimator_cloneable",
        "estimator_tags_renamed",
        "valid_tag_types",
        "estimator_repr",
        "no_attributes_set_in_init",
        "parameters_default_constructible",
        "get_params_invariance",
        "mixin_order",
    ],
)
def test_checks_of_scikit_learn_that_need_no_array(check):
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    getattr(checks, f"check_{check}")("Aligner", Aligner(**FAST))


@pytest.mark.filterwarnings("ignore::UserWarning")  # for what is not a subclass, and for what takes no 2-D array
def test_check_estimator_takes_it_for_one_of_dicts():
    checks = pytest.importorskip("sklearn.utils.estimator_checks")
    done = checks.check_estimator(Aligner(**FAST), on_skip=None, on_fail="raise")
    assert all(one["status"] in ("passed", "skipped") for one in done)


def test_a_grid_search_chooses_by_held_out_ranks():
    selection = pytest.importorskip("sklearn.model_selection")
    search = selection.GridSearchCV(Aligner(**FAST), {"dim": [1, 4]}, cv=3).fit(structured())
    assert search.best_params_ == {"dim": 4}
    held_out = search.cv_results_["mean_test_score"]
    assert 0 < held_out[0] < held_out[1] <= 1
    assert (
        search.predict if hasattr(search, "predict") else search.transform(structured(5, 1))["image"].shape == (5, 4)
    )


def test_a_pipeline_ends_in_it():
    pipeline = pytest.importorskip("sklearn.pipeline")
    preprocessing = pytest.importorskip("sklearn.preprocessing")
    pandas = pytest.importorskip("pandas")
    frame = pandas.concat({name: pandas.DataFrame(part) for name, part in arrays().items()}, axis=1)
    steps = pipeline.make_pipeline(preprocessing.FunctionTransformer(lambda frame: frame / 2), Aligner(**FAST))
    vectors = steps.fit_transform(frame)
    plain = Aligner(**FAST).fit(frame / 2)
    np.testing.assert_array_equal(vectors["text"], plain.transform(frame / 2)["text"])
    assert steps.score(frame) == plain.score(frame / 2)


def test_refused_parameters_change_nothing():
    aligner = Aligner(**FAST)
    before = aligner.get_params()
    for wrong in ({"device": "tpu", "dim": 3}, {"objective": "clip", "dim": 3}, {"dim": 3, "depth": 2}):
        with pytest.raises(UsageError):
            aligner.set_params(**wrong)
    assert (aligner.get_params(), aligner.settings.dim) == (before, 4)


def test_the_score_is_the_mean_reciprocal_rank_of_all_that_is_given():
    aligner = Aligner(**FAST).fit(arrays())
    given = arrays(50, seed=3)
    vectors = aligner.transform(given)
    ranks = []
    for first, second in (("image", "text"), ("text", "image")):
        cosines = vectors[first].astype(float) @ vectors[second].T
        ranks += [1 / (1 + sum(row > row[i])) for i, row in enumerate(cosines)]
    assert aligner.score(given) == pytest.approx(np.mean(ranks))


def test_frames_of_two_levels_go_in_and_come_out():
    pandas = pytest.importorskip("pandas")
    parts = arrays()
    ids = [f"i{row}" for row in range(120)]
    frame = pandas.concat({name: pandas.DataFrame(part, index=ids) for name, part in parts.items()}, axis=1)
    aligner = Aligner(**FAST)
    found = aligner.set_output(transform="pandas").fit_transform(frame)
    assert found.index.tolist() == ids
    expected = Aligner(**FAST).fit(parts, ids).transform(parts)
    for name in parts:
        np.testing.assert_array_equal(found[name].to_numpy(), expected[name])
    assert isinstance(aligner.set_output(transform="default").transform(frame), dict)
    with pytest.raises(UsageError, match="unknown output: 'polars'"):
        aligner.set_output(transform="polars")


def test_a_notebook_shows_settings_and_space():
    aligner = Aligner(objective_settings={"spectrum_weight": 0.5}, **FAST)
    assert aligner._repr_html_().startswith("<pre>Aligner(objective_settings={&#x27;spectrum_weight&#x27;: 0.5}, ")
    assert aligner._repr_html_().endswith("not fitted</pre>")
    assert "4 dims · image, text" in aligner.fit(arrays())._repr_html_()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: Aligner().fit([np.eye(3), np.eye(3)]),
            r"a list, expected a dict from modality.*\{'image': X, 'text'",
        ),
        (lambda: Aligner().fit(np.eye(3), np.eye(3)), "a ndarray, expected a dict from modality"),
        (lambda: Aligner().fit(arrays(4), ["a", "b", "a", "c"]), "labels go into columns="),
        (lambda: Aligner(objective="clip"), "Choose one with objective"),
        (lambda: Aligner(device="tpu"), "Choose one with device"),
        (lambda: Aligner(objective="arm"), "expected target, of the side table columns"),
        (lambda: Aligner(learning_rates=1), "unknown setting: learning_rates"),
        (lambda: Aligner(**FAST).fit(arrays()).evaluate(arrays(), label="x"), "'x', expected a file of side columns"),
    ],
)
def test_misuse_is_one_sentence_without_options_of_the_command_line(call, message):
    with pytest.raises(PmrlError, match=message) as caught:
        call()
    assert "--" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_become_keywords_with_their_values():
    for text, expected in {
        "Lower --learning-rate (now 0.1) and add --restart.": "Lower learning_rate (now 0.1).",
        "--objective arm, which has": "objective='arm', which has",
        "Choose another --objective, or leave --group out.": "Choose another objective, or leave group out.",
        "--steps 0 with siglip": "steps=0 with siglip",
        "Batches have room: add --batch-size 64 --restart.": "Batches have room: add batch_size=64.",
        "Leave --adapter out.": "Leave adapter out.",
        "--target COLUMN, of the side table --labels FILE": "target, of the side table columns",
    }.items():
        assert translated(text) == expected


def test_a_command_keeps_the_words_of_the_command_line():
    with command_line(), pytest.raises(UsageError, match="Choose one with --objective"):
        Aligner(objective="clip")


def test_features_that_bring_ids_twice_are_refused():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(np.eye(3), index=["a", "b", "c"])
    with pytest.raises(DataError, match="ids are given twice"):
        Aligner().fit({"image": frame, "text": frame}, ids=["a", "b", "c"])


def test_what_is_found_prints_short_and_becomes_a_frame():
    pytest.importorskip("pandas")
    aligner = Aligner(**FAST).fit(arrays())
    evaluation, diagnosis = aligner.evaluate(arrays(), split="all"), aligner.diagnose(arrays(), split="all")
    assert len(repr(evaluation)) < 200 > len(repr(diagnosis))
    frame, result = evaluation.to_frame(), evaluation.as_dict()
    number = result["directions"]["image->text"]["metrics"]["MRR"]
    row = frame.loc["directions.image->text.metrics.MRR"]
    assert row.tolist() == [number["value"], number["chance"], *number["ci"]]
    frame, result = diagnosis.to_frame(), diagnosis.as_dict()
    assert frame.loc["alignment.A", "value"] == result["alignment"]["A"]["value"]
    assert frame.index.is_unique
    assert f"{evaluation.pairwise['MRR']['value']:.3f}" in repr(evaluation)
    code = result["verdict"]["code"]
    assert repr(diagnosis).startswith(f"Diagnosis({code}, image, text, 120 instances")
    lines = diagnosis.summary().splitlines()
    assert lines[0].startswith(f"{code} [")
    assert f"agreement above chance (A): {result['alignment']['A']['value']:.3f}"[:36] in "\n".join(lines)
    assert len(lines) <= 8
