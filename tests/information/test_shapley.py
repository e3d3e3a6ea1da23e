"""Shapley values by their definition, and the two other ways to read the values of all subsets."""

from itertools import permutations

import numpy as np
import pytest

from pmrl_cli.errors import UsageError
from pmrl_cli.information.shapley import check_modalities, conditional_weights, members, shapley_weights


def by_orders(values, modalities):
    """Mean over all orders of arrival of what each adds to those before it."""
    found = np.zeros(modalities)
    orders = list(permutations(range(modalities)))
    for order in orders:
        before = 0
        for m in order:
            found[m] += values[before | 1 << m] - values[before]
            before |= 1 << m
    return found / len(orders)


@pytest.mark.parametrize("modalities", [1, 2, 3, 4, 5])
def test_it_is_the_mean_over_orders_of_arrival(modalities):
    values = np.random.default_rng(modalities).normal(size=2**modalities)
    found = shapley_weights(modalities) @ values
    assert np.abs(found - by_orders(values, modalities)).max() < 1e-12
    assert found.sum() == pytest.approx(values[-1] - values[0])


def test_of_two_it_is_the_mean_of_alone_and_added():
    values = np.array([0.0, 0.3, 0.5, 0.6])
    assert shapley_weights(2) @ values == pytest.approx([(0.3 + 0.1) / 2, (0.5 + 0.3) / 2])
    assert conditional_weights(2) @ values == pytest.approx([0.1, 0.3])


def test_members_are_the_bits():
    assert members(3)[5].tolist() == [True, False, True]


def test_more_than_six_modalities_are_refused():
    check_modalities(6)
    with pytest.raises(UsageError, match="6 or fewer"):
        check_modalities(7)
