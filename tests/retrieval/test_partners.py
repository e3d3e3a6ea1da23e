"""Ranks of partners against float64 loops over their definition, across tiles, ties and missing modalities."""

from itertools import permutations

import numpy as np
import pytest
import torch

from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.retrieval.partners import mixed_ranks, partner_ranks, ranks_one_way
from pmrl_cli.retrieval.tally import TIE_BAND


def batch_of(n, missing, copies, seed=0):
    generator = np.random.default_rng(seed)
    vectors = generator.normal(size=(n, 3, 6)) + 0.7 * generator.normal(size=(n, 1, 6))
    vectors[:copies] = vectors[-copies:] if copies else vectors[:0]
    present = generator.random((n, 3)) >= missing
    unit = torch.nn.functional.normalize(torch.from_numpy(vectors), dim=2).float()
    return Batch(np.arange(n), unit * torch.from_numpy(present)[..., None], torch.from_numpy(present))


def loops(queries, galleries, own):
    """Return how many of the candidates of others are beyond the partner's score, and how many tie with it."""
    greater, tied = np.zeros(len(queries), int), np.zeros(len(queries), int)
    for i, query in enumerate(queries):
        for gallery in galleries:
            scores = np.delete(gallery @ query, i)
            greater[i] += (scores > own[i] + TIE_BAND).sum()
            tied[i] += (np.abs(scores - own[i]) <= TIE_BAND).sum()
    return greater, tied


@pytest.mark.parametrize(("n", "missing", "copies"), [(1, 0, 0), (40, 0.2, 6), (700, 0, 20), (1100, 0.1, 0)])
def test_they_are_those_of_loops(n, missing, copies):
    batch = batch_of(n, missing, copies)
    vectors, present = batch.embeddings.double().numpy(), batch.present.numpy()
    ranks = partner_ranks(batch)
    mixed = mixed_ranks(batch, ranks)
    assert list(ranks) == [(a, b) for a, b in permutations(range(3), 2) if present[:, [a, b]].all(1).any()]
    assert list(mixed) == list(ranks)
    for (a, b), found in ranks.items():
        rows = np.flatnonzero(present[:, [a, b]].all(1))
        queries, targets = vectors[rows, a], vectors[rows, b]
        own = (queries * targets).sum(1)
        for one, galleries in ((found, [targets]), (mixed[a, b], [targets, queries])):
            greater, tied = loops(queries, galleries, own)
            np.testing.assert_array_equal(one.rows, rows)
            np.testing.assert_array_equal(one.greater, greater)
            np.testing.assert_array_equal(one.tied, tied)
            assert one.gallery == len(galleries) * len(rows) - (len(galleries) - 1)
        alone = ranks_one_way(batch.embeddings[rows, a], batch.embeddings[rows, b])
        np.testing.assert_array_equal(alone.greater, found.greater)
        np.testing.assert_array_equal(alone.tied, found.tied)
