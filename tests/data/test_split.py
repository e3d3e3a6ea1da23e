"""Splits by hash: stable, grouped, of the stated shares; and shards."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmrl_cli.data.dataset import Dataset, Features
from pmrl_cli.data.shards import shard_rows
from pmrl_cli.data.split import TEST, TRAIN, VALIDATION, SplitRule, split_instances
from pmrl_cli.errors import DataError, UsageError
from tests.simulate import dataset_of


def make(ids, **columns):
    array = np.ones((len(ids), 2), dtype=np.float32)
    return Dataset(
        pa.array(ids, pa.large_string()),
        (Features("a", array), Features("b", array)),
        np.ones((len(ids), 2), dtype=bool),
        {name: pa.array(values) for name, values in columns.items()},
    )


IDS = [f"id-{i}" for i in range(5000)]


def test_split_fractions_are_met_within_sampling_error():
    parts = split_instances(make(IDS), SplitRule(0, 0.2, 0.3))
    shares = np.bincount(parts, minlength=3) / len(IDS)
    np.testing.assert_allclose(shares, [0.5, 0.2, 0.3], atol=0.03)


def test_adding_removing_and_reordering_instances_changes_no_other_part():
    rule = SplitRule(3, 0.2, 0.2)
    before = dict(zip(IDS, split_instances(make(IDS), rule), strict=True))
    others = [*reversed(IDS[::3]), "new-1", "new-2"]
    after = dict(zip(others, split_instances(make(others), rule), strict=True))
    assert all(after[i] == before[i] for i in IDS[::3])


def test_test_instances_do_not_depend_on_the_validation_share():
    small, large = (split_instances(make(IDS), SplitRule(0, v, 0.2)) for v in (0.1, 0.4))
    assert ((small == TEST) == (large == TEST)).all()


def test_seeds_deal_differently():
    first, second = (split_instances(make(IDS), SplitRule(seed, 0.5)) for seed in (0, 1))
    assert 0.4 < (first == second).mean() < 0.6


def test_groups_stay_together_and_a_null_group_is_its_own():
    groups = [f"g{i % 50}" if i % 10 else None for i in range(len(IDS))]
    parts = split_instances(make(IDS, owner=groups), SplitRule(0, 0.3, 0.2, group="owner"))
    for g in set(groups) - {None}:
        assert len({p for p, other in zip(parts, groups, strict=True) if other == g}) == 1
    alone = parts[[i for i, g in enumerate(groups) if g is None]]
    assert len(set(alone)) == 3


def test_a_split_column_is_followed_and_a_missing_validation_part_is_drawn_by_hash():
    words = ["test" if i % 4 == 0 else "Train" for i in range(len(IDS))]
    parts = split_instances(make(IDS, split=words), SplitRule(0, 0.2, column="split"))
    assert ((parts == TEST) == (np.arange(len(IDS)) % 4 == 0)).all()
    assert 0.15 < (parts[parts != TEST] == VALIDATION).mean() < 0.25
    stated = ["dev" if i % 2 else "train" for i in range(len(IDS))]
    parts = split_instances(make(IDS, split=stated), SplitRule(0, 0.2, column="split"))
    assert (parts == np.where(np.arange(len(IDS)) % 2, VALIDATION, TRAIN)).all()


def test_other_words_and_columns_are_errors_that_name_them():
    with pytest.raises(DataError, match="holdout in column 'split'"):
        split_instances(make(["x", "y"], split=["train", "holdout"]), SplitRule(0, 0.2, column="split"))
    with pytest.raises(UsageError, match=r"'fold'.*one of split"):
        split_instances(make(["x"], split=["train"]), SplitRule(0, 0.2, column="fold"))


def test_a_stated_split_that_parts_a_group_is_refused_with_its_ids():
    data = make(["a", "b", "c", "d"], split=["train", "test", "train", "test"], owner=["x", "y", "y", None])
    assert len(split_instances(data, SplitRule(0, 0.2, column="split"))) == 4
    with pytest.raises(DataError) as caught:
        split_instances(data, SplitRule(0, 0.2, group="owner", column="split"))
    assert "owner (id 'c'): train, and test at id 'b' (1 such groups)" in str(caught.value)
    whole = make(["a", "b", "c"], split=["train", "test", "test"], owner=["x", "y", "y"])
    assert split_instances(whole, SplitRule(0, 0.2, group="owner", column="split"))[1:].tolist() == [TEST, TEST]


def copies(numbers, seed):
    return np.random.default_rng(seed).normal(size=(max(numbers) + 1, 8)).astype(np.float32)[numbers]


def test_copies_of_a_vector_are_never_parted_and_the_shares_stay():
    images, words = np.arange(5000) // 5, np.random.default_rng(1).permutation(5000) // 2
    data = dataset_of({"image": copies(images, 0), "text": copies(np.arange(5000), 1)}, ids=IDS)
    parts = split_instances(data, SplitRule(0, 0.2, 0.3))
    assert (parts == parts[::5][images]).all()
    np.testing.assert_allclose(np.bincount(parts) / 5000, [0.5, 0.2, 0.3], atol=0.06)
    chosen = dataset_of({"image": copies(np.arange(5000), 0), "text": copies(words, 1)}, ids=IDS)
    again = split_instances(chosen, SplitRule(0, 0.2, 0.3))
    assert all((again[words == word] == again[words == word][0]).all() for word in range(0, 2500, 50))
    np.testing.assert_allclose(np.bincount(again) / 5000, [0.5, 0.2, 0.3], atol=0.04)


def test_matches_stay_together_and_a_stated_split_that_parts_one_is_refused():
    scene = [f"s{i % 700}" for i in range(len(IDS))]
    data = make(IDS, scene=scene, split=["train", "test"] * 2500)
    parts = split_instances(data, SplitRule(0, 0.3, 0.2, match="scene"))
    assert (parts == parts[np.arange(len(IDS)) % 700]).all()
    odd = make(IDS, scene=[f"s{i % 701}" for i in range(len(IDS))], split=["train", "test"] * 2500)
    with pytest.raises(DataError, match=r"scene \(id 'id-701'\): test, and train at id 'id-0' \(701 such groups\)"):
        split_instances(odd, SplitRule(0, 0.3, match="scene", column="split"))


def test_a_column_named_group_is_that_of_groups_unless_another_is_named():
    data = make(IDS, group=[f"g{i // 10}" for i in range(len(IDS))], owner=IDS)
    assert (split_instances(data, SplitRule(0, 0.3)) == split_instances(data, SplitRule(0, 0.3, group="group"))).all()
    assert (split_instances(data, SplitRule(0, 0.3, group="owner")) != split_instances(data, SplitRule(0, 0.3))).any()


@given(count=st.integers(0, 10**12), of=st.integers(1, 50))
def test_shards_cover_every_row_once_in_order_and_are_of_equal_size(count, of):
    shards = [shard_rows(count, index, of) for index in range(of)]
    assert [0, *(s.stop for s in shards)] == [*(s.start for s in shards), count]
    sizes = [s.stop - s.start for s in shards]
    assert max(sizes) - min(sizes) <= 1
