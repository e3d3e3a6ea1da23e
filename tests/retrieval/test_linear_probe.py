"""The linear probe against normal equations summed in loops."""

import numpy as np
import pytest

from pmrl_cli.retrieval.linear_probe import FOLDS, RIDGES, held_out_predictions


def by_loops(vectors, classes, ridge):
    """A function from a vector to its class, from float64 sums over the rows, one by one."""
    kinds = sorted(set(classes.tolist()))
    mean = sum(x for x in vectors) / len(vectors)
    shares = {c: sum(y == c for y in classes) / len(classes) for c in kinds}
    scatter = sum(np.outer(x - mean, x - mean) for x in vectors)
    total = scatter + ridge * np.trace(scatter) / len(mean) * np.eye(len(mean))
    weights = {}
    for c in kinds:
        response = sum((x - mean) * ((y == c) - shares[c]) for x, y in zip(vectors, classes, strict=True))
        weights[c] = np.linalg.solve(total, response)
    return lambda x: max(kinds, key=lambda c: shares[c] + weights[c] @ (x - mean))


def test_predictions_are_those_of_ridge_regressions_of_the_other_folds():
    generator = np.random.default_rng(0)
    classes = generator.integers(3, size=90)
    vectors = generator.normal(size=(3, 6))[classes] + 1.2 * generator.normal(size=(90, 6))
    groups = np.arange(90) // 2
    folds = np.random.default_rng(4).permutation(45)[groups] % FOLDS
    wanted = np.empty(90, int)
    for fold in range(FOLDS):
        watched = (fold + 1) % FOLDS
        inner, seen = (folds != fold) & (folds != watched), folds == watched
        right = {}
        for ridge in RIDGES:
            predict = by_loops(vectors[inner], classes[inner], ridge)
            right[ridge] = sum(predict(x) == y for x, y in zip(vectors[seen], classes[seen], strict=True))
        ridge = max(RIDGES, key=lambda ridge: (right[ridge], -ridge))
        predict = by_loops(vectors[folds != fold], classes[folds != fold], ridge)
        wanted[folds == fold] = [predict(x) for x in vectors[folds == fold]]
    np.testing.assert_array_equal(held_out_predictions(vectors, classes, groups, seed=4), wanted)
    assert (wanted == classes).mean() > 0.6


def test_nothing_is_learned_of_labels_that_the_vectors_do_not_hold_nor_of_copies_in_a_group():
    generator = np.random.default_rng(1)
    groups = np.arange(400) // 2
    vectors = generator.normal(size=(200, 100))[groups]  # the two of a group are equal, and so is their label
    classes = generator.integers(4, size=200)[groups]
    assert (held_out_predictions(vectors, classes, groups) == classes).mean() < 0.4


@pytest.mark.parametrize("dim", [2, 300])
def test_separate_classes_are_recognised_for_any_number_of_columns(dim):
    classes = np.arange(100) % 4
    vectors = np.zeros((100, dim), np.float32)
    vectors[:, 0], vectors[:, 1] = np.cos(classes * np.pi / 2), np.sin(classes * np.pi / 2)
    assert (held_out_predictions(vectors, classes, np.arange(100)) == classes).all()


def test_equal_vectors_get_the_most_frequent_class_and_few_groups_none():
    classes = np.array([0] * 12 + [1] * 20)
    predicted = held_out_predictions(np.ones((32, 5)), classes, np.arange(32))
    assert set(predicted.tolist()) == {1}
    assert held_out_predictions(np.ones((32, 5)), classes, np.arange(32) % (FOLDS - 1)) is None
