"""Held-out information: nothing where there is none, all of it where only two modalities together say it."""

import numpy as np
import pytest

from pmrl_cli.information import heads
from pmrl_cli.information.heads import held_out_log_losses
from pmrl_cli.information.shapley import conditional_weights, shapley_weights

N = 800


@pytest.fixture(autouse=True, scope="module")
def few_steps():
    """A quarter of the steps: what is stated here holds after them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heads, "_STEPS", 100)
        yield


def information(vectors, classes, present=None, groups=None, seed=0):
    """What each says alone, what it adds to all others, and its Shapley value, in nats."""
    present = np.ones((len(classes), len(vectors)), dtype=bool) if present is None else present
    groups = np.arange(len(classes)) if groups is None else groups
    _, losses = held_out_log_losses(vectors, present, classes, groups, seed=seed)
    values = losses[:, :1].mean(0) - losses.mean(0)
    count = len(vectors)
    return (
        values[[1 << m for m in range(count)]],
        conditional_weights(count) @ values,
        shapley_weights(count) @ values,
    )


def draw(seed=0):
    rng = np.random.default_rng(seed)
    return rng, rng.integers(0, 2, N)


def test_independent_modalities_have_no_information():
    # The published code, whose conditional entropies lack the weight p(z), gives 2.73 nats for independent normals.
    rng, classes = draw()
    alone, added, _ = information([rng.normal(size=(N, 8)) for _ in range(3)], classes)
    assert np.abs(alone).max() < 0.02
    assert np.abs(added).max() < 0.02


def test_copies_say_the_same_and_add_nothing():
    rng, classes = draw(1)
    vectors = rng.normal(size=(2, 8))[classes] + rng.normal(size=(N, 8))
    alone, added, shares = information([vectors, vectors], classes)
    assert alone.min() > 0.2
    assert np.abs(added).max() < 0.02
    assert shares[0] == pytest.approx(shares[1], abs=0.02)


def test_information_that_only_two_modalities_together_carry_is_found():
    # The published code gives 4.16 nats here.
    rng, first = draw(2)
    second = rng.integers(0, 2, N)
    directions = rng.normal(size=(2, 2, 8))
    vectors = [directions[i][bit] + 0.1 * rng.normal(size=(N, 8)) for i, bit in enumerate((first, second))]
    alone, added, shares = information(vectors, first ^ second)
    assert np.abs(alone).max() < 0.02
    assert added == pytest.approx(np.log(2), abs=0.05)
    assert shares == pytest.approx(np.log(2) / 2, abs=0.05)


def test_information_is_that_of_a_channel():
    # A bit sent through a channel that flips it with probability .1: ln 2 - h(.1).
    rng, bits = draw(3)
    seen = bits ^ (rng.random(N) < 0.1)
    vectors = [seen[:, None] + 0.01 * rng.normal(size=(N, 3)), rng.normal(size=(N, 3))]
    alone, _, _ = information(vectors, bits)
    expected = np.log(2) + 0.1 * np.log(0.1) + 0.9 * np.log(0.9)
    assert alone[0] == pytest.approx(expected, abs=0.05)


def test_memorised_groups_say_nothing():
    # 80 groups of 10 with one label each and a mark of their own: rows of other groups tell nothing.
    rng = np.random.default_rng(4)
    groups = np.repeat(np.arange(80), 10)
    classes = rng.integers(0, 2, 80)[groups]
    marks = rng.normal(size=(80, 16))[groups] + 0.01 * rng.normal(size=(N, 16))
    known, _, _ = information([marks, marks], classes, groups=groups)
    leaked, _, _ = information([marks, marks], classes)
    assert known.max() < 0.1
    assert leaked.min() > 0.5


def test_incomplete_instances_are_trained_on_but_not_evaluated():
    rng, classes = draw(5)
    vectors = [rng.normal(size=(2, 4))[classes] + rng.normal(size=(N, 4)) for _ in range(2)]
    present = np.ones((N, 2), dtype=bool)
    present[::3, 1] = False
    spoiled = vectors[1].copy()
    spoiled[::3] = np.nan
    rows, losses = held_out_log_losses([vectors[0], spoiled], present, classes, np.arange(N))
    assert rows.tolist() == np.flatnonzero(present.all(axis=1)).tolist()
    assert losses.shape == (len(rows), 4)
    assert np.isfinite(losses).all()


def test_columns_of_any_scale_and_more_columns_than_rows_are_taken():
    rng, classes = draw(6)
    few = slice(0, 120)
    signal = classes[few, None] * 3.0 + 0.1 * rng.normal(size=(120, 1))
    wide = np.concatenate([1e6 * signal, 1e-3 * rng.normal(size=(120, 400)), np.ones((120, 1))], axis=1)
    alone, _, _ = information([np.repeat(signal, 40, axis=1), wide], classes[few])
    assert alone[0] > 0.6
    assert np.isfinite(alone).all()
