import numpy as np
import pytest
import torch

from pmrl_cli.data import dataset as dataset_module
from pmrl_cli.data.shards import shard_rows
from pmrl_cli.fusion import WEIGHT_TEMPERATURE
from pmrl_cli.retrieval import counting
from pmrl_cli.retrieval import queries as queries_module
from pmrl_cli.retrieval import ranks as ranks_module
from pmrl_cli.retrieval.batches import read_batch
from pmrl_cli.retrieval.ranks import count_shard, rank_batch, rank_dataset, ranks_of
from pmrl_cli.retrieval.tally import TIE_BAND
from tests.reference import fusion as reference
from tests.simulate import dataset_of, simulate


def brute_force(queries, gallery):
    """Greater and tied counts from the whole float64 score matrix, the partner (same row) left out."""
    return counts(queries @ gallery.T)


def counts(scores):
    own = np.diag(scores)[:, None]
    others = ~np.eye(len(scores), dtype=bool)
    return ((scores > own + TIE_BAND) & others).sum(1), ((np.abs(scores - own) <= TIE_BAND) & others).sum(1)


def unit(x):
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


@pytest.fixture(params=[(7, 5), (64, 23), (2048, 4096)], ids=str)
def uneven_blocks(request, monkeypatch):
    monkeypatch.setattr(counting, "_QUERIES", request.param[0])
    monkeypatch.setattr(counting, "_CANDIDATES", request.param[1])
    monkeypatch.setattr(counting, "_PAIRS", 50)
    monkeypatch.setattr(ranks_module, "_HELD_BYTES", 4 * 3 * 8 * 61)
    monkeypatch.setattr(dataset_module, "BLOCK_BYTES", 4 * 3 * 8 * 37)


@pytest.mark.usefixtures("uneven_blocks")
def test_blockwise_ranks_are_those_of_the_whole_matrix_with_duplicates_and_missing_modalities():
    data = simulate(150, 3, 8, noise=1.0, missing=0.3, seed=1)
    for features in data.modalities:
        features.array[40:60] = features.array[41]  # exact copies: ties, some with each other's partner
    found = rank_dataset(data, np.arange(len(data)))
    assert any(ranks.tied.any() for ranks in found.values())
    for a, first in enumerate(data.names):
        for b, second in enumerate(data.names):
            if a == b:
                continue
            both = np.flatnonzero(data.present[:, a] & data.present[:, b])
            queries, gallery = data.modalities[a].array[both], data.modalities[b].array[both]
            greater, tied = brute_force(unit(queries), unit(gallery))
            ranks = found[f"{first}->{second}"]
            assert ranks.gallery == len(both)
            np.testing.assert_array_equal(ranks.rows, both)
            np.testing.assert_array_equal(ranks.greater, greater)
            np.testing.assert_array_equal(ranks.tied, tied)


@pytest.mark.usefixtures("uneven_blocks")
def test_a_fused_query_is_the_direction_of_the_other_modalities():
    data = simulate(90, 3, 8, noise=1.0, missing=0.3, seed=2)
    found = rank_dataset(data, np.arange(len(data)))
    vectors = np.nan_to_num(np.stack([unit(f.array + 1e-30) for f in data.modalities], 1)) * data.present[..., None]
    for m, name in enumerate(data.names):
        rows = np.flatnonzero(data.present[:, m] & (data.present.sum(1) >= 2))
        others = np.delete(vectors[rows], m, axis=1)
        # The leading direction of one vector is itself, that of two their normalised sum.
        greater, _ = brute_force(unit(others.sum(1)), vectors[rows, m])
        np.testing.assert_array_equal(found[f"others->{name}"].rows, rows)
        np.testing.assert_array_equal(found[f"others->{name}"].greater, greater)


@pytest.mark.usefixtures("uneven_blocks")
def test_weighted_ranks_are_those_of_the_whole_matrix_with_duplicates_and_missing_modalities():
    data = simulate(70, 4, 8, noise=1.0, missing=0.3, seed=2)
    for features in data.modalities:
        features.array[20:30] = features.array[np.flatnonzero(data.present.all(1))[0]]  # exact copies
    found = rank_dataset(data, np.arange(len(data)), fusion="weighted")
    vectors = np.stack([f.array for f in data.modalities], 1).astype(np.float64)
    for m, name in enumerate(data.names):
        rows = np.flatnonzero(data.present[:, m] & (data.present.sum(1) >= 2))
        others, present = np.delete(vectors[rows], m, axis=1), np.delete(data.present[rows], m, axis=1)
        scores = reference.scores(others, present, unit(vectors[rows, m]), WEIGHT_TEMPERATURE)
        greater, tied = counts(scores)
        ranks = found[f"others->{name}"]
        assert ranks.gallery == len(rows)
        np.testing.assert_array_equal(ranks.rows, rows)
        np.testing.assert_array_equal(ranks.greater, greater)
        np.testing.assert_array_equal(ranks.tied, tied)
        assert tied.any()


def test_with_one_other_modality_the_weighted_ranks_are_its_own():
    present = np.array([[True, True, False]] * 60)
    data = simulate(60, 3, 8, noise=1.0, seed=6)
    data = dataset_of({f.name: f.array for f in data.modalities}, present=present)
    found = rank_dataset(data, np.arange(60), fusion="weighted")
    assert set(found) == {"m0->m1", "m1->m0", "others->m0", "others->m1"}
    np.testing.assert_array_equal(found["others->m1"].greater, found["m0->m1"].greater)
    np.testing.assert_array_equal(found["others->m0"].greater, found["m1->m0"].greater)


def test_weighted_queries_hold_no_more_than_a_block_of_cosines(monkeypatch):
    sizes = []
    honest = queries_module.weighted_scores

    def recorded(cosines, gram, present):
        sizes.append(cosines.numel())
        return honest(cosines, gram, present)

    monkeypatch.setattr(queries_module, "weighted_scores", recorded)
    monkeypatch.setattr(counting, "_QUERIES", 32)
    monkeypatch.setattr(counting, "_CANDIDATES", 16)
    rank_dataset(simulate(100, 6, 8), np.arange(100), fusion="weighted")
    assert max(sizes) <= 32 * 16


def test_a_batch_in_memory_ranks_like_the_data_set_it_came_from():
    data = simulate(120, 3, 8, noise=1.0, missing=0.2, seed=3)
    whole = read_batch(data, slice(0, len(data)))
    for name, ranks in rank_dataset(data, np.arange(len(data))).items():
        again = rank_batch(whole, data.names)[name]
        np.testing.assert_array_equal(again.greater, ranks.greater)
        assert again.gallery == ranks.gallery


def test_a_sample_of_queries_has_the_ranks_of_all_queries():
    data = simulate(120, 2, 8, noise=1.0, seed=4)
    some = np.array([3, 17, 50, 119])
    full, part = rank_dataset(data, np.arange(len(data))), rank_dataset(data, some)
    for direction in ("m0->m1", "m1->m0"):  # where all ask, the second is read off the scores of the first
        np.testing.assert_array_equal(part[direction].rows, some)
        np.testing.assert_array_equal(part[direction].greater, full[direction].greater[some])
        assert part[direction].gallery == 120


@pytest.mark.usefixtures("uneven_blocks")
@pytest.mark.parametrize("fusion", ["leading", "weighted"])
@pytest.mark.parametrize("every", [1, 3], ids=["all ask", "some ask"])
def test_counts_of_uneven_shares_add_up_to_the_ranks_of_all(every, fusion):
    data = simulate(110, 3, 8, noise=1.0, missing=0.3, seed=7)
    for features in data.modalities:
        features.array[40:50] = features.array[41]
    queries = np.arange(0, len(data), every)
    whole = rank_dataset(data, queries, fusion=fusion)
    shares = [slice(0, 3), slice(3, 3), slice(3, 30), slice(30, len(queries))]
    counts = sum(count_shard(data, queries, share, fusion=fusion) for share in shares)
    together = ranks_of(counts, data, queries)
    assert together.keys() == whole.keys()
    for name, ranks in whole.items():
        for found, expected in zip(together[name][:4], ranks[:4], strict=True):
            np.testing.assert_array_equal(found, expected)
        assert len(ranks.rows)


def test_shares_of_all_queries_take_one_product_for_two_directions(monkeypatch):
    products = []
    honest = queries_module.Vectors.scores
    monkeypatch.setattr(
        queries_module.Vectors,
        "scores",
        lambda self, candidates, out: (products.append(out.numel()), honest(self, candidates, out))[1],
    )
    data, queries = simulate(60, 2, 8), np.arange(60)
    sum(count_shard(data, queries, shard_rows(60, index, 7)) for index in range(7))
    assert sum(products) == 60 * 60


def test_reordering_the_instances_reorders_the_ranks():
    data = simulate(130, 2, 8, noise=1.0, seed=5)
    order = np.random.default_rng(0).permutation(130)
    moved = dataset_of({f.name: f.array[order] for f in data.modalities})
    straight = rank_dataset(data, np.arange(130))["m0->m1"].greater
    np.testing.assert_array_equal(rank_dataset(moved, np.arange(130))["m0->m1"].greater, straight[order])


def test_identical_modalities_rank_every_partner_first_whatever_rounding_does():
    # Regression: compared without a band and without excluding the partner, 45 % of copies count themselves.
    vectors = np.random.default_rng(0).normal(size=(700, 512))
    ranks = rank_dataset(dataset_of({"a": vectors, "b": 3.7 * vectors}), np.arange(700))["a->b"]
    assert ranks.greater.sum() == 0
    assert ranks.tied.sum() == 0


def test_two_modalities_have_no_fused_direction_and_an_empty_pair_is_absent():
    present = np.array([[True, True, False]] * 5 + [[False, True, True]] * 5)
    vectors = np.random.default_rng(0).normal(size=(10, 4))
    found = rank_dataset(dataset_of({"a": vectors, "b": vectors, "c": vectors}, present=present), np.arange(10))
    assert "a->c" not in found
    assert "c->a" not in found
    assert found["a->b"].gallery == 5
    assert set(rank_dataset(simulate(20, 2), np.arange(20))) == {"m0->m1", "m1->m0"}


def test_reading_normalises_present_vectors_and_zeroes_absent_ones():
    present = np.array([[True, True], [True, False]])
    batch = read_batch(
        dataset_of({"a": [[3.0, 4.0], [0.0, 2.0]], "b": [[0.0, 5.0], [1.0, 1.0]]}, present=present), slice(0, 2)
    )
    expected = torch.tensor([[[0.6, 0.8], [0.0, 1.0]], [[0.0, 1.0], [0.0, 0.0]]])
    torch.testing.assert_close(batch.embeddings, expected)
