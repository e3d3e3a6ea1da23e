from itertools import combinations, permutations

import numpy as np
import pytest

from pmrl_cli.retrieval.metrics import (
    chance,
    expected_rank,
    harmonic,
    hits,
    hits_in_gallery,
    reciprocal_ranks,
    tie_spread,
)
from pmrl_cli.retrieval.ranks import Ranks


def ranks_of(greater, tied, gallery):
    greater, tied = np.atleast_1d(greater), np.atleast_1d(tied)
    return Ranks(np.arange(len(greater)), greater, tied, gallery)


@pytest.mark.parametrize(("greater", "tied"), [(0, 0), (2, 0), (0, 5), (1, 3), (3, 2)])
def test_ties_are_the_mean_over_every_order_of_the_tied(greater, tied):
    places = [greater + 1 + order.index(0) for order in permutations(range(tied + 1))]
    ranks = ranks_of(greater, tied, 6)
    for cutoff in (1, 2, 5):
        assert hits(ranks, cutoff)[0] == pytest.approx(np.mean([place <= cutoff for place in places]))
    assert reciprocal_ranks(ranks)[0] == pytest.approx(np.mean([1 / place for place in places]))
    assert expected_rank(ranks)[0] == pytest.approx(np.mean(places))


def test_a_collapsed_space_scores_chance():
    collapsed = ranks_of(np.zeros(6, int), np.full(6, 5), 6)
    assert hits(collapsed, 1).mean() == pytest.approx(1 / 6)
    assert reciprocal_ranks(collapsed).mean() == pytest.approx(chance("MRR", collapsed))
    assert np.median(expected_rank(collapsed)) == chance("median_rank", collapsed)
    assert tie_spread(collapsed) == 1


def test_chance_is_the_mean_over_all_orders_of_six():
    places = [order.index(0) + 1 for order in permutations(range(6))]
    six = ranks_of([0, 3], [0, 1], 6)
    assert chance("R@1", six) == pytest.approx(np.mean([p <= 1 for p in places]))
    assert chance("R@5", six) == pytest.approx(np.mean([p <= 5 for p in places]))
    assert chance("R@10", six) == 1
    assert chance("MRR", six) == chance("mAP", six) == pytest.approx(np.mean([1 / p for p in places]))
    assert chance("median_rank", six) == pytest.approx(np.mean(places))
    assert chance("R-precision", six) == pytest.approx(1 / 6)
    assert chance("AUC", six) == 0.5
    assert harmonic(3) == pytest.approx([0, 1, 1.5, 11 / 6])


@pytest.mark.parametrize("size", [1, 2, 4, 6])
@pytest.mark.parametrize("cutoff", [1, 2, 5])
@pytest.mark.parametrize("better", range(6))
def test_a_smaller_gallery_is_the_mean_over_all_draws_from_six(size, cutoff, better):
    draws = list(combinations(range(5), size - 1))  # candidates 0..better-1 beat the partner
    found = np.mean([sum(c < better for c in drawn) < cutoff for drawn in draws])
    assert hits_in_gallery(ranks_of(better, 0, 6), cutoff, size)[0] == pytest.approx(found)


def test_ties_in_a_smaller_gallery_average_over_their_places():
    strict = [hits_in_gallery(ranks_of(better, 0, 6), 1, 3)[0] for better in (1, 2, 3)]
    assert hits_in_gallery(ranks_of(1, 2, 6), 1, 3)[0] == pytest.approx(np.mean(strict))


def test_a_smaller_gallery_stays_exact_where_factorials_overflow():
    # Uniform ranks: whatever the gallery, a random partner is first in 1 of 1000.
    places = np.arange(50_000)
    uniform = hits_in_gallery(ranks_of(places, np.zeros_like(places), 50_000), 1, 1000)
    assert uniform.mean() == pytest.approx(1 / 1000, rel=1e-6)
