"""Connected components of what shows the same thing, against a union-find written from its definition."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmrl_cli.data.links import components, links_of
from pmrl_cli.errors import UsageError
from tests.simulate import dataset_of


def united(count, classes):
    parent = list(range(count))

    def root(i):
        while parent[i] != i:
            i = parent[i]
        return i

    for numbers in classes:
        first = {}
        for i, number in enumerate(numbers):
            if number >= 0:
                parent[root(i)] = root(first.setdefault(number, i))
    roots = [root(i) for i in range(count)]
    order = list(dict.fromkeys(roots))
    return [order.index(r) for r in roots]


@given(st.data())
def test_components_are_those_of_union_find(data):
    count = data.draw(st.integers(1, 40))
    most = data.draw(st.integers(0, 30))
    numbers = st.lists(st.integers(-1, most), min_size=count, max_size=count)
    classes = [np.array(one) for one in data.draw(st.lists(numbers, max_size=4))]
    assert components(count, classes).tolist() == united(count, classes)


def test_a_long_chain_is_one_component_in_any_order():
    order = np.random.default_rng(0).permutation(5000)
    assert components(5000, [(np.arange(5000) // 2)[order], ((np.arange(5000) + 1) // 2)[order]]).max() == 0


def vectors(numbers, seed=0):
    return np.random.default_rng(seed).normal(size=(max(numbers) + 1, 16))[numbers]


def test_copies_of_any_modality_and_matches_show_the_same_thing_and_groups_only_depend():
    data = dataset_of(
        {"a": vectors([0, 0, 1, 2, 3, 4, 5, 6]), "b": vectors([0, 1, 2, 2, 3, 4, 5, 6], seed=1)},
        match=[None, None, None, None, "x", "x", None, None],
        owner=["u", None, None, None, None, "v", "v", "u"],
    )
    found = links_of(data)
    assert found.same.tolist() == [0, 0, 1, 1, 2, 3, 4, 5]
    assert found.dependent.tolist() == found.same.tolist()
    assert found.not_followed is None
    found = links_of(data, match="match", group="owner")
    assert found.same.tolist() == [0, 0, 1, 1, 2, 2, 3, 4]
    assert found.dependent.tolist() == [0, 0, 1, 1, 2, 2, 2, 0]
    with pytest.raises(UsageError, match="'scene', expected one of match, owner"):
        links_of(data, match="scene")


def test_common_vectors_do_not_chain_a_data_set_to_one_component():
    generator = np.random.default_rng(0)
    images = np.arange(1200) // 4  # four captions each
    captions = np.arange(1200)
    common = generator.choice(1200, 360, replace=False)
    captions[common] = 1200 + np.arange(360) % 40  # nine rows each, of nine images: they percolate
    data = dataset_of({"image": vectors(images), "text": vectors(captions, seed=1)})
    assert np.bincount(components(1200, [images, captions])).max() > 900
    found = links_of(data)
    assert found.not_followed == 4
    assert found.same.tolist() == components(1200, [images]).tolist()


def test_a_template_links_nothing():
    text = np.arange(300)
    text[::3] = 300
    data = dataset_of({"image": vectors(np.arange(300)), "text": vectors(text, seed=1)})
    assert links_of(data).same.tolist() == list(range(300))
