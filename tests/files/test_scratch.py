"""Working arrays: in memory within a budget, on disk beyond it, and in memory again when some were let go of."""

import numpy as np

from pmrl_cli.files.durable.scratch import Scratch


def in_memory(array):
    return not isinstance(array, np.memmap)


def test_what_is_let_go_of_can_be_taken_again():
    scratch = Scratch(4 * 100)
    first = scratch.empty((60,))
    second = scratch.empty((60,))
    assert in_memory(first)
    assert not in_memory(second)
    second[:] = 7
    view = first[:10]
    del first
    assert not in_memory(scratch.empty((60,)))  # a view holds it
    del view
    assert in_memory(scratch.empty((60,)))
    assert (second == 7).all()


def test_a_budget_is_shared_by_all_that_is_held_at_once():
    scratch = Scratch(4 * 100)
    held = [scratch.empty((25,)) for _ in range(6)]
    assert [in_memory(array) for array in held] == [True] * 4 + [False] * 2
