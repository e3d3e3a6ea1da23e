"""On a GPU: the same numbers as on the CPU, steps captured as a graph, fits that continue bit for bit.

The tests of ``tests/closed_form`` compare closed forms on a GPU with their references too, where there is one.

Skipped where there is none, as on the machine of the other tests.
"""

import copy
import itertools

import numpy as np
import pytest
import torch

from pmrl_cli.batch import Inputs
from pmrl_cli.closed_form.arithmetic import arithmetic_on
from pmrl_cli.closed_form.columns import ProjectionFitter
from pmrl_cli.closed_form.moments import ColumnMoments, CrossMoments, SecondMoment
from pmrl_cli.closed_form.projection import FeatureMap
from pmrl_cli.encoders.residual import Residual
from pmrl_cli.fit.context import Hooks, Machine
from pmrl_cli.fit.fit import fit
from pmrl_cli.methods import REGISTRY, make_method
from pmrl_cli.retrieval.batches import Batch as Ranked
from pmrl_cli.retrieval.ranks import rank_batch
from pmrl_cli.spectrum import spectrum
from pmrl_cli.terms import principal
from pmrl_cli.terms.weighted import WeightedTerms
from pmrl_cli.train import loader
from pmrl_cli.train.loader import Batch, BatchLoader, BatchSampler, TrainingData, map_inputs, tensors_of
from pmrl_cli.train.loop import Interrupted
from pmrl_cli.train.step import Step, StepOptions
from tests.reference.agreement import ON_VECTORS, make_objective
from tests.test_spectrum import BOTH_SPECTRA, draw
from tests.train.fits import same, settings_for, simulate, weights

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")]

SUBSETS = torch.tensor([[True, False, False], [False, True, True]])


def terms_of(name):
    return WeightedTerms(make_method(name, {}).terms())


CAPTURED = [name for name in REGISTRY if terms_of(name).on_device]


@BOTH_SPECTRA
@pytest.mark.parametrize("modalities", range(1, 9))
def test_the_kernel_has_the_values_and_gradients_of_the_cpu(modalities, aware):
    vectors, present = draw(64, modalities, 33, seed=modalities)
    found = []
    for device in ("cpu", "cuda"):
        there = vectors.to(device).requires_grad_()
        outputs = spectrum(there, present.to(device), sign_aware=aware)
        value = sum((output * torch.linspace(-1, 1, output.shape[1], device=device)).sum() for output in outputs)
        found.append([t.detach().cpu() for t in (*outputs, *torch.autograd.grad(value, there))])
    for mine, wanted in zip(*found, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", ON_VECTORS)
def test_objectives_have_the_values_and_gradients_of_the_cpu(monkeypatch, name):
    monkeypatch.setattr(principal, "random_subsets", lambda _, device: SUBSETS.to(device))
    vectors, present = draw(48, 3, 17, seed=3)
    vectors = torch.nn.functional.normalize(vectors, dim=-1)
    found = []
    for device in ("cpu", "cuda"):
        there = vectors.to(device).requires_grad_()
        torch.manual_seed(0)  # symile draws on the CPU
        objective = make_objective(name, {}).double().to(device)
        value, parts = objective(there, present.to(device))
        gradients = torch.autograd.grad(value, (there, *objective.parameters()))
        found.append([t.detach().cpu() for t in (value, *parts.values(), *gradients)])
    for mine, wanted in zip(*found, strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-8, atol=1e-9)


def drawn(*, dropout=0.0):
    generator = torch.Generator().manual_seed(0)
    starts = [torch.randn(width, 16, generator=generator) for width in (24, 32, 40)]
    encoder = Residual(starts, "abc", hidden=8, dropout=dropout).to("cuda").train()
    components = [torch.randn(64, len(start), generator=generator).to("cuda") for start in starts]
    present = (torch.rand(64, 3, generator=generator) < 0.8).to("cuda")
    return encoder, Batch(torch.arange(64), Inputs(components, present), [64])


def changed(batch, number):
    components = [c.roll(number, 0) * number for c in batch.inputs.components]
    return Batch(batch.places, Inputs(components, batch.inputs.present.roll(1, 0)), [64])


@pytest.mark.parametrize("name", CAPTURED)
def test_captured_steps_are_the_steps_themselves(monkeypatch, name):
    subsets = SUBSETS.to("cuda")
    monkeypatch.setattr(principal, "random_subsets", lambda *_: subsets)
    encoder, batch = drawn()
    found = []
    for captures in (True, False):
        mine = copy.deepcopy(encoder)
        take_step = Step(mine, terms_of(name).to("cuda"), StepOptions(0.01))
        assert take_step._captures
        take_step._captures = captures
        totals = [take_step(number, changed(batch, number), stop=number == 3) for number in range(1, 5)]
        found.append((mine, [one.read() for one in totals]))
    for (parts, norm, stop), (other_parts, other_norm, other_stop) in zip(found[0][1], found[1][1], strict=True):
        assert parts == pytest.approx(other_parts, rel=1e-5)
        assert norm == pytest.approx(other_norm, rel=1e-5)
        assert stop == other_stop
    for mine, wanted in zip(found[0][0].parameters(), found[1][0].parameters(), strict=True):
        torch.testing.assert_close(mine, wanted, rtol=1e-4, atol=1e-5)


def test_what_a_captured_step_draws_follows_from_its_number():
    encoder, batch = drawn(dropout=0.5)
    take_step = Step(encoder, terms_of("pmrl").to("cuda"), StepOptions(0.0))
    first, second, again = (take_step(number, batch).read()[0] for number in (1, 2, 1))
    assert first == again
    assert first["loss"] != second["loss"]


def test_after_a_bad_captured_step_nothing_changes_any_more():
    encoder, batch = drawn()
    take_step = Step(encoder, terms_of("pmrl").to("cuda"), StepOptions(0.01))
    take_step(1, batch)
    kept = copy.deepcopy(encoder.state_dict())
    bad = changed(batch, 1)
    bad.inputs.components[0][3] = torch.nan
    take_step(2, bad)
    take_step(3, batch)
    assert all(torch.equal(tensor, kept[name]) for name, tensor in encoder.state_dict().items())


@pytest.mark.parametrize("name", CAPTURED)
def test_no_step_waits_for_the_gpu(name):
    encoder, batch = drawn()
    take_step = Step(encoder, terms_of(name).to("cuda"), StepOptions(0.01))
    take_step._captures = False
    take_step(1, batch)
    torch.cuda.set_sync_debug_mode("error")
    try:
        take_step(2, batch)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("objective", ["pmrl", "gram"])
@pytest.mark.parametrize("stopped_at", [0, 7, 23])
def test_an_interrupted_fit_continues_bit_for_bit(tmp_path, stopped_at, objective):
    settings = settings_for(steps=40, batch_size=32, patience=99, dropout=0.3, objective=objective)
    whole = fit(simulate(), settings, machine=Machine("cuda"))
    calls = iter(range(10**6))
    with pytest.raises(Interrupted):
        fit(
            simulate(),
            settings,
            machine=Machine("cuda"),
            checkpoint=tmp_path / "state",
            hooks=Hooks(should_stop=lambda: next(calls) == stopped_at),
        )
    resumed = fit(simulate(), settings, machine=Machine("cuda"), checkpoint=tmp_path / "state")
    assert same(weights(whole), weights(resumed))
    assert repr(whole.history) == repr(resumed.history)


def test_components_that_have_no_room_are_sent_in_batches(monkeypatch):
    inputs = Inputs([torch.randn(500, width) for width in (5, 9)], torch.rand(500, 2) < 0.8, torch.arange(500))
    data = TrainingData(inputs, torch.arange(500), torch.zeros(500, dtype=torch.int64))
    found = []
    for room in (True, False):
        monkeypatch.setattr(loader, "has_room", lambda *_, room=room: room)
        batches = BatchLoader(data, BatchSampler(500, 64, 0), torch.device("cuda")).after(0)
        found.append(
            [
                Batch(one.places, map_inputs(one.inputs, torch.clone), one.counts)
                for one in itertools.islice(batches, 9)
            ]
        )
        batches.close()
    for resident, sent in zip(*found, strict=True):
        assert torch.equal(resident.places, sent.places)
        wanted = map_inputs(inputs, lambda tensor, places=sent.places: tensor[places])
        for mine, other, right in zip(*map(tensors_of, (resident.inputs, sent.inputs, wanted)), strict=True):
            assert torch.equal(mine.cpu(), right)
            assert torch.equal(other.cpu(), right)


def test_no_block_of_a_closed_form_waits_for_the_gpu():
    data, on = simulate(400), arithmetic_on(torch.device("cuda"))
    rows = np.arange(len(data))
    projections = ProjectionFitter(data, rows, seed=0, arithmetic=on).fit(FeatureMap("kernel", squash=True))
    there = [projection.on(on) for projection in projections]
    widths = [projection.components for projection in projections]
    columns, second, cross = ColumnMoments(widths[0], on), SecondMoment(widths[0], on), CrossMoments(widths, on)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for block in (rows[:150], rows[150:]):
            present = data.present[block]
            scores = [p.scores(on.read(f, block)) for p, f in zip(there, data.modalities, strict=True)]
            columns.add(on.chosen(scores[0], present[:, 0]))
            second.add(scores[0])
            cross.add(scores, present)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("adapter", ["linear", "kernel"])
def test_a_fit_starts_from_the_closed_form_of_the_cpu(adapter):
    settings = settings_for(adapter=adapter, objective="gcca", steps=0)
    wanted, mine = (fit(simulate(), settings, machine=Machine(device)) for device in ("cpu", "cuda"))
    assert mine.recipes[0].closed_form.config == wanted.recipes[0].closed_form.config
    assert mine.held_out.mrr == pytest.approx(wanted.held_out.mrr, abs=2e-3)  # a near tie may fall otherwise
    data = simulate()
    features = [f.read(slice(0, len(data))) for f in data.modalities]
    found = []
    for fitted in (wanted, mine):
        for device in ("cpu", "cuda"):
            fitted.members[0].encoder.to(device)
            with torch.inference_mode():
                vectors = fitted.members[0].embed(range(3), features, torch.from_numpy(data.present).to(device))
            there = vectors.vectors.cpu() * torch.from_numpy(data.present)[..., None]
            found.append(there @ there.mT)  # the axes of two fits may have other signs
    for cosines in found[1:]:
        torch.testing.assert_close(cosines, found[0], rtol=0, atol=5e-3)


def test_ranks_are_those_of_the_cpu():
    vectors = torch.nn.functional.normalize(torch.randn(700, 2, 33), dim=-1)
    vectors[5] = vectors[4]  # ties
    found = []
    for device in ("cpu", "cuda"):
        batch = Ranked(np.arange(700), vectors.to(device), torch.ones(700, 2, dtype=torch.bool, device=device))
        found.append(rank_batch(batch, ("a", "b")))
    for direction, wanted in found[0].items():
        for mine, expected in zip(found[1][direction], wanted, strict=True):
            np.testing.assert_array_equal(mine, expected)
