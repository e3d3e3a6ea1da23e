"""Codebooks: every code is the mean of what is nearest to it, and none is unused."""

import numpy as np
import pytest

from pmrl_cli.codes.kmeans import fit_codebook, nearest_codes
from pmrl_cli.errors import DataError


def clusters(count, each, spread, seed=0):
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(count, 12))
    truth = np.repeat(np.arange(count), each)
    return (centres[truth] + spread * rng.normal(size=(count * each, 12))).astype(np.float32), truth


def test_clusters_are_found():
    vectors, truth = clusters(10, 40, 0.05)
    codes = nearest_codes(vectors, fit_codebook(vectors, 10))
    # One code a cluster: as many distinct pairs as clusters.
    assert len(set(zip(codes.tolist(), truth.tolist(), strict=True))) == 10


def test_at_the_end_every_code_is_the_mean_of_its_vectors():
    vectors, _ = clusters(6, 50, 0.4)
    codebook = fit_codebook(vectors, 8)
    codes = nearest_codes(vectors, codebook)
    for code in range(8):
        assert np.abs(vectors[codes == code].mean(0) - codebook[code]).max() < 1e-5


def test_every_code_is_used_however_uneven_the_vectors():
    vectors, _ = clusters(3, 200, 0.001)
    assert len(np.unique(nearest_codes(vectors, fit_codebook(vectors, 64)))) >= 60


def test_nearest_is_by_euclidean_distance():
    rng = np.random.default_rng(1)
    vectors, codebook = rng.normal(size=(50, 5)).astype(np.float32), rng.normal(size=(7, 5)).astype(np.float32)
    by_loops = [min(range(7), key=lambda c: float(((v - codebook[c]) ** 2).sum())) for v in vectors]
    assert nearest_codes(vectors, codebook).tolist() == by_loops
    assert nearest_codes(vectors[:0], codebook).dtype == np.int32


def test_the_seed_decides():
    vectors, _ = clusters(20, 20, 1.0)
    assert np.array_equal(fit_codebook(vectors, 9, seed=3), fit_codebook(vectors, 9, seed=3))


def test_fewer_distinct_vectors_than_codes_are_refused():
    with pytest.raises(DataError, match="3 distinct"):
        fit_codebook(np.repeat(np.eye(3, dtype=np.float32), 50, axis=0), 4)
