"""A fit: never below its start, the same twice, and refused where it cannot be."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch

from pmrl_cli.aligner import Aligner
from pmrl_cli.closed_form.columns import ProjectionFitter
from pmrl_cli.closed_form.init import solve_gcca_init
from pmrl_cli.closed_form.projected import project
from pmrl_cli.closed_form.projection import FeatureMap
from pmrl_cli.data.dataset import Dataset, Features
from pmrl_cli.data.split import TEST, TRAIN, VALIDATION, split_instances
from pmrl_cli.errors import DataError, DivergedError, UsageError
from pmrl_cli.files.durable.scratch import Scratch
from pmrl_cli.fit.context import Hooks
from pmrl_cli.fit.fit import fit
from pmrl_cli.fit.search import choose_members
from pmrl_cli.train.heldout import held_out_retrieval
from tests.train.fits import same, settings_for, simulate, weights


@pytest.mark.parametrize("objective", ["pmrl", "pmrl-paper"])
@pytest.mark.parametrize("adapter", ["linear", "mlp", "kernel"])
def test_a_fit_never_ends_below_its_start_and_keeps_the_best_weights(objective, adapter):
    # With a dimension asked for, one member.
    changes = {
        "objective": objective,
        "adapter": adapter,
        "dim": 8,
        "steps": 40,
        "batch_size": 64,
        "learning_rate": 5e-4,
    }
    fitted = fit(simulate(), settings_for(**changes))
    assert fitted.dim == 8
    assert fitted.history[0].step == 0
    assert fitted.start.mrr == pytest.approx(fitted.recipes[0].closed_form.held_out.mrr, abs=1e-6)
    best = fitted.recipes[0].best
    assert best.mrr == max(line.mrr for line in fitted.history) >= fitted.start.mrr
    data = simulate()
    rows = np.flatnonzero(split_instances(data, fitted.settings.split_rule) == VALIDATION)
    present = torch.from_numpy(data.present[rows])
    with torch.no_grad():
        features = [f.read(rows) for f in data.modalities]
        embeddings = fitted.members[0].embed(range(3), features, present).vectors
    kept = held_out_retrieval(embeddings, present)
    assert kept.mrr == pytest.approx(best.mrr, abs=1e-6)
    assert fitted.held_out.mrr == pytest.approx(best.mrr, abs=1e-6)


def squares(n=400):
    """Two modalities, the second the square of the first: uncorrelated with it, and determined by it."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, 2))
    ids = pa.array([f"i{i}" for i in range(n)], pa.large_string())
    arrays = [x.astype(np.float32), (x**2 + 0.05 * rng.normal(size=x.shape)).astype(np.float32)]
    return Dataset(ids, (Features("a", arrays[0]), Features("b", arrays[1])), np.ones((n, 2), dtype=bool))


def test_training_takes_what_the_closed_form_cannot():
    fitted = fit(squares(), settings_for(steps=60, batch_size=64, learning_rate=2e-3))
    assert fitted.held_out.mrr > fitted.start.mrr + 0.4


def test_no_steps_leave_the_closed_form_of_all_instances():
    data = simulate()
    fitted = fit(data, settings_for(steps=0, adapter="linear", refit=True))
    everyone = np.arange(len(data))
    config = fitted.recipes[0].closed_form.config
    projections = ProjectionFitter(data, everyone, seed=0).fit(config.features)
    projected = project(data, everyone, everyone, projections, cross=True, scratch=Scratch())
    start = solve_gcca_init(projected, config, "gcca")
    _, stored = fitted.members[0].encoder.state()
    for name, m in zip(data.names, start.maps, strict=True):
        assert torch.equal(stored[f"{name}.adapter.weight"], torch.from_numpy(m))
    assert [recipe.name for recipe in fitted.tried] == ["linear start"]


def test_features_in_one_space_already_start_as_they_are():
    # Few instances of many dimensions that nearly coincide: nothing learned from them beats leaving them alone.
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(60, 200))
    arrays = [(shared + 0.8 * rng.normal(size=shared.shape)).astype(np.float32) for _ in range(2)]
    ids = pa.array([f"i{i}" for i in range(60)], pa.large_string())
    both = np.ones((60, 2), dtype=bool)
    data = Dataset(ids, (Features("a", arrays[0]), Features("b", arrays[1])), both)
    fitted = fit(data, settings_for(steps=0, adapter="auto"))
    assert len(fitted.tried) == 1  # kernel scores, worse on their own, are not beside them
    assert fitted.recipes[0].closed_form.config.features == FeatureMap("given", squash=False)
    other = Dataset(ids, (Features("a", arrays[0]), Features("b", arrays[1][:, :150])), both)
    assert fit(other, settings_for(steps=0)).recipes[0].closed_form.config.features.kind == "linear"


def test_a_refit_trains_on_all_but_the_test_part_for_the_best_number_of_epochs():
    data = simulate(noise=0.1)
    fitted = fit(data, settings_for(refit=True, test=0.3, steps=60, dim=8))
    assert len(fitted.seen["train"]) == fitted.counts["train"] + fitted.counts["validation"]
    assert len(fitted.seen["validation"]) == 0
    last = fitted.history[-1]
    assert last.stage == "refit linear dropout 0"
    assert last.epoch == pytest.approx(fitted.recipes[0].best.epoch, rel=0.2)
    assert last.step == fitted.recipes[0].steps
    kept = fit(data, settings_for(refit=False, test=0.3, steps=60))
    for part in ("train", "validation"):
        assert len(kept.seen[part]) == kept.counts[part]
    assert len(kept.seen["vectors.m0"]) == kept.counts["train"]


def test_validation_chooses_the_dropout_where_none_is_given():
    fitted = fit(simulate(noise=0.1), settings_for(dropout=None, steps=60, dim=8, learning_rate=5e-4))
    stages = [f"linear {how}" for how in ("start", "dropout 0", "dropout 0.5")]
    assert [recipe.name for recipe in fitted.tried] == stages
    best = {stage: max(h.mrr for h in fitted.history if h.stage == stage) for stage in stages}
    assert fitted.recipes[0].name == max(stages, key=lambda stage: best[stage])
    assert fitted.held_out.mrr == pytest.approx(max(best.values()), abs=1e-6)


def test_the_largest_number_of_members_within_tolerance_of_the_best_is_chosen():
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(200, 8, generator=generator)

    def member(noise, count=200):
        vectors = latent[:count, None] + noise * torch.randn(count, 2, 8, generator=generator)
        return torch.nn.functional.normalize(vectors, dim=2)

    present = torch.ones(200, 2, dtype=torch.bool)
    # One far better than the other: alone. Three with errors of their own: together, whatever their order.
    assert choose_members([member(3.0), member(0.2)], present) == [1]
    assert sorted(choose_members([member(0.7), member(0.7), member(0.7)], present)) == [0, 1, 2]
    # Ten instances cannot tell two alike apart.
    few = [member(0.7, 10), member(0.75, 10)]
    assert sorted(choose_members(few, present[:10])) == [0, 1]


def test_auto_tries_both_kinds_of_scores_and_its_space_is_that_of_its_members():
    data = simulate(noise=0.1)
    aligner = Aligner(steps=30, test=0.0, seed=0).fit(data)
    config = json.loads(aligner.texts["config.json"])
    assert {line.split(",")[0].split()[0] for line in aligner.texts["history.csv"].splitlines()[1:]} >= {
        "linear",
        "kernel",
    }
    assert aligner.dim == sum(member["dim"] for member in config["members"])
    embedded = aligner.transform(data)["m0"]
    assert embedded.shape == (len(data), aligner.dim)
    np.testing.assert_allclose(np.linalg.norm(embedded, axis=1), 1, atol=1e-5)


def test_members_that_share_their_scores_are_saved_and_read_back(tmp_path, monkeypatch):
    monkeypatch.setattr("pmrl_cli.fit.search.TOLERANCE", 1e9)  # all of them
    data = simulate(n=100)
    aligner = Aligner(adapter="mlp", steps=30, batch_size=16, learning_rate=2e-3).fit(data)
    config = json.loads(aligner.texts["config.json"])
    assert len(config["members"]) > 1
    aligner.save(tmp_path / "m")
    again = Aligner.load(tmp_path / "m").transform(data)
    for name, expected in aligner.transform(data).items():
        np.testing.assert_array_equal(again[name], expected)


def test_kernel_scores_take_what_linear_ones_cannot():
    linear, kernel = (
        fit(squares(), settings_for(adapter=kind, steps=0)).held_out.mrr for kind in ("linear", "kernel")
    )
    assert kernel > 3 * linear


@pytest.mark.parametrize("objective", ["gcca", "mcca"])
def test_a_closed_form_trains_nothing(objective):
    fitted = fit(simulate(), settings_for(objective=objective, adapter="auto"))
    assert [recipe.name for recipe in fitted.tried] == ["linear start", "kernel start"]
    assert all(line.step == 0 for line in fitted.history)


def test_auto_objective_tries_several_and_a_spent_budget_leaves_the_starts(monkeypatch):
    fitted = fit(simulate(), settings_for(objective="auto", steps=15))
    assert [r.name for r in fitted.tried] == ["linear start", "linear pmrl dropout 0", "linear infonce dropout 0"]
    fitted = fit(simulate(), settings_for(budget=1e-9))
    assert [recipe.name for recipe in fitted.tried] == ["linear start"]


def test_equal_fits_have_equal_weights_and_another_seed_other_ones():
    settings = settings_for(steps=30, batch_size=32)
    first, again, other = (fit(simulate(), s) for s in (settings, settings, settings_for(steps=30, seed=1)))
    assert same(weights(first), weights(again))
    assert not same(weights(first), weights(other))


def test_divergence_is_an_error_that_names_the_step():
    with pytest.raises(DivergedError, match=r"(loss (nan|inf) at|not finite after) step \d+.*Lower --learning-rate"):
        fit(simulate(), settings_for(steps=50, learning_rate=1e30))


def test_instances_with_one_modality_are_in_no_batch():
    data = simulate()
    alone = np.zeros_like(data.present)
    alone[:, 0] = True
    extra = simulate(n=50, seed=9)
    ids = pa.array([*data.ids.to_pylist(), *[f"x{i}" for i in range(50)]], pa.large_string())
    arrays = tuple(
        Features(f.name, np.concatenate([f.array, g.array * (m == 0)]))
        for m, (f, g) in enumerate(zip(data.modalities, extra.modalities, strict=True))
    )
    both = Dataset(ids, arrays, np.concatenate([data.present, alone[:50]]))
    rows = []

    def count(_line, plan):
        rows.append(plan.batch_size)

    settings = settings_for(steps=1, batch_size=10_000)
    fit(data, settings, hooks=Hooks(report=count))
    fit(both, settings, hooks=Hooks(report=count))
    assert rows[0] == rows[-1]  # one batch of all: no instance with one modality is in it


def test_an_objective_refuses_a_number_of_modalities_before_any_work_is_done():
    stages = []
    before = torch.random.get_rng_state()
    with pytest.raises(UsageError, match="triangle takes three modalities: 2, expected 3"):
        fit(simulate(dims=(12, 10)), settings_for(objective="triangle"), hooks=Hooks(stage=stages.append))
    assert stages == []
    assert torch.equal(torch.random.get_rng_state(), before)


def test_one_modality_or_no_validation_is_an_error():
    data = simulate()
    with pytest.raises(DataError, match="at least two modalities"):
        fit(Dataset(data.ids, data.modalities[:1], data.present[:, :1]), settings_for())
    few = simulate(n=3)
    with pytest.raises(DataError, match="too few (held-out|training) instances"):
        fit(few, settings_for())
    alone = Dataset(data.ids, data.modalities, data.present.copy())
    validation = split_instances(data, settings_for().split_rule) == VALIDATION
    alone.present[~validation] = np.eye(3, dtype=bool)[np.arange((~validation).sum()) % 3]
    with pytest.raises(DataError, match="too few training instances: 0 with two modalities or more"):
        fit(alone, settings_for())


def test_broken_weights_are_divergence_even_when_the_step_was_the_last():
    for refit in (False, True):
        with pytest.raises(DivergedError, match="not finite after step 1.*--restart"):
            fit(simulate(), settings_for(steps=1, learning_rate=1e30, refit=refit))


def test_unrelated_modalities_still_get_unit_embeddings():
    rng = np.random.default_rng(0)
    ids = pa.array([f"i{i}" for i in range(300)], pa.large_string())
    arrays = [rng.normal(size=(300, 1)).astype(np.float32), rng.normal(size=(300, 2)).astype(np.float32)]
    data = Dataset(ids, (Features("a", arrays[0]), Features("b", arrays[1])), np.ones((300, 2), dtype=bool))
    aligner = Aligner(steps=0).fit(data)
    norms = np.linalg.norm(aligner.transform(data)["a"], axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-5)


def test_tiny_wide_and_constant_data_do_not_collapse():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(50, 4))
    arrays = {f"m{m}": shared @ rng.normal(size=(4, 120)) + 0.1 * rng.normal(size=(50, 120)) for m in range(8)}
    ids = pa.array([f"i{i}" for i in range(50)], pa.large_string())
    data = Dataset(
        ids, tuple(Features(k, v.astype(np.float32)) for k, v in arrays.items()), np.ones((50, 8), dtype=bool)
    )
    fitted = fit(data, settings_for(steps=45, adapter="auto"))
    assert fitted.held_out.mrr > 0.8
    constant = Features("m8", np.ones((50, 3), dtype=np.float32))
    with pytest.raises(DataError, match="constant modality.*'m8'"):
        fit(Dataset(ids, (*data.modalities, constant), np.ones((50, 9), dtype=bool)), settings_for(steps=45))


def test_resolved_settings_refit_byte_for_byte(tmp_path):
    data = simulate(n=150)
    Aligner(steps=10, objective_settings={"spectrum_weight": 0.5}).fit(data).save(tmp_path / "a")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    Aligner(**config["settings"]).fit(data).save(tmp_path / "b")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert {"model.safetensors", "resolved.toml", "metrics.json", "history.csv", "README.md"} < {*names}
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_what_is_excluded_neither_trains_nor_chooses_and_is_counted():
    data = simulate()
    settings = settings_for(steps=20, batch_size=64, test=0.2)
    parts = split_instances(data, settings.split_rule)
    excluded = np.zeros_like(data.present)
    excluded[::5, 0] = True
    excluded[3::10] = True
    excluded &= data.present
    found = fit(data, settings, excluded=excluded)
    # As if they were missing and their numbers unknown.
    unknown = tuple(
        Features(f.name, np.where(excluded[:, [m]], np.float32(1e6), f.array), digest=f.digest)
        for m, f in enumerate(data.modalities)
    )
    evaluated = Dataset(data.ids, unknown, data.present & ~excluded)
    assert same(weights(found), weights(fit(evaluated, settings)))
    seen = excluded & (parts != TEST)[:, None]
    assert found.excluded == {"vectors": seen.sum(), "instances": seen.any(1).sum()}
    lost = seen.any(1) & ((data.present & ~seen).sum(1) < 2)
    assert found.counts["train"] == (~lost & (parts == TRAIN)).sum()
    assert found.counts["test"] == (parts == TEST).sum()
    assert not same(weights(found), weights(fit(data, settings)))
