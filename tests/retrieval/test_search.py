"""Nearest neighbours against loops over all pairs."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from pmrl_cli.errors import DataError
from pmrl_cli.fusion import fuse
from pmrl_cli.retrieval import search as module
from pmrl_cli.retrieval.batches import read_batch
from pmrl_cli.retrieval.search import CSLS_NEIGHBOURS, hubness_penalty, nearest, search
from tests.simulate import dataset_of


def unit(count, dim, seed):
    return functional.normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def by_loops(queries, gallery, count, penalty=None):
    """Rows of the best, first by score and then by row, from float64 cosines."""
    found = []
    for query in queries.double().numpy():
        scores = [float(query @ candidate) for candidate in gallery.double().numpy()]
        if penalty is not None:
            scores = [2 * score - float(p) for score, p in zip(scores, penalty, strict=True)]
        found.append(sorted(range(len(scores)), key=lambda row: (-scores[row], row))[:count])
    return np.array(found)


@pytest.mark.parametrize("sizes", [[50], [1, 49], [10, 10, 30], [0, 50], [5000]])
@pytest.mark.parametrize("count", [1, 7, 50])
def test_the_nearest_are_those_of_all_pairs_however_the_gallery_is_cut(sizes, count):
    queries, gallery = unit(30, 8, 0), unit(sum(sizes), 8, 1)
    found = nearest(queries, gallery.split(sizes), count)
    np.testing.assert_array_equal(found.rows.numpy(), by_loops(queries, gallery, count))
    wanted = torch.stack([query @ gallery[rows].mT for query, rows in zip(queries, found.rows, strict=True)])
    torch.testing.assert_close(found.scores, wanted)


def test_of_equal_vectors_the_first_row_stands_first_also_over_blocks():
    vector = unit(1, 4, 0)
    found = nearest(vector, [vector.expand(3000, 4), vector.expand(5, 4)], 4)
    assert found.rows.tolist() == [[0, 1, 2, 3]]


def test_a_gallery_smaller_than_k_gives_all_of_it_and_none_gives_none():
    queries = unit(3, 4, 0)
    assert nearest(queries, [unit(2, 4, 1)], 10).rows.shape == (3, 2)
    nothing = nearest(queries, [], 10)
    assert nothing.rows.shape == (3, 0)
    assert nothing.closest.tolist() == [-1, -1, -1]
    assert nearest(queries[:0], [unit(2, 4, 1)], 10).rows.shape == (0, 2)


def test_csls_takes_off_the_mean_cosine_of_a_candidate_with_its_nearest_queries():
    queries, gallery = unit(40, 6, 0), unit(60, 6, 1)
    cosines = gallery.double() @ queries.double().T
    wanted = torch.stack([row.sort(descending=True).values[:CSLS_NEIGHBOURS].mean() for row in cosines])
    penalty = hubness_penalty(gallery.split(25), lambda: queries.split(7))
    torch.testing.assert_close(penalty.double(), wanted)
    found = nearest(queries, gallery.split(9), 5, penalty=penalty)
    np.testing.assert_array_equal(found.rows.numpy(), by_loops(queries, gallery, 5, penalty))
    np.testing.assert_array_equal(found.closest.numpy(), by_loops(queries, gallery, 1)[:, 0])


def test_csls_no_longer_gives_the_hub_to_every_query():
    # Queries around one direction, each with a partner nearby; the hub is that direction itself.
    centre, apart = unit(1, 16, 0), unit(30, 16, 1)
    queries = functional.normalize(centre + 0.8 * apart, dim=1)
    partners = functional.normalize(centre + 0.8 * apart + 0.9 * unit(30, 16, 2), dim=1)
    gallery = torch.cat([partners, functional.normalize(queries.mean(0, keepdim=True), dim=1)])
    plain = nearest(queries, [gallery], 1).rows[:, 0]
    fair = nearest(queries, [gallery], 1, penalty=hubness_penalty([gallery], lambda: [queries])).rows[:, 0]
    assert (plain == 30).sum() > (fair == 30).sum()
    assert (fair == torch.arange(30)).sum() > (plain == torch.arange(30)).sum()


def space(count, dim, seed, names=("a", "b"), absent=0.3):
    """A data set of unit vectors with missing modalities."""
    generator = np.random.default_rng(seed)
    arrays = {name: unit(count, dim, seed + i).numpy() for i, name in enumerate(names)}
    present = generator.random((count, len(names))) > absent
    return dataset_of(arrays, present=present)


@pytest.mark.parametrize(("source", "target"), [("a", "b"), (None, "a"), ("b", None), (None, None)])
def test_a_data_set_is_searched_from_and_to_any_modality_or_all_fused(monkeypatch, source, target):
    queries, gallery = space(40, 8, 0), space(70, 8, 5)
    monkeypatch.setattr(module, "HELD_BYTES", 7 * 4 * 8)  # 7 queries at a time
    found = list(search(queries, gallery, 3, source=source, target=target))

    def side(dataset, name):
        batch = read_batch(dataset, slice(0, len(dataset)))
        if name is None:
            return np.flatnonzero(dataset.present.any(1)), fuse(batch.embeddings, batch.present)
        index = dataset.names.index(name)
        return np.flatnonzero(dataset.present[:, index]), batch.embeddings[:, index]

    asking, vectors = side(queries, source)
    rows, candidates = side(gallery, target)
    np.testing.assert_array_equal(np.concatenate([part.queries for part in found]), asking)
    wanted = rows[by_loops(vectors[asking], candidates[rows], 3)]
    np.testing.assert_array_equal(np.concatenate([part.rows for part in found]), wanted)
    np.testing.assert_array_equal(np.concatenate([part.closest for part in found]), wanted[:, 0])


def test_what_cannot_be_searched_is_refused():
    queries = space(5, 8, 0)
    with pytest.raises(DataError, match="not in one space: a has 8 columns"):
        list(search(queries, space(5, 9, 0), 1))
    with pytest.raises(DataError, match="--from"):
        list(search(queries, queries, 1, source="c"))
    with pytest.raises(DataError, match="no candidates"):
        list(search(queries, space(5, 8, 0, absent=1.0), 1))
