"""What a batch holds, in which order, and how many there are."""

from contextlib import closing
from itertools import islice
from types import SimpleNamespace

import pytest
import torch

from pmrl_cli.batch import Inputs
from pmrl_cli.train import loader
from pmrl_cli.train.loader import BatchLoader, BatchSampler, TrainingData, map_inputs
from pmrl_cli.train.progress import schedule
from pmrl_cli.train.step import mix
from tests.train.fits import settings_for


def test_mixed_instances_are_in_the_same_proportion_in_all_their_modalities():
    torch.manual_seed(0)
    scores = [torch.randn(50, 4), torch.randn(50, 6)]
    present = torch.rand(50, 2) > 0.3
    labels = torch.arange(50) % 2
    mixed, both, agreed, _ = mix(Inputs(scores, present, labels), 1.0)
    # Solve each row for its partner and share in one modality; the other must agree.
    for row in range(50):
        if torch.allclose(mixed[0][row], scores[0][row]):  # mixed with itself
            assert agreed[row] == labels[row]
            assert torch.equal(both[row], present[row])
            continue
        fits = []
        for partner in range(50):
            step = scores[0][partner] - scores[0][row]
            share = float((mixed[0][row] - scores[0][row]) @ step / step.square().sum().clamp_min(1e-12))
            error = (scores[0][row] + share * step - mixed[0][row]).norm()
            fits.append((float(error), partner, share))
        _, partner, share = min(fits)
        expected = scores[1][row] + share * (scores[1][partner] - scores[1][row])
        torch.testing.assert_close(mixed[1][row], expected, atol=1e-4, rtol=1e-4)
        assert torch.equal(both[row], present[row] & present[partner])
        assert agreed[row] == (labels[row] if labels[row] == labels[partner] else -1)


@pytest.mark.parametrize("windows", [1, 4])
def test_every_epoch_deals_every_instance_once_and_continues_anywhere(monkeypatch, windows):
    # With several windows of two runs of 3: the order of a set too large to be shuffled at a stroke.
    if windows > 1:
        monkeypatch.setattr(loader, "WINDOW_ROWS", 6)
        monkeypatch.setattr(loader, "RUN_ROWS", 3)
    batches = BatchSampler(23, 5, seed=3)
    stream = batches.after(0)
    first = [next(stream) for _ in range(12)]
    assert len(set(torch.cat(first[:4]).tolist())) == 20
    for epoch in range(3):
        assert sorted(batches.order(epoch).tolist()) == list(range(23))
    assert not torch.equal(batches.order(0), batches.order(1))
    assert not torch.equal(batches.order(0), BatchSampler(23, 5, seed=4).order(0))  # torch takes 32 bits of a seed
    later = batches.after(7)
    assert all(torch.equal(next(later), first[i]) for i in range(7, 12))


def test_a_loader_gives_each_process_its_own_of_one_batch():
    scores, present = [torch.arange(60.0).view(20, 3)], torch.rand(20, 1) > 0.5
    labels, owners = torch.arange(20), torch.arange(20) // 12  # 12 and 8
    sampler = BatchSampler(20, 6, seed=0)
    halves = []
    for rank, held in enumerate((slice(0, 12), slice(12, 20))):
        positions = torch.arange(20) - held.start
        data = TrainingData(Inputs([s[held] for s in scores], present[held], labels[held]), positions, owners)
        made = BatchLoader(data, sampler, torch.device("cpu"), SimpleNamespace(rank=rank, size=2))
        with closing(made.after(0)) as stream:
            # Buffers are used again: what is kept is copied.
            taken = [(b.places, map_inputs(b.inputs, torch.clone), b.counts) for b in islice(stream, 7)]
            halves.append([(places, i.components[0], i.present, counts) for places, i, counts in taken])
            for places, inputs, _ in taken:
                assert torch.equal(inputs.labels, places[owners[places] == rank])
    for (places, first, _, counts), (same_places, second, seen, same_counts) in zip(*halves, strict=True):
        assert torch.equal(places, same_places)
        assert counts == same_counts == [len(first), len(second)]
        order = torch.cat([places[owners[places] == rank] for rank in range(2)])
        assert torch.equal(torch.cat([first, second]), scores[0][order])
        assert torch.equal(seen, present[places[owners[places] == 1]])


@pytest.mark.parametrize("n", [2, 3, 33, 50, 200, 10**6])
def test_schedules_fit_the_number_of_instances(n):
    plan = schedule(settings_for(), n)
    assert 1 <= plan.batch_size <= min(n, 1024)
    assert plan.steps >= 20 * (n // plan.batch_size)
