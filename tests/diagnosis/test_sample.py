import numpy as np

from pmrl_cli.diagnosis.sample import choose_reservoir, shuffle_pairs
from pmrl_cli.retrieval.batches import read_batch
from tests.simulate import dataset_of, simulate


def test_the_reservoir_is_the_same_instances_in_any_order():
    data = simulate(200, 2, 4)
    order = np.random.default_rng(0).permutation(200)
    moved = dataset_of({f.name: f.array[order] for f in data.modalities}, ids=[f"id{i}" for i in order])
    groups = np.arange(200) // 4
    for straight, shuffled in ((None, None), (groups, groups[order])):
        chosen = choose_reservoir(data, np.arange(200), straight, limit=50, seed=1)
        again = choose_reservoir(moved, np.arange(200), shuffled, limit=50, seed=1)
        assert set(order[again]) == set(chosen)


def test_the_reservoir_keeps_whole_groups_and_at_least_one():
    data, rows = simulate(200, 2, 4), np.arange(200)
    chosen = choose_reservoir(data, rows, rows // 8, limit=50, seed=0)
    assert len(chosen) == 48
    assert set(np.bincount(chosen // 8)) == {0, 8}
    assert len(choose_reservoir(data, rows, rows // 100, limit=50, seed=0)) == 100
    assert len(choose_reservoir(data, rows, rows // 8, limit=500, seed=0)) == 200


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
