"""The join equals a join by dictionaries, in order and in every position."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pmrl_cli.data.join import join_ids, rows_of

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4)
LISTS = st.lists(st.lists(TEXT, min_size=1, max_size=8, unique=True), min_size=1, max_size=4)


def arrow(values):
    return pa.array(values, pa.large_string())


def brute_force(lists, how, least):
    order = list(lists[0]) if how == "inner" else list(dict.fromkeys(i for ids in lists for i in ids))
    rows = [{value: row for row, value in enumerate(ids)} for ids in lists]
    least = len(lists) if how == "inner" else least
    return [i for i in order if sum(i in table for table in rows) >= least], rows


@settings(deadline=None)
@given(LISTS, st.sampled_from(["inner", "outer"]), st.integers(1, 3))
def test_join_is_the_dictionary_join(lists, how, least):
    joined = join_ids([arrow(ids) for ids in lists], how, least)
    kept, rows = brute_force(lists, how, least)
    assert joined.ids.to_pylist() == kept
    assert joined.present.tolist() == [[i in table for table in rows] for i in kept]
    for ids, positions in zip(lists, joined.positions, strict=True):
        found = list(range(len(ids))) if positions is None else positions.tolist()
        assert found == [kept.index(i) if i in kept else -1 for i in ids]


def test_equal_lists_need_no_positions():
    ids = arrow(["b", "a"])
    assert join_ids([ids, arrow(["b", "a"])], "inner").positions == (None, None)


@settings(deadline=None)
@given(st.lists(TEXT, unique=True, max_size=8), st.lists(TEXT, max_size=8))
def test_rows_of_finds_each_id_or_says_it_is_absent(ids, wanted):
    assert rows_of(arrow(ids), arrow(wanted)).tolist() == [ids.index(i) if i in ids else -1 for i in wanted]
    assert rows_of(arrow(ids), arrow(wanted)).dtype == np.int64
