"""The consensus that leaves some vectors out, measured again only where it changes."""

import numpy as np
import pytest
import torch

from pmrl_cli.retrieval.batches import Batch
from pmrl_cli.stats import consensus
from pmrl_cli.stats.consensus import Reference, reference_of, reference_without


def _batch(n: int, modalities: int, seed: int) -> Batch:
    generator = np.random.default_rng(seed)
    shared = generator.normal(size=(n, 1, 6))
    vectors = torch.from_numpy((shared + generator.normal(size=(n, modalities, 6))).astype(np.float32))
    present = torch.from_numpy(generator.random((n, modalities)) < 0.9)
    vectors = torch.nn.functional.normalize(vectors, dim=2) * present[..., None]
    return Batch(np.arange(n), vectors, present)


def _by_loops(reference: Reference) -> torch.Tensor:
    """Return the closeness from all products, in float64."""
    closeness = torch.zeros(reference.closeness.shape, dtype=torch.float64)
    for m in range(closeness.shape[1]):
        those = reference.usable[:, m].nonzero()[:, 0]
        vectors, consensuses = reference.vectors[those, m].double(), reference.consensus[those, m].double()
        for i, row in enumerate(those):
            for side, cosines in enumerate((consensuses @ vectors[i], vectors @ consensuses[i])):
                nearest = cosines.sort(descending=True).values[1 : consensus.NEIGHBOURS + 1]
                closeness[row, m, side] = nearest.mean()
    return closeness


@pytest.mark.parametrize("left_out", [0, 1, 3, 60])
def test_a_reference_without_some_vectors_is_measured_as_one_made_anew(left_out: int) -> None:
    """With none, few and many left out; three modalities, some absent, so that some instances lose their others."""
    batch = _batch(120, 3, left_out)
    kept = torch.ones_like(batch.present)
    generator = np.random.default_rng(left_out)
    kept[generator.choice(120, left_out, replace=False), generator.integers(3, size=left_out)] = False
    found = reference_without(reference_of(batch), batch, kept)
    assert torch.allclose(found.closeness.double(), _by_loops(found), atol=2e-6)
    for i, m in np.argwhere(~kept.numpy() & batch.present.numpy()):
        for other in set(range(3)) - {m}:
            rest = found.vectors[i, 3 - m - other]
            expected = rest if batch.present[i, [other, 3 - m - other]].all() else torch.zeros_like(rest)
            assert torch.allclose(found.consensus[i, other], expected, atol=1e-6)


def test_few_left_out_leave_most_of_it_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """One changed consensus is compared with all vectors; only those that it is near to are measured again."""
    batch = _batch(400, 4, 0)
    batch = Batch(batch.rows, batch.embeddings, torch.ones_like(batch.present))
    first, kept = reference_of(batch), torch.ones_like(batch.present)
    kept[7, 2] = False
    monkeypatch.setattr(consensus, "nearest_both_ways", lambda pairs: iter([*pairs][:0]))
    found = reference_without(first, batch, kept)
    assert (found.closeness != first.closeness).any()
    assert (found.closeness[:, 0, 0] == first.closeness[:, 0, 0]).sum() > 300
    assert torch.allclose(found.closeness.double(), _by_loops(found), atol=2e-6)
