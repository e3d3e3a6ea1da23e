import json
from dataclasses import fields

import numpy as np
import pytest

from pmrl_cli.diagnosis import diagnose, state_of
from pmrl_cli.diagnosis.evidence import Evidence
from pmrl_cli.diagnosis.run import StateSampling
from pmrl_cli.diagnosis.statistics.declared import section
from pmrl_cli.stats.statistic import Statistic
from pmrl_cli.stats.statistic import plain as as_json
from tests.simulate import dataset_of, simulate


def plain(diagnosis):
    """As JSON and back: fails on NaN and on anything that is not JSON."""
    return json.loads(json.dumps(diagnosis.as_dict(), allow_nan=False))


def alignment_of(data, **options):
    """The section ``alignment`` of a diagnosis, without the others."""
    return json.loads(json.dumps(as_json(section("alignment", Evidence(state_of(data, **options))))))


def codes(found):
    return {finding["code"] for finding in found["verdict"]["findings"]}


def centring_of(found):
    return next(one for one in found["remedies"] if one["action"] == "centre")


def vectors_of(data):
    return {f.name: np.array(f.array) for f in data.modalities}


def statistics(node, path=""):
    if isinstance(node, dict):
        if "status" in node:
            yield path, node
        else:
            for key, child in node.items():
                yield from statistics(child, f"{path}.{key}")


def test_a_common_rotation_scaling_and_the_order_of_modalities_and_instances_change_nothing():
    data = simulate(300, 3, 16, noise=0.8)
    vectors = vectors_of(data)
    straight = alignment_of(data)
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))[0]
    scales = np.random.default_rng(1).uniform(0.1, 9, size=(300, 1))
    order = np.random.default_rng(2).permutation(300)
    moved = {
        "rotated": dataset_of({name: x @ rotation for name, x in vectors.items()}),
        "scaled": dataset_of({name: x * scales for name, x in vectors.items()}),
        "renamed": dataset_of({"z": vectors["m0"], "y": vectors["m1"], "x": vectors["m2"]}),
        "reordered": dataset_of({n: x[order] for n, x in vectors.items()}, ids=[f"id{i}" for i in order]),
    }
    for how, other in moved.items():
        found = alignment_of(other)
        # The value is A = 1 - (1 - rho) / (1 - rho0): rho exactly, rho0 up to the draw of the shuffles.
        assert found["rho"]["value"] == pytest.approx(straight["rho"]["value"], rel=1e-5), how
        assert found["A"]["value"] == pytest.approx(straight["A"]["value"], abs=0.005), how
    assert alignment_of(moved["rotated"])["A"]["value"] == pytest.approx(straight["A"]["value"], rel=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_shuffling_all_but_one_modality_leaves_an_interval_with_zero_in_it(seed):
    vectors = vectors_of(simulate(400, 2, 16, noise=0.3, offset=2.0, seed=seed))
    vectors["m1"] = vectors["m1"][np.random.default_rng(seed).permutation(400)]
    found = plain(diagnose(dataset_of(vectors)))
    low, high = found["alignment"]["A"]["ci"]
    assert low <= 0.004
    assert high >= -0.004
    assert abs(found["pair"]["m0|m1"]["z"]["value"]) < 4
    assert found["verdict"]["code"] == "NO_PAIRING"


def test_the_interval_of_shuffled_data_covers_zero_as_often_as_it_says():
    covered = 0
    for seed in range(20):
        generator = np.random.default_rng(seed)
        data = dataset_of({m: generator.normal(size=(100, 8)) + 0.5 for m in "abc"})
        low, high = alignment_of(data, sampling=StateSampling(seed=seed))["A"]["ci"]
        covered += low <= 0 <= high
    assert covered >= 17


def test_identical_modalities_reach_one():
    z = np.random.default_rng(0).normal(size=(300, 8))
    found = plain(diagnose(dataset_of({"a": z, "b": z, "c": z})))
    for name in ("A", "rho", "signed"):
        assert found["alignment"][name]["value"] == pytest.approx(1, abs=1e-5)
    assert found["verdict"]["code"] == "HEALTHY"


def test_a_flipped_modality_is_anti_aligned_though_rho_is_one():
    z = np.random.default_rng(0).normal(size=(300, 8))
    found = plain(diagnose(dataset_of({"a": z, "b": z, "c": -z})))
    assert found["alignment"]["rho"]["value"] == pytest.approx(1, abs=1e-5)
    assert found["alignment"]["signed"]["value"] == pytest.approx(1 / 9, abs=1e-5)
    assert found["alignment"]["mixed_sign"]["value"] == 1
    anti = [f["subject"] for f in found["verdict"]["findings"] if f["code"] == "ANTI_ALIGNED"]
    assert anti == [["a|c"], ["b|c"]]


def test_one_point_for_all_is_a_collapse_and_not_alignment():
    generator = np.random.default_rng(0)
    away = generator.normal(size=16)
    collapsed = {m: away + 1e-2 * generator.normal(size=(300, 16)) for m in "ab"}
    found = plain(diagnose(dataset_of(collapsed)))
    assert found["alignment"]["rho"]["value"] > 0.999
    assert abs(found["alignment"]["A"]["value"]) < 0.2
    assert "COLLAPSE" in codes(found)
    exact = plain(diagnose(dataset_of({"a": np.ones((300, 4)), "b": np.ones((300, 4))})))
    assert exact["alignment"]["A"]["value"] is None
    assert exact["alignment"]["A"]["status"] == "collapsed"
    assert exact["retrieval"]["pairwise"]["R@1"]["value"] == pytest.approx(1 / 300)
    assert exact["retrieval"]["pairwise"]["AUC"]["value"] == pytest.approx(0.5)
    assert "COLLAPSE" in codes(exact)


def test_a_shared_cone_is_named_and_harmless():
    generator = np.random.default_rng(0)
    z, away = generator.normal(size=(300, 32)), 3 * np.ones(32)
    data = dataset_of({m: z + away + 0.1 * generator.normal(size=(300, 32)) for m in "ab"})
    found = plain(diagnose(data))
    assert codes(found) == {"CONE", "HEALTHY"}
    assert found["alignment"]["signed"]["chance"] > 0.8  # what a naked number would have called alignment


def test_a_constant_offset_is_a_gap_whose_repair_is_measured():
    found = plain(diagnose(simulate(400, 2, 32, noise=0.5, offset=30.0)))
    assert found["verdict"]["code"] == "MODALITY_GAP"
    centring = centring_of(found)
    assert centring["delta"]["value"] == pytest.approx(centring["after"]["value"] - centring["before"]["value"])
    assert centring["after"]["value"] > 0.9
    assert found["pair"]["m0|m1"]["gap"]["gap_share"]["value"] > 0.8
    aligned = plain(diagnose(simulate(400, 2, 32, noise=0.5)))
    assert abs(centring_of(aligned)["delta"]["value"]) < 0.02


def test_a_modality_that_deviates_is_the_odd_one_out():
    found = plain(diagnose(simulate(200, 4, 32, noise=[0.5, 0.5, 3.0, 0.5])))
    odd = [f["subject"] for f in found["verdict"]["findings"] if f["code"] == "ODD_ONE_OUT"]
    assert odd == [["m2"]]
    unrelated = vectors_of(simulate(200, 3, 32, noise=0.5))
    unrelated["m1"] = np.random.default_rng(9).normal(size=(200, 32))
    findings = plain(diagnose(dataset_of(unrelated)))["verdict"]["findings"]
    pairs = [finding["subject"][0] for finding in findings if finding["code"] == "UNRELATED_PAIR"]
    assert pairs == ["m0|m1", "m1|m2"]


def test_two_dimensions_in_use_of_sixty_four_are_too_few():
    low = np.zeros((400, 64))
    low[:, :2] = np.random.default_rng(0).normal(size=(400, 2))
    assert "DIM_COLLAPSE" in codes(plain(diagnose(dataset_of({"a": low, "b": low}))))


def test_few_instances_or_groups_are_a_finding():
    assert codes(plain(diagnose(simulate(60, 2, 8)))) == {"N_SMALL", "HEALTHY"}  # the level is said all the same
    assert "N_SMALL" in codes(plain(diagnose(simulate(400, 2, 8, group_size=20), group="group")))
    assert "N_SMALL" not in codes(plain(diagnose(simulate(400, 2, 8, group_size=20))))


def test_healthy_data_raise_nothing_else():
    assert codes(plain(diagnose(simulate(400, 3, 32, noise=0.5, missing=0.2)))) == {"HEALTHY"}


def test_every_number_of_modalities_is_adjusted_by_its_own_null():
    generator = np.random.default_rng(0)
    present = np.ones((600, 4), bool)
    present[:300, 2:] = False
    unpaired = dataset_of({m: generator.normal(size=(600, 32)) for m in "abcd"}, present=present)
    evidence = Evidence(state_of(unpaired))
    found = as_json(section("alignment", evidence))
    by_number = found["rho_by_modalities"]
    assert by_number["2"]["value"] - by_number["4"]["value"] > 0.2  # neither is aligned
    assert by_number["2"]["chance"] == pytest.approx(by_number["2"]["value"], abs=0.01)
    assert by_number["4"]["chance"] == pytest.approx(by_number["4"]["value"], abs=0.01)
    assert abs(found["A"]["value"]) < 0.02
    assert as_json(section("pair", evidence, 2, 3))["cosine"]["n"] == 300
    assert as_json(section("pair", evidence, 0, 1))["cosine"]["n"] == 600


def test_a_pair_without_instances_is_absent():
    present = np.array([[True, True, False]] * 200 + [[False, True, True]] * 200)
    data = simulate(400, 3, 16)
    found = plain(diagnose(dataset_of(vectors_of(data), present=present)))
    assert set(found["pair"]) == {"m0|m1", "m1|m2"}
    assert found["modality"]["m0"]["loading"]["n"] == 200


def test_statistics_come_from_all_instances_and_nulls_from_the_reservoir():
    data = simulate(900, 2, 16, noise=0.8)
    whole, sampled = plain(diagnose(data)), plain(diagnose(data, sampling=StateSampling(reservoir=300)))
    assert sampled["config"]["reservoir"] == 300
    assert sampled["alignment"]["rho"]["value"] == whole["alignment"]["rho"]["value"]
    assert sampled["alignment"]["rho"]["n"] == 900
    assert sampled["pair"]["m0|m1"]["z"]["n"] == 300
    assert sampled["alignment"]["A"]["value"] == pytest.approx(whole["alignment"]["A"]["value"], abs=0.02)
    assert sampled["alignment"]["A"]["ci"][1] - sampled["alignment"]["A"]["ci"][0] > 0


def test_groups_widen_intervals():
    data = simulate(100, 2, 16)
    copies = dataset_of(
        {n: np.repeat(x, 8, axis=0) for n, x in vectors_of(data).items()}, group=np.repeat(np.arange(100), 8)
    )
    width = {group: np.diff(alignment_of(copies, group=group)["rho"]["ci"])[0] for group in (None, "group")}
    assert width["group"] == pytest.approx(np.sqrt(8) * width[None], rel=0.05)


def test_every_statistic_has_the_same_shape_and_labels_add_theirs():
    found = plain(diagnose(simulate(200, 3, 8, missing=0.2), label="label"))
    for path, statistic in statistics(found):
        assert set(statistic) == {field.name for field in fields(Statistic)}, path
        if statistic["ci"] is not None:
            assert statistic["ci"][0] <= statistic["value"] <= statistic["ci"][1], path
    mean_ap = found["retrieval"]["pairwise"]["label_mAP"]
    assert mean_ap["value"] > mean_ap["chance"]


def test_the_same_seed_gives_the_same_diagnosis():
    data = simulate(150, 3, 8, missing=0.2)
    assert plain(diagnose(data, sampling=StateSampling(seed=3))) == plain(
        diagnose(data, sampling=StateSampling(seed=3))
    )


def test_evidence_names_statistics_that_are_there():
    found = plain(diagnose(dataset_of({"a": np.ones((100, 4)), "b": np.random.default_rng(0).normal(size=(100, 4))})))
    for finding in found["verdict"]["findings"]:
        for path in finding["evidence"]:
            node = found
            for key in path.split("."):
                node = node[key]


def test_one_or_two_instances_have_a_diagnosis_without_claims():
    for count in (1, 2):
        found = plain(diagnose(dataset_of({m: np.random.default_rng(0).normal(size=(count, 4)) for m in "abc"})))
        assert found["verdict"]["code"] == "N_SMALL"
        assert found["pair"]["a|b"]["z"]["value"] is None
        assert found["modality"]["a"]["participation_ratio"]["status"] == "n_too_small"


def test_points_of_the_projection_carry_their_labels_by_name_or_in_merged_states_by_number():
    from pmrl_cli.diagnosis import diagnose_state, state_of

    data = simulate(60, 2, 8, classes=3)
    of = dict(zip(data.ids.to_pylist(), data.columns["label"].to_pylist(), strict=True))
    state = state_of(data, label="label")
    order = [of[one] for one in state.reservoir.chosen().ids.tolist()]
    named = plain(diagnose_state(state, data))["plot"]["pca"]["labels"]
    assert named == order[: len(named)]
    numbered = plain(diagnose_state(state))["plot"]["pca"]["labels"]
    assert set(numbered) == {"class 1", "class 2", "class 3"}
    assert len(set(zip(named, numbered, strict=True))) == 3
