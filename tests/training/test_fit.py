"""A fit: never below its start, the same twice, and after an interruption the same as without one."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch

from pmrl_cli.aligner import Aligner
from pmrl_cli.data.dataset import Dataset, Features
from pmrl_cli.data.split import VALIDATION, split_instances
from pmrl_cli.errors import DataError, DivergedError, StateError, UsageError
from pmrl_cli.files.scratch import Scratch
from pmrl_cli.training.bank import build_bank
from pmrl_cli.training.fit import fit
from pmrl_cli.training.heldout import held_out_retrieval
from pmrl_cli.training.loop import Batches, Interrupted, schedule
from pmrl_cli.training.settings import FitSettings
from pmrl_cli.training.start import solve_start


def simulate(n=300, seed=0, missing=0.2, noise=0.5, dims=(12, 10, 8)):
    """Nonlinear readings of one latent: linear adapters cannot take all of it."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(n, 6))
    present = np.ones((n, len(dims)), dtype=bool)
    present[rng.random(n) < missing, -1] = False
    features = []
    for m, d in enumerate(dims):
        x = np.tanh(latent @ rng.normal(size=(6, d))) + noise * rng.normal(size=(n, d))
        features.append(Features(f"m{m}", (x * present[:, [m]]).astype(np.float32), digest=f"digest {m}"))
    ids = pa.array([f"i{i}" for i in range(n)], pa.large_string())
    return Dataset(ids, tuple(features), present)


def settings_for(**changes):
    """One candidate and no refit, unless a test is about them."""
    return FitSettings(**{"dropout": 0.0, "refit": False, "test": 0.0} | changes)


def weights(fitted):
    return {name: tensor.clone() for name, tensor in fitted.adapters.state_dict().items()}


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("objective", ["pmrl", "pmrl-paper"])
@pytest.mark.parametrize("adapter", ["linear", "mlp"])
def test_a_fit_never_ends_below_its_start_and_keeps_the_best_weights(objective, adapter):
    fitted = fit(simulate(), settings_for(objective=objective, adapter=adapter, steps=60, batch_size=64))
    assert fitted.history[0].step == 0
    assert fitted.start.mrr == pytest.approx(fitted.setting.held_out.mrr, abs=1e-6)
    assert fitted.best.mrr == max(line.mrr for line in fitted.history) >= fitted.start.mrr
    data = simulate()
    rows = np.flatnonzero(split_instances(data, fitted.settings.split_rule) == VALIDATION)
    scores = [
        torch.from_numpy(p.scores(f.read(rows)) * data.present[rows, [m]][:, None])
        for m, (p, f) in enumerate(zip(fitted.projections, data.modalities, strict=True))
    ]
    with torch.no_grad():
        kept = held_out_retrieval(fitted.adapters(scores), torch.from_numpy(data.present[rows]))
    assert kept.mrr == pytest.approx(fitted.best.mrr, abs=1e-6)


def test_training_takes_what_the_closed_form_cannot():
    fitted = fit(simulate(n=1500, noise=0.1), settings_for(learning_rate=2e-3))
    assert fitted.best.mrr > fitted.start.mrr + 0.02


def test_no_steps_leave_the_closed_form_of_all_instances():
    data = simulate()
    fitted = fit(data, settings_for(steps=0, adapter="linear", refit=True))
    everyone = np.ones(len(data), dtype=bool)
    bank = build_bank(data, everyone, seed=0, scratch=Scratch())
    start = solve_start(bank, fitted.setting)
    for adapter, m in zip(fitted.adapters.merged(), start.maps, strict=True):
        assert torch.equal(adapter["weight"], torch.from_numpy(m))
    assert fitted.best.step == 0


def test_features_in_one_space_already_start_as_they_are():
    # Few instances of many dimensions that nearly coincide: nothing learned from them beats leaving them alone.
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(60, 200))
    arrays = [(shared + 0.8 * rng.normal(size=shared.shape)).astype(np.float32) for _ in range(2)]
    ids = pa.array([f"i{i}" for i in range(60)], pa.large_string())
    both = np.ones((60, 2), dtype=bool)
    data = Dataset(ids, (Features("a", arrays[0]), Features("b", arrays[1])), both)
    fitted = fit(data, settings_for(steps=0))
    assert fitted.setting.given
    other = Dataset(ids, (Features("a", arrays[0]), Features("b", arrays[1][:, :150])), both)
    assert not fit(other, settings_for(steps=0)).setting.given


def test_a_refit_trains_everyone_that_was_not_kept_for_test_as_long_as_was_best():
    data = simulate(noise=0.1)
    fitted = fit(data, settings_for(refit=True, test=0.3, steps=60))
    assert len(fitted.seen["train"]) == fitted.counts["train"] + fitted.counts["validation"]
    assert len(fitted.seen["validation"]) == 0
    last = fitted.history[-1]
    assert last.stage == "refit"
    assert last.epoch == pytest.approx(fitted.best.epoch, rel=0.2)
    kept = fit(data, settings_for(refit=False, test=0.3, steps=60))
    assert {part: len(hashes) for part, hashes in kept.seen.items()} == {p: kept.counts[p] for p in kept.seen}


def test_validation_chooses_the_dropout_where_none_is_given():
    fitted = fit(simulate(noise=0.1), settings_for(dropout=None, steps=60))
    best = {stage: max(h.mrr for h in fitted.history if h.stage == stage) for stage in ("dropout 0", "dropout 0.5")}
    assert fitted.dropout == max((0.0, 0.5), key=lambda d: best[f"dropout {d:g}"])
    assert fitted.best.mrr == max(best.values())


def test_equal_fits_have_equal_weights_and_another_seed_other_ones():
    settings = settings_for(steps=30, batch_size=32)
    first, again, other = (fit(simulate(), s) for s in (settings, settings, settings_for(steps=30, seed=1)))
    assert same(weights(first), weights(again))
    assert not same(weights(first), weights(other))


@pytest.mark.parametrize("killed_after", [1, 15, 39, 40, 63, 81])
def test_an_interrupted_fit_continues_bit_for_bit(tmp_path, killed_after):
    settings = settings_for(steps=40, batch_size=32, patience=99, dropout=None, refit=True)
    whole = fit(simulate(), settings)
    calls = iter(range(10**6))
    with pytest.raises(Interrupted):
        fit(simulate(), settings, checkpoint=tmp_path / "state", should_stop=lambda: next(calls) == killed_after)
    resumed = fit(simulate(), settings, checkpoint=tmp_path / "state")
    assert same(weights(whole), weights(resumed))
    assert [line.step for line in whole.history] == [line.step for line in resumed.history]
    assert repr(whole.history) == repr(resumed.history)
    assert whole.learned == resumed.learned


def test_a_checkpoint_of_other_data_or_settings_is_refused_by_name(tmp_path):
    settings = settings_for(steps=40, batch_size=32)
    with pytest.raises(Interrupted):
        fit(simulate(), settings, checkpoint=tmp_path, should_stop=lambda: True)
    with pytest.raises(StateError, match="setting learning_rate"):
        fit(simulate(), settings_for(steps=40, batch_size=32, learning_rate=1e-3), checkpoint=tmp_path)
    other = simulate()
    changed = Features("m0", other.modalities[0].array, digest="another")
    other = Dataset(other.ids, (changed, *other.modalities[1:]), other.present)
    with pytest.raises(StateError, match="data of m0"):
        fit(other, settings, checkpoint=tmp_path)


def test_divergence_is_an_error_that_names_the_step():
    with pytest.raises(DivergedError, match=r"(loss (nan|inf) at|not finite after) step \d+.*Lower --learning-rate"):
        fit(simulate(), settings_for(steps=50, learning_rate=1e30))


def test_instances_with_one_modality_are_dealt_to_no_batch():
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
    fit(data, settings, report=count)
    fit(both, settings, report=count)
    assert rows[0] == rows[-1]  # a batch of everybody: nobody with one modality was dealt


def test_an_objective_refuses_a_number_of_modalities_before_any_work_is_done():
    stages = []
    before = torch.random.get_rng_state()
    with pytest.raises(UsageError, match="triangle takes three modalities: 2, expected 3"):
        fit(simulate(dims=(12, 10)), settings_for(objective="triangle"), stage=stages.append)
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
    ids = pa.array([f"i{i}" for i in range(2000)], pa.large_string())
    arrays = [rng.normal(size=(2000, 1)).astype(np.float32), rng.normal(size=(2000, 2)).astype(np.float32)]
    data = Dataset(ids, (Features("a", arrays[0]), Features("b", arrays[1])), np.ones((2000, 2), dtype=bool))
    aligner = Aligner(steps=0).fit(data)
    norms = np.linalg.norm(aligner.transform(data)["a"], axis=1)
    np.testing.assert_allclose(norms, 1, atol=1e-5)


def test_a_checkpoint_of_another_split_is_refused_by_name(tmp_path):
    data = simulate()
    words = ["validation" if i % 5 == 0 else "train" for i in range(len(data))]
    sides = [{"part": pa.array(w)} for w in (words, words[::-1])]
    settings = settings_for(split_column="part", steps=40, batch_size=32)
    calls = iter(range(100))
    one, other = (Dataset(data.ids, data.modalities, data.present, side) for side in sides)
    with pytest.raises(Interrupted):
        fit(one, settings, checkpoint=tmp_path, should_stop=lambda: next(calls) == 3)
    with pytest.raises(StateError, match="split"):
        fit(other, settings, checkpoint=tmp_path)


def test_every_epoch_deals_every_instance_once_and_continues_anywhere():
    rows = torch.arange(100, 123)
    batches = Batches(rows, 5, seed=3)
    stream = batches.after(0)
    first = [next(stream) for _ in range(12)]
    epoch = torch.cat(first[:4])
    assert len(set(epoch.tolist())) == 20
    assert set(epoch.tolist()) <= set(rows.tolist())
    later = batches.after(7)
    assert all(torch.equal(next(later), first[i]) for i in range(7, 12))


@pytest.mark.parametrize("n", [2, 3, 33, 50, 200, 10**6])
def test_schedules_fit_the_number_of_instances(n):
    plan = schedule(settings_for(), n)
    assert 1 <= plan.batch_size <= min(n, 1024)
    assert plan.steps >= 20 * (n // plan.batch_size)


def test_tiny_wide_and_constant_data_do_not_collapse():
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(50, 4))
    arrays = {f"m{m}": shared @ rng.normal(size=(4, 120)) + 0.1 * rng.normal(size=(50, 120)) for m in range(7)}
    ids = pa.array([f"i{i}" for i in range(50)], pa.large_string())
    data = Dataset(
        ids, tuple(Features(k, v.astype(np.float32)) for k, v in arrays.items()), np.ones((50, 7), dtype=bool)
    )
    fitted = fit(data, settings_for(steps=45))
    assert fitted.best.mrr > 0.8
    constant = Features("m7", np.ones((50, 3), dtype=np.float32))
    with pytest.raises(DataError, match="constant modality.*'m7'"):
        fit(Dataset(ids, (*data.modalities, constant), np.ones((50, 8), dtype=bool)), settings_for(steps=45))


def test_resolved_settings_refit_byte_for_byte(tmp_path):
    data = simulate()
    Aligner(steps=20, objective_settings={"spectrum_weight": 0.5}).fit(data).save(tmp_path / "a")
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    Aligner(**config["settings"]).fit(data).save(tmp_path / "b")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert {"model.safetensors", "resolved.toml", "metrics.json", "history.csv", "README.md"} < {*names}
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
