import numpy as np

from pmrl_cli.retrieval.batches import read_batch
from pmrl_cli.stats.instances import shuffle_pairs
from tests.simulate import simulate


def test_shuffling_keeps_every_vector_and_pattern_and_no_pair():
    data = simulate(300, 3, 6, missing=0.3)
    batch = read_batch(data, slice(0, 300))
    apart = shuffle_pairs(batch, np.arange(300), np.random.default_rng(0))
    rows_and_vectors = enumerate(batch.embeddings.tolist())
    origins = {tuple(vector): row for row, vectors in rows_and_vectors for vector in vectors}
    kept = np.searchsorted(batch.rows, apart.rows)
    assert (apart.present == batch.present[kept]).all()
    for vectors, present in zip(apart.embeddings.tolist(), apart.present.tolist(), strict=True):
        from_rows = [origins[tuple(v)] for v, there in zip(vectors, present, strict=True) if there]
        assert len(set(from_rows)) == len(from_rows)
    assert len(apart.rows) > 280  # only chance meetings are left out


def test_shuffling_never_pairs_a_group_with_itself():
    data = simulate(60, 2, 6)
    batch = read_batch(data, slice(0, 60))
    groups = np.arange(60) // 20
    apart = shuffle_pairs(batch, groups, np.random.default_rng(0))

    def sources(m):
        return [int((batch.embeddings[:, m] == vector).all(1).nonzero()[0]) for vector in apart.embeddings[:, m]]

    first, second = sources(0), sources(1)
    assert len(first) > 20
    assert (groups[first] != groups[second]).all()
    assert len(shuffle_pairs(batch, np.zeros(60, int), np.random.default_rng(0)).rows) == 0
