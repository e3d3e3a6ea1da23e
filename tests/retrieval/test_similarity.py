"""The loop over similarities against the whole matrix, across the edges of its blocks."""

import numpy as np
import pytest
import torch

from pmrl_cli.retrieval.similarity import cosine_blocks, nearest_both_ways, nearest_cosines


def unit(n, d, seed):
    drawn = torch.from_numpy(np.random.default_rng(seed).normal(size=(n, d))).float()
    return torch.nn.functional.normalize(drawn, dim=1)


@pytest.mark.parametrize("n", [0, 1, 1023, 1024, 1025])
def test_blocks_are_the_rows_of_all_products_once_each_in_order(n):
    queries, candidates = unit(n, 5, 0), unit(7, 5, 1)
    found = [(piece, block.clone()) for piece, block in cosine_blocks(queries, candidates)]
    assert [row for piece, _ in found for row in range(piece.start, piece.stop)] == list(range(n))
    if n:
        torch.testing.assert_close(torch.cat([block for _, block in found]), queries @ candidates.T)


@pytest.mark.parametrize("but_own", [False, True])
def test_the_nearest_are_those_of_a_sort(but_own):
    vectors = unit(1100, 4, 2)
    products = (vectors.double() @ vectors.double().T).numpy()
    if but_own:
        np.fill_diagonal(products, -np.inf)
    values, indices = nearest_cosines(vectors, vectors, 3, but_own=but_own)
    expected = np.sort(products, axis=1)[:, -3:]
    np.testing.assert_allclose(np.sort(values.numpy(), axis=1), expected, atol=1e-6)
    np.testing.assert_allclose(np.take_along_axis(products, indices.numpy(), 1), values.numpy(), atol=1e-6)


@pytest.mark.parametrize(("n", "m"), [(50, 90), (205, 330)])  # of one product beyond 64 for each that is wanted
def test_the_nearest_both_ways_are_those_of_a_sort(n, m):
    first, second = unit(n, 5, 3), unit(m, 5, 4)
    second[7] = second[3]  # a tie
    products = (first.double() @ second.double().T).numpy()
    [(rows, columns)] = nearest_both_ways([(first, second, 3)])
    np.testing.assert_allclose(-np.sort(-rows.numpy()), -np.sort(-products)[:, :3], atol=1e-6)
    np.testing.assert_allclose(-np.sort(-columns.numpy()), -np.sort(-products.T)[:, :3], atol=1e-6)


@pytest.mark.parametrize("copies", [1, 7, 300])
def test_the_nearest_of_many_candidates_are_the_greatest_of_all(copies):
    """Also where equal candidates tie at the last place; each is named once."""
    queries, candidates = unit(40, 8, seed=0), unit(300 // copies + 1, 8, seed=1).repeat(copies, 1)
    values, indices = nearest_cosines(queries, candidates, 3)
    products = queries.double() @ candidates.double().mT
    expected = products.sort(1, descending=True).values[:, :3]
    np.testing.assert_allclose(values.sort(1, descending=True).values, expected, atol=1e-6)
    np.testing.assert_allclose(products.gather(1, indices), values, atol=1e-6)
    assert all(len(set(row)) == 3 for row in indices.tolist())
