"""What a fit reads and hashes: no row and no id more often than the passes that need it."""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from pmrl_cli.closed_form import columns
from pmrl_cli.data import dataset as dataset_module
from pmrl_cli.data.dataset import Dataset, Features
from pmrl_cli.data.ids import hash_ids
from pmrl_cli.fit import starts
from pmrl_cli.fit.fit import fit
from pmrl_cli.train.settings import FitSettings


@dataclass(frozen=True)
class CountingFeatures(Features):
    """Counts the rows that are read."""

    read_rows: list[int] = field(default_factory=list)

    def read(self, rows):
        block = super().read(rows)
        self.read_rows.append(len(block))
        return block


def counted(n, dims=(24, 16, 8)):
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(n, 6))
    features = tuple(
        CountingFeatures(f"m{m}", (latent @ rng.normal(size=(6, d)) + rng.normal(size=(n, d))).astype(np.float32))
        for m, d in enumerate(dims)
    )
    ids = pa.array([f"i{i}" for i in range(n)], pa.large_string())
    return Dataset(ids, features, np.ones((n, len(dims)), dtype=bool))


def reads_and_hashes(data, settings, monkeypatch):
    """Return how often each (instance, modality) row is read and each id hashed on average."""
    hashed = []

    def counting(ids, seed):
        hashed.append(len(ids))
        return hash_ids(ids, seed)

    monkeypatch.setattr(dataset_module, "hash_ids", counting)
    fit(data, settings)
    reads = sum(sum(features.read_rows) for features in data.modalities) / (len(data) * len(data.modalities))
    return reads, sum(hashed) / len(data)


def test_a_closed_form_fit_of_many_instances_reads_each_row_few_times(monkeypatch):
    # The proportions of a fit of 60,000 instances, whose feature maps are compared on 20,000.
    monkeypatch.setattr(starts, "CHOOSING_ROWS", 1000)
    monkeypatch.setattr(columns, "AXES_ROWS", 200)
    monkeypatch.setattr(starts, "LANDMARKS", 50)
    reads, hashes = reads_and_hashes(counted(3000), FitSettings(steps=0, refit=False), monkeypatch)
    assert hashes == 1
    # Once to hash the vectors, then the passes of the closed forms: 7.97 for those of 60,000 before they were shared.
    assert reads < 1 + 7
