"""Runs of rows that do not belong to their ids, templates, swaps with like instances, leaks: found, named, placed."""

from dataclasses import asdict

import numpy as np
import pytest

from pmrl_cli.diagnosis import FLAGGED, diagnose, diagnose_state, state_of
from pmrl_cli.diagnosis.evidence import Evidence
from pmrl_cli.diagnosis.rules import RULES as ALL_RULES
from pmrl_cli.diagnosis.rules import ResultView
from pmrl_cli.diagnosis.rules.rows import RULES
from pmrl_cli.diagnosis.statistics.declared import section
from pmrl_cli.diagnosis.statistics.row_runs import SHORTEST, find_runs, scan
from pmrl_cli.stats.statistic import plain
from tests.simulate import dataset_of, simulate


def vectors_of(n, k, seed=0, d=24, noise=0.6):
    return {f.name: np.array(f.array) for f in simulate(n, k, d, noise=noise, seed=seed).modalities}


def unit(arrays):
    return [(x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32) for x in arrays.values()]


def said(data, code):
    """The findings of a rule that reads sections of modalities, from those sections alone."""
    evidence = Evidence(state_of(data), data)
    modality = {name: section("modality", evidence, m) for m, name in enumerate(evidence.names)}
    view = ResultView(plain({"inputs": {"modalities": evidence.names}, "modality": modality}))
    return [asdict(finding) for rule in ALL_RULES if rule.code == code for finding in rule.ask(view)]


@pytest.mark.parametrize("seed", range(4))
def test_the_scan_finds_the_deepest_run_of_all(seed):
    generator = np.random.default_rng(seed)
    values = generator.normal(size=40)
    values[12:23] -= 1.5
    standard = (values.mean() - values) / values.std()
    depths = {
        (a, b): standard[a:b].sum() * np.sqrt(40 / ((b - a) * (40 - b + a)))
        for a in range(40)
        for b in range(a + SHORTEST, 41)
        if b - a <= 36
    }
    best = max(depths, key=depths.get)
    [(depth, start, stop)] = scan(values[None])
    assert depth == pytest.approx(depths[start, stop])
    assert depth >= 0.97 * depths[best]


@pytest.mark.parametrize(("k", "n", "share"), [(2, 300, 1 / 3), (3, 600, 0.1), (5, 400, 0.1)])
def test_a_run_is_found_with_its_modality_and_rows(k, n, share):
    arrays = vectors_of(n, k, seed=k)
    first, last = n // 4, n // 4 + round(share * n)
    name = f"m{k - 1}"
    arrays[name][first:last] = arrays[name][first:last][np.random.default_rng(0).permutation(last - first)]
    found = said(dataset_of(arrays), "MISPAIRED_ROWS")
    assert [one["subject"] for one in found] == [("m0|m1",) if k == 2 else (name,)]
    assert np.abs(np.array(found[0]["rows"]) - [first, last]).max() <= 4
    assert found[0]["rate"] == pytest.approx(share, abs=0.02)
    assert f"id{found[0]['rows'][0]} " in found[0]["text"]


def test_a_shift_inside_a_run_is_named_and_suspects_point_there():
    arrays = vectors_of(500, 3)
    arrays["m1"][300:] = np.roll(arrays["m1"][300:], 2, axis=0)
    data = dataset_of(arrays)
    diagnosis = diagnose(data)
    (found,) = [f for f in diagnosis.as_dict()["verdict"]["findings"] if f["code"] == "MISPAIRED_ROWS"]
    assert "2 rows late" in found["text"]
    suspects = [
        (int(instance.removeprefix("id")), of)
        for one in diagnosis.mispairs.instances(data)
        for instance, of, probability in zip(one.ids.to_pylist(), one.suspect_modality, one.probability, strict=True)
        if probability >= FLAGGED
    ]
    assert diagnosis.result["suspects"]["flagged"] == len(suspects), "one number in the result and in the table"
    flagged = [row for row, of in suspects if of == "m1"]
    assert np.isin(np.arange(305, 500), flagged).mean() > 0.98
    assert np.isin(np.arange(290), flagged).mean() < 0.05


def test_two_runs_of_two_modalities_are_both_found():
    arrays = vectors_of(600, 4)
    generator = np.random.default_rng(0)
    for name, piece in (("m0", slice(50, 150)), ("m3", slice(400, 460))):
        arrays[name][piece] = generator.permutation(arrays[name][piece])
    found = said(dataset_of(arrays), "MISPAIRED_ROWS")
    assert {one["subject"][0] for one in found} == {"m0", "m3"}


def test_features_of_several_widths_show_a_run_too():
    arrays = vectors_of(400, 2)
    arrays["m1"] = arrays["m1"] @ np.random.default_rng(0).normal(size=(24, 20))
    arrays["m1"][100:220] = np.random.default_rng(1).permutation(arrays["m1"][100:220])
    (found,) = said(dataset_of(arrays), "MISPAIRED_ROWS")
    assert np.abs(np.array(found["rows"]) - [100, 220]).max() <= 10


def test_the_p_of_clean_rows_is_seldom_small_and_no_run_is_found():
    small, runs = 0, 0
    for seed in range(24):
        arrays = vectors_of(80, 2, seed=seed, d=8, noise=0.8)
        found = find_runs(unit(arrays), np.ones((80, 2), dtype=bool), np.arange(80), seed=seed)
        small += found.p <= 0.05
        runs += len(found.runs)
    assert small <= 4  # 1.2 expected; more than 4 has probability .006
    assert runs == 0


def test_one_vector_in_many_rows_is_a_template_with_its_share():
    arrays = vectors_of(400, 2)
    arrays["m0"][np.random.default_rng(0).permutation(400)[:80]] = arrays["m0"][0]
    (found,) = said(dataset_of(arrays), "TEMPLATES")
    assert not said(dataset_of(arrays), "MISPAIRS")  # a filler belongs to none of its rows: one cause, one finding
    assert found["subject"] == ("m0",)
    assert found["rate"] == pytest.approx(0.2, abs=0.004)
    assert not said(dataset_of(vectors_of(400, 2)), "TEMPLATES")


@pytest.mark.parametrize("share", [1 / 3, 0.1])
def test_swaps_at_random_are_found_with_their_rate(share):
    arrays = vectors_of(500, 3)
    bad = np.random.default_rng(0).permutation(500)[: round(share * 500)]
    arrays["m2"][bad] = arrays["m2"][np.roll(bad, 1)]
    (found,) = said(dataset_of(arrays), "MISPAIRS")
    assert found["subject"] == ("m2",)
    assert share / 1.5 <= found["rate"] <= 1.5 * share


def test_swaps_within_a_class_are_found():
    generator = np.random.default_rng(0)
    classes = np.arange(600) % 12
    latent = 1.5 * generator.normal(size=(12, 24))[classes] + generator.normal(size=(600, 24))
    arrays = {f"m{m}": latent + 0.5 * generator.normal(size=(600, 24)) for m in range(3)}
    bad = generator.permutation(600)[:90]
    for c in range(12):
        own = bad[classes[bad] == c]
        arrays["m1"][own] = arrays["m1"][np.roll(own, 1)]
    (found,) = said(dataset_of(arrays), "MISPAIRS")
    assert found["subject"] == ("m1",)
    assert 0.08 <= found["rate"] <= 0.3


@pytest.mark.parametrize(("sharing", "severity"), [(0, None), (1, "warn"), (30, "fail")])
def test_leaks_stand_before_healthy(sharing, severity):
    data = simulate(300, 2, 16, noise=0.4)
    leaks = {"judged": 300, "sharing": sharing, "modalities": {"m0": sharing, "m1": 0}}
    verdict = diagnose_state(state_of(data), data, inputs={"leaks": leaks}).as_dict()["verdict"]
    leak = [one for one in verdict["findings"] if one["code"] == "LEAK"]
    assert [one["severity"] for one in leak] == ([severity] if severity else [])
    assert verdict["code"] == ("LEAK" if severity else "HEALTHY")


def test_rules_of_rows_find_nothing_where_nothing_was_measured():
    empty = {"inputs": {"modalities": ["a"]}, "modality": {"a": {}}}
    assert not [finding for rule in RULES for finding in rule.ask(ResultView(empty))]
