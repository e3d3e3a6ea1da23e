import numpy as np

from pmrl_cli.diagnosis.run import StateSampling, state_of
from tests.simulate import dataset_of, simulate


def chosen_of(data, *, reservoir, seed=0, **options):
    return state_of(data, sampling=StateSampling(reservoir, seed=seed), **options).reservoir.chosen()


def test_the_reservoir_is_the_same_instances_in_any_order():
    data = simulate(200, 2, 4, group_size=4)
    order = np.random.default_rng(0).permutation(200)
    groups = [f"g{i // 4}" for i in order]
    moved = dataset_of({f.name: f.array[order] for f in data.modalities}, ids=[f"id{i}" for i in order], group=groups)
    for group in (None, "group"):
        straight, shuffled = (chosen_of(one, group=group, reservoir=50, seed=1) for one in (data, moved))
        np.testing.assert_array_equal(straight.ids, shuffled.ids)
        np.testing.assert_array_equal(straight.vectors[0], shuffled.vectors[0])
    assert set(chosen_of(data, reservoir=50, seed=1).ids) != set(chosen_of(data, reservoir=50, seed=2).ids)


def test_the_reservoir_keeps_whole_groups_and_part_of_one_that_is_larger():
    data = simulate(200, 2, 4, group_size=8)
    chosen = chosen_of(data, group="group", reservoir=50)
    assert len(chosen) == 48
    assert set(np.bincount(chosen.groups)) == {8}
    assert len(chosen_of(simulate(200, 2, 4, group_size=100), group="group", reservoir=50)) == 50
    assert len(chosen_of(data, group="group", reservoir=500)) == 200


def test_the_reservoir_is_a_fair_sample():
    chosen = [chosen_of(simulate(100, 2, 2), reservoir=20, seed=seed).ids for seed in range(200)]
    counts = np.bincount([int(i.removeprefix("id")) for ids in chosen for i in ids], minlength=100)
    assert counts.sum() == 200 * 20
    # Of a hypergeometric count of mean 40 and deviation 5.7, the extremes of a hundred.
    assert counts.min() > 40 - 4 * 5.7
    assert counts.max() < 40 + 4 * 5.7


def test_labels_and_presence_go_with_their_instances():
    data = simulate(120, 3, 4, missing=0.3, classes=5)
    chosen = chosen_of(data, label="label", reservoir=40)
    rows = np.array([int(i.removeprefix("id")) for i in chosen.ids])
    np.testing.assert_array_equal(chosen.present, data.present[rows])
    labels = np.array(data.columns["label"].to_pylist())[rows]
    same = labels[:, None] == labels
    np.testing.assert_array_equal(chosen.labels[:, None] == chosen.labels, same)
