"""The spectrum of one instance at a time, by numpy's SVD of the d x K matrix, in float64."""

import numpy as np


def unit_columns(vectors, present):
    """(K, d), (K,) -> (d, K_i) unit columns of the present modalities."""
    columns = [vectors[m] / np.linalg.norm(vectors[m]) for m in range(len(vectors)) if present[m]]
    return np.stack(columns, 1)


def spectrum(vectors, present=None, *, sign_aware=False):
    """(B, K, d), (B, K) -> singular values (B, K), leading direction (B, d), loadings (B, K)."""
    batch, modalities, dim = vectors.shape
    present = np.ones((batch, modalities), bool) if present is None else present
    singular_values = np.zeros((batch, modalities))
    direction = np.zeros((batch, dim))
    loadings = np.zeros((batch, modalities))
    for i in range(batch):
        if not present[i].any():
            continue
        columns = unit_columns(vectors[i], present[i])
        matrix = columns
        if sign_aware:  # append the constant coordinate, so that the inner products are (1 + cos) / 2
            matrix = np.concatenate([columns, np.ones((1, columns.shape[1]))]) / np.sqrt(2)
        _, sigma, right = np.linalg.svd(matrix, full_matrices=False)
        resultant = columns @ right[0]
        total = right[0].sum()
        if abs(total) < 1e-9:  # two modalities at a negative cosine: the first decides
            total = right[0, 0]
        sign = 1 if total >= 0 else -1  # that of resultant @ columns.sum(1), which is sigma_1^2 times the sum
        singular_values[i, : len(sigma)] = sigma
        direction[i] = sign * resultant / np.linalg.norm(resultant)
        loadings[i, present[i]] = sign * right[0]
    return singular_values, direction, loadings
