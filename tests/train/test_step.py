"""One step: AdamW on the gradient of the objective, a bad one not taken, and nothing that waits for the device."""

import copy
from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch

from pmrl_cli.batch import SINGLE, Inputs, Loss
from pmrl_cli.encoders.residual import Residual
from pmrl_cli.methods import REGISTRY, make_method
from pmrl_cli.terms.contrast import PairwiseContrast
from pmrl_cli.terms.protocol import Term
from pmrl_cli.terms.weighted import WeightedTerms
from pmrl_cli.train.loader import Batch, map_inputs
from pmrl_cli.train.step import WEIGHT_DECAY, Step, StepOptions
from tests.test_spectrum import NeverWaits


def drawn(hidden=4, device="cpu"):
    generator = torch.Generator().manual_seed(0)
    starts = [torch.randn(width, 6, generator=generator).to(device) for width in (5, 7, 8)]
    encoder = Residual(starts, "abc", hidden=hidden, dropout=0.0).to(device)
    components = [torch.randn(12, len(start), generator=generator).to(device) for start in starts]
    present = (torch.rand(12, 3, generator=generator) < 0.8).to(device)
    return encoder, Batch(torch.arange(12), Inputs(components, present), [12])


def terms_of(name):
    return WeightedTerms(make_method(name, {}).terms())


def test_a_step_is_adamw_on_the_gradient_of_the_objective():
    encoder, batch = drawn()
    objective = terms_of("infonce")
    expected, expected_objective = copy.deepcopy(encoder), copy.deepcopy(objective)
    take_step = Step(encoder, objective, StepOptions(0.01))
    found = [take_step(number, batch).read() for number in (1, 2)]
    groups = [
        {"params": list(expected.parameters()), "weight_decay": WEIGHT_DECAY},
        {"params": list(expected_objective.parameters()), "weight_decay": 0.0},
    ]
    plain = torch.optim.AdamW(groups, lr=0.01, foreach=False)
    for parts, norm, stop in found:
        plain.zero_grad()
        loss = expected_objective(expected(batch.inputs), batch.inputs)
        loss.value.backward()
        squares = sum(p.grad.square().sum() for group in groups for p in group["params"])
        assert parts["loss"] == pytest.approx(loss.value.item(), rel=1e-6)
        assert parts["temperature"] == pytest.approx(loss.parts["temperature"].item())
        assert norm == pytest.approx(squares.sqrt().item(), rel=1e-5)
        assert not stop
        plain.step()
    for mine, wanted in zip(encoder.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(mine, wanted)


class Halved:
    """Takes back half of what the optimiser did to the encoder."""

    on_device = True

    def __call__(self, before, after):
        for name, parameter in after.items():
            parameter.lerp_(before[name], 0.5)


def test_an_update_changes_what_the_optimiser_did_to_the_encoder_alone():
    encoder, batch = drawn()
    found = []
    for update in (None, Halved()):
        mine, terms = copy.deepcopy(encoder), terms_of("infonce")
        Step(mine, terms, StepOptions(0.01), update)(1, batch)
        found.append((mine, terms))
    for start, whole, half in zip(encoder.parameters(), *(mine.parameters() for mine, _ in found), strict=True):
        torch.testing.assert_close(half, (start + whole) / 2)
    for whole, same in zip(*(terms.parameters() for _, terms in found), strict=True):
        assert torch.equal(whole, same)


class BadOnce(Term):
    """InfoNCE whose loss, or gradient, is not finite in its second call."""

    def __init__(self, how):
        super().__init__()
        self.inner, self.how, self.calls = PairwiseContrast(), how, 0

    def forward(self, encoded, inputs, group=SINGLE):
        self.calls += 1
        value, parts = self.inner(encoded, inputs, group)
        if self.calls == 2:
            value = value * torch.nan if self.how == "loss" else value + (encoded.vectors.sum() * 0).abs().sqrt()
        return Loss(value, parts)


@pytest.mark.parametrize("how", ["loss", "gradient"])
def test_after_a_bad_step_nothing_changes_any_more(how):
    encoder, batch = drawn()
    take_step = Step(encoder, WeightedTerms([(1.0, BadOnce(how))]), StepOptions(0.01))
    take_step(1, batch)
    kept = copy.deepcopy(encoder.state_dict()), copy.deepcopy(take_step.optimiser.state_dict()["state"])
    parts, norm, _ = take_step(2, batch).read()
    assert parts["loss"] * norm != parts["loss"] * norm  # NaN
    take_step(3, batch)
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, kept[0][name])
    for index, state in take_step.optimiser.state_dict()["state"].items():
        for name, tensor in state.items():
            assert torch.equal(tensor, kept[1][index][name])


ON_DEVICE = [name for name in REGISTRY if terms_of(name).on_device]


@pytest.mark.parametrize("name", ON_DEVICE)
def test_a_step_off_the_cpu_waits_for_nothing(monkeypatch, name):
    # Tensors without values: reading one fails.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda _: None)
    encoder, batch = drawn(device="meta")
    take_step = Step(encoder, terms_of(name).to("meta"), StepOptions(0.01))
    with NeverWaits():
        take_step(1, batch)


class StandInGraph:
    """In place of a CUDA graph: does again, on what the step has put in place, what was captured."""

    def replay(self):
        numbers = self.captured.numbers
        numbers.copy_(self.step._change(None, self.captured.batch)[1])


def test_a_captured_step_is_the_step_and_capturing_changes_nothing(monkeypatch):
    """The logic alone; the graph itself is held by tests/test_cuda.py, which needs a GPU."""
    graph = StandInGraph()
    monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: graph)
    for name in ("device", "stream", "graph"):
        monkeypatch.setattr(torch.cuda, name, lambda *_, **__: nullcontext())
    streams = SimpleNamespace(wait_stream=lambda _: None)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: streams)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: streams)
    encoder, batch = drawn()
    other = Batch(batch.places, map_inputs(batch.inputs, lambda t: t.roll(1, 0)), batch.counts)
    found = []
    for captures in (False, True):
        mine = copy.deepcopy(encoder)
        take_step = graph.step = Step(mine, terms_of("infonce"), StepOptions(0.01), Halved())
        take_step._captures = captures
        if captures:
            before = copy.deepcopy(mine.state_dict())
            take_step._captured = graph.captured = take_step._capture(batch)
            assert all(torch.equal(tensor, before[name]) for name, tensor in mine.state_dict().items())
        totals = [take_step(1, batch), take_step(2, other, stop=True), take_step(3, batch)]
        found.append(([one.read() for one in totals], mine.state_dict()))
    assert found[0][0] == found[1][0]
    assert [stop for _, _, stop in found[0][0]] == [False, True, False]
    assert all(torch.equal(tensor, found[1][1][name]) for name, tensor in found[0][1].items())
