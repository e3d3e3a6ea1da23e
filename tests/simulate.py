"""A seeded generator of k aligned modalities whose noise, gaps, groups and labels are known."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pmrl_cli.data.dataset import Dataset, Features


def dataset_of(arrays, *, present=None, ids=None, **columns):
    """Wrap (n, d) arrays by name; side columns by keyword."""
    names = sorted(arrays)
    count = len(arrays[names[0]])
    present = np.ones((count, len(names)), bool) if present is None else present
    modalities = tuple(
        Features(name, np.where(present[:, [m]], arrays[name], 0).astype(np.float32)) for m, name in enumerate(names)
    )
    ids = [f"id{i}" for i in range(count)] if ids is None else ids
    side = {name: pa.array(values) for name, values in columns.items()}
    return Dataset(pa.array(ids, pa.large_string()), modalities, present, side)


def simulate(
    n=400, modalities=3, dim=32, *, noise=0.5, missing=0.0, group_size=1, classes=4, offset=0.0, seed=0
) -> Dataset:
    """Instances with a latent direction each, seen by every modality with isotropic noise.

    Vector of modality m = (latent + noise * its own gaussian) + offset * a direction of its own. Expected cosine of
    a pair without offset: 1 / (1 + noise^2). Instances of one group share half of the variance of their latent; each
    class adds a mean. A share ``missing`` of the entries is absent, never all but one of an instance.
    """
    generator = np.random.default_rng(seed)
    groups = np.arange(n) // group_size
    labels = generator.integers(classes, size=n)
    latent = generator.normal(size=(n, dim))
    if group_size > 1:
        latent = (latent + generator.normal(size=(n, dim))[groups]) / np.sqrt(2)
    latent = latent + generator.normal(size=(classes, dim))[labels]
    noises = np.broadcast_to(noise, modalities)
    arrays = {}
    for m in range(modalities):
        away = generator.normal(size=dim)
        vectors = latent + noises[m] * generator.normal(size=(n, dim))
        arrays[f"m{m}"] = vectors + offset * away / np.linalg.norm(away)
    present = generator.random((n, modalities)) >= missing
    present[present.sum(1) < 2] = True
    return dataset_of(arrays, present=present, group=[f"g{g}" for g in groups], label=[f"c{c}" for c in labels])
