"""The query-weighted consensus of one instance at a time, from its definition, in float64."""

import numpy as np

from tests.reference.spectrum import spectrum


def consensus(target, vectors, present, temperature):
    """(d,), (K, d), (K,) -> (d,): normalise(sum_m w_m z_m) with w = softmax_m(<t, z_m> / temperature), m present."""
    members = [vectors[m] / np.linalg.norm(vectors[m]) for m in range(len(vectors)) if present[m]]
    exponentials = [np.exp(target @ z / temperature) for z in members]
    total = sum(e / sum(exponentials) * z for e, z in zip(exponentials, members, strict=True))
    return total / np.linalg.norm(total)


def scores(vectors, present, candidates, temperature):
    """(q, K, d), (q, K), (C, d) -> (q, C): the cosine of each candidate with the consensus it weights."""
    return np.array(
        [[t @ consensus(t, z, p, temperature) for t in candidates] for z, p in zip(vectors, present, strict=True)]
    )


def fused(vectors, present, temperature):
    """(B, K, d), (B, K) -> (B, d): the consensus that each instance's sign_aware leading direction weights."""
    _, leading, _ = spectrum(vectors, present, sign_aware=True)
    return np.stack([consensus(u, z, p, temperature) for u, z, p in zip(leading, vectors, present, strict=True)])
