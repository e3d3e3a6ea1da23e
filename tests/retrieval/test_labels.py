from itertools import permutations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from pmrl_cli.retrieval.batches import read_batch
from pmrl_cli.retrieval.labels import average_precision, label_precision
from pmrl_cli.retrieval.precision import chance_average_precision
from tests.simulate import dataset_of, simulate


@pytest.mark.parametrize("levels", [5, 40, 100_000])
def test_average_precision_is_scikit_learns_with_and_without_ties(levels):
    generator = np.random.default_rng(levels)
    # Scores on the grid of comparison, so that equal means equal for both.
    scores = (generator.integers(-levels, levels, size=(50, 60)) / 2**19).astype(np.float32)
    relevant = generator.random((50, 60)) < 0.2
    relevant[:, 0] = True
    expected = [average_precision_score(r, s) for r, s in zip(relevant, scores, strict=True)]
    np.testing.assert_allclose(average_precision(scores, relevant), expected, rtol=1e-12)


@pytest.mark.parametrize("relevant", range(1, 7))
def test_chance_is_the_mean_over_all_orders_of_six(relevant):
    orders = np.array(list(permutations(range(6)))) < relevant
    scores = np.tile(np.linspace(1, 0, 6, dtype=np.float32), (len(orders), 1))
    mean = average_precision(scores, orders).mean()
    assert chance_average_precision(np.array([relevant]), 6)[0] == pytest.approx(mean)


def test_a_gallery_of_the_partner_only_has_perfect_retrieval():
    assert chance_average_precision(np.array([1]), 1)[0] == 1


def test_label_precision_of_a_data_set_is_scikit_learns_per_query():
    data = simulate(80, 2, 8, noise=2.0, missing=0.2, seed=1)
    labels = np.random.default_rng(0).integers(-1, 3, size=80)
    asking = np.arange(80) % 3 == 0
    batch = read_batch(data, slice(0, 80))
    rows, precision, by_chance = label_precision(batch, data.names, labels, asking)["m0->m1"]
    usable = data.present.all(1) & (labels >= 0)
    np.testing.assert_array_equal(rows, np.flatnonzero(usable & asking))
    scores = (batch.embeddings[rows, 0] @ batch.embeddings[np.flatnonzero(usable), 1].T).numpy()
    expected = [
        average_precision_score(labels[usable] == labels[row], s) for row, s in zip(rows, scores, strict=True)
    ]
    np.testing.assert_allclose(precision, expected, rtol=1e-9)
    counts = np.array([(labels[usable] == labels[row]).sum() for row in rows])
    np.testing.assert_allclose(by_chance, chance_average_precision(counts, usable.sum()))


def test_equal_vectors_share_the_precision_of_their_class_share():
    data = dataset_of({"a": np.ones((10, 3)), "b": np.ones((10, 3))})
    labels = np.repeat([0, 1], [4, 6])
    found = label_precision(read_batch(data, slice(0, 10)), data.names, labels, np.ones(10, bool))
    np.testing.assert_allclose(found["b->a"].precision, np.repeat([0.4, 0.6], [4, 6]))
