"""Ranks in one piece are those counted tile by tile: under ties, repeated vectors and missing modalities."""

import numpy as np
import pytest
import torch

from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.retrieval.ranker import Ranker
from pmrl_cli.retrieval.ranks import rank_batch
from pmrl_cli.retrieval.relevance import Relevance


@pytest.mark.parametrize("modalities", [2, 3, 4])
@pytest.mark.parametrize("case", ["plain", "missing", "repeated", "matched", "all tied"])
def test_they_are_those_of_rank_batch(case, modalities):
    rng = np.random.default_rng(modalities)
    n = 60
    vectors = rng.standard_normal((n, modalities, 5)).astype(np.float32)
    present = np.ones((n, modalities), dtype=bool)
    items = np.repeat(np.arange(n)[:, None], modalities, axis=1)
    match = np.arange(n)
    if case == "missing":
        present = rng.random((n, modalities)) < 0.7
    if case == "repeated":
        items[:, -1] = rng.integers(0, 12, n)
        vectors[:, -1] = vectors[items[:, -1], -1]
    if case == "matched":
        match = rng.integers(0, 15, n)
        vectors += 2 * rng.standard_normal((15, 1, 5)).astype(np.float32)[match]
    if case == "all tied":
        vectors[:] = 1
    embeddings = (
        torch.nn.functional.normalize(torch.from_numpy(vectors), dim=2) * torch.from_numpy(present)[..., None]
    )
    relevance = Relevance(items, match)
    batch = Batch(np.arange(n), embeddings, torch.from_numpy(present))
    expected = rank_batch(batch, tuple("abcd"[:modalities]), relevance=relevance, fused=False)
    found = Ranker(present, relevance)(embeddings)
    assert len(found) == len(expected) == modalities * (modalities - 1)
    for ours, theirs in zip(found, expected.values(), strict=True):
        assert ours.gallery == theirs.gallery
        for name in ("rows", "greater", "tied"):
            np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
        assert (ours.answers is None) == (theirs.answers is None)
        if ours.answers is not None:
            np.testing.assert_array_equal(ours.answers.right, theirs.answers.right)
            np.testing.assert_array_equal(ours.answers.best, theirs.answers.best)
