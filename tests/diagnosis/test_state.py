"""Any division into states, in any order, is one pass; against plain numpy over all rows."""

from dataclasses import replace

import numpy as np
import pytest

from pmrl_cli.data.shards import shard_rows
from pmrl_cli.diagnosis.run import StateSampling, diagnose_state, state_of
from pmrl_cli.diagnosis.state.accumulate import State
from pmrl_cli.diagnosis.state.summaries import Columns, numbers_of
from pmrl_cli.errors import DataError, StateError
from pmrl_cli.retrieval.batches import read_batch
from pmrl_cli.stats.instances import instance_statistics
from tests.simulate import dataset_of, simulate
from tests.states import assert_same_state

OPTIONS = {"group": "group", "label": "label", "sampling": StateSampling(100, 200)}


def parts_of(data, pieces, header, seed=0):
    """States of a random division of the instances."""
    part = np.random.default_rng(seed).integers(pieces, size=len(data))
    for piece in range(pieces):
        yield State.of(replace(data, present=data.present & (part == piece)[:, None]), header)


def merged(states):
    states = list(states)
    first = State.from_arrays(states[0].header, states[0].arrays())
    for state in states[1:]:
        first.merge(state)
    return first


def numbers(node, path=""):
    if isinstance(node, dict):
        for key, value in node.items():
            yield from numbers(value, f"{path}.{key}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from numbers(value, f"{path}.{index}")
    else:
        yield path, node


def assert_same(first, second):
    first, second = dict(numbers(first)), dict(numbers(second))
    assert first.keys() == second.keys()
    for path, value in first.items():
        if isinstance(value, float):
            assert second[path] == pytest.approx(value, rel=1e-10, abs=1e-10), path
        else:
            assert second[path] == value, path


@pytest.mark.parametrize("pieces", [2, 5])
def test_any_division_in_any_order_merges_to_the_state_of_one_pass(pieces):
    data = simulate(300, 3, 12, noise=0.8, missing=0.25, group_size=3)
    whole = state_of(data, **OPTIONS)
    states = list(parts_of(data, pieces, whole.header))
    for order in (states, states[::-1]):
        assert_same_state(whole, merged(order))


def test_merged_states_have_the_diagnosis_of_one_pass():
    data = simulate(300, 3, 12, noise=0.8, missing=0.25, group_size=3)
    whole = state_of(data, **OPTIONS)
    assert_same(diagnose_state(whole).result, diagnose_state(merged(parts_of(data, 5, whole.header))).result)


def test_more_shards_than_instances_merge_to_the_state_of_one_pass():
    data = simulate(60, 3, 4, noise=0.8, missing=0.25, group_size=3)
    shares = [data.part(shard_rows(60, index, 75)) for index in range(75)]
    assert {len(share) for share in shares} == {0, 1}
    assert all(
        np.shares_memory(share.modalities[0].array, data.modalities[0].array) for share in shares if len(share)
    )
    states = [state_of(share, **OPTIONS, shard=(index, 75)) for index, share in enumerate(shares)]
    assert_same_state(state_of(data, **OPTIONS), merged(states))


def test_modalities_of_different_columns_merge_too():
    generator = np.random.default_rng(0)
    data = dataset_of({"a": generator.normal(size=(300, 5)), "b": generator.normal(size=(300, 9))})
    whole = state_of(data)
    assert_same_state(whole, merged(parts_of(data, 3, whole.header)))


def test_the_state_is_what_numpy_says_of_all_rows():
    data = simulate(500, 3, 8, missing=0.3)
    state = state_of(data)
    usable = np.flatnonzero(data.present.sum(1) >= 2)
    batch = read_batch(data, usable)
    vectors, has = batch.embeddings.double().numpy(), batch.present.numpy().astype(float)
    assert state.instances == len(usable)
    np.testing.assert_array_equal(state.counts, has.T @ has)
    for m in range(3):
        np.testing.assert_allclose(state.sums[m], has.T @ vectors[:, m], atol=1e-5)
    values = numbers_of(instance_statistics(batch), batch.present.numpy())
    for s, column in enumerate(values.T):
        known = column[~np.isnan(column)]
        assert state.summaries.mean(s) == pytest.approx(known.mean(), abs=1e-6)
        assert state.summaries.mean_error(s) == pytest.approx(known.std(ddof=1) / np.sqrt(len(known)), rel=1e-4)
    cosines = list(Columns(3).cosine)
    width = 2 / 4096
    for s in cosines:
        known = values[~np.isnan(values[:, s]), s]
        for q in (0.05, 0.5, 0.95):
            assert state.summaries.quantile([s], q) == pytest.approx(
                np.quantile(known, q, method="inverted_cdf"), abs=width
            )


def test_one_instance_in_two_states_is_refused():
    data = simulate(50, 2, 4)
    first, second = state_of(data), state_of(data)
    with pytest.raises(StateError, match=r"states overlap: the other \(id 'id[0-9]+'\)"):
        first.merge(second)


def test_states_made_otherwise_are_refused():
    data = simulate(50, 2, 4)
    with pytest.raises(StateError, match="states do not fit together: the other: seed 1, expected 0 as in the first"):
        state_of(data).merge(state_of(data, sampling=StateSampling(seed=1)))
    with pytest.raises(StateError, match="dims"):
        state_of(data).merge(state_of(simulate(50, 2, 5)))


def test_what_has_no_pair_is_refused():
    with pytest.raises(DataError, match="too few modalities"):
        state_of(dataset_of({"a": np.ones((3, 2))}))
    present = np.array([[True, False], [False, True]])
    with pytest.raises(DataError, match="no instance in two modalities"):
        state_of(dataset_of({"a": np.ones((2, 2)), "b": np.ones((2, 2))}, present=present))


def test_groups_are_counted_once_however_they_are_divided():
    data = simulate(400, 2, 4, group_size=4)
    whole = state_of(data, group="group")
    assert whole.groups == 100
    assert merged(parts_of(data, 3, whole.header)).groups == 100
