"""Adapters that go on from a model: they start as it is, and what it was trained on stays."""

import pytest
import torch
from torch.nn.functional import normalize

from pmrl_cli.batch import Inputs
from pmrl_cli.encoders import encoder_from_state, encoder_state
from pmrl_cli.encoders.continued import continued
from pmrl_cli.encoders.protocol import Continuation, Init
from pmrl_cli.encoders.residual import Residual
from pmrl_cli.encoders.seen import Seen


def generator(seed):
    return torch.Generator().manual_seed(seed)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=generator(seed))


WIDTHS, DIM, HIDDEN = (12, 9), 8, 6


def earlier(rows=80, rank=4, seed=0):
    """Components of two modalities that fill ``rank`` dimensions, and who has what."""
    parts = [draw(rows, rank, seed=seed + m) @ draw(rank, width, seed=50 + m) for m, width in enumerate(WIDTHS)]
    present = torch.rand(rows, 2, generator=generator(seed + 9)) < 0.8
    return Inputs([part * present[:, [m]] for m, part in enumerate(parts)], present)


def base(hidden=HIDDEN, seed=0):
    torch.manual_seed(seed)
    encoder = Residual([draw(w, DIM, seed=20 + m) for m, w in enumerate(WIDTHS)], "ab", hidden=hidden, dropout=0.0)
    for parameter in encoder.parameters():
        parameter.data += 0.3 * torch.randn(parameter.shape)
    encoder.eval()
    encoder.see([earlier()], lambda tensor: tensor)
    return encoder


def gone_on(model, protect="input", energy=1.0, extra=0, trains=(True, True, True)):
    """The fit has c (new), a, b; a may have components that the model does not know."""
    widths = (7, WIDTHS[0] + extra, WIDTHS[1])
    maps = tuple(draw(width, DIM, seed=30 + m) for m, width in enumerate(widths))
    init = Init(maps, ("c", "a", "b"), hidden=99, dropout=0.0)
    lengths = tuple(torch.ones(width) for width in widths)
    return continued(init, Continuation(model, (None, 0, 1), trains, lengths, protect, energy))


def as_the_fit_has_them(inputs, extra=0):
    rows = len(inputs.present)
    components = [torch.zeros(rows, 7), torch.cat([inputs.components[0], torch.zeros(rows, extra)], 1)]
    present = torch.cat([torch.zeros(rows, 1, dtype=torch.bool), inputs.present], 1)
    return Inputs([*components, inputs.components[1]], present)


def train(encoder, steps=60, extra=0):
    """Steps of AdamW on noise, with weight decay, each followed by the protection."""
    optimiser = torch.optim.AdamW(encoder.parameters(), lr=0.03, weight_decay=0.3)
    update = encoder.update()
    encoder.train()
    for step in range(steps):
        inputs = Inputs(
            [draw(16, width, seed=1000 + step + m) for m, width in enumerate((7, WIDTHS[0] + extra, WIDTHS[1]))],
            torch.ones(16, 3, dtype=torch.bool),
        )
        optimiser.zero_grad()
        (encoder(inputs).vectors * draw(16, 3, DIM, seed=step)).sum().backward()
        before = {name: parameter.detach().clone() for name, parameter in encoder.named_parameters()}
        optimiser.step()
        if update is not None:
            update(before, dict(encoder.named_parameters()))
    return encoder.eval()


@pytest.mark.parametrize("hidden", [0, HIDDEN])
def test_it_starts_as_the_model_is(hidden):
    model, inputs = base(hidden), earlier(seed=3)
    encoder = gone_on(model, extra=5).eval()
    found = encoder(as_the_fit_has_them(inputs, extra=5)).vectors[:, 1:]
    torch.testing.assert_close(found[inputs.present], model(inputs).vectors[inputs.present])
    # A new modality starts at its closed form.
    fresh = Inputs([draw(4, 7), torch.zeros(4, WIDTHS[0] + 5), torch.zeros(4, WIDTHS[1])], torch.eye(4, 3) > 2)
    fresh.present[:, 0] = True
    expected = normalize(fresh.components[0] @ draw(7, DIM, seed=30), dim=1)
    torch.testing.assert_close(encoder(fresh).vectors[:, 0], expected)


@pytest.mark.parametrize("hidden", [0, HIDDEN])
def test_input_protection_leaves_the_vectors_of_earlier_instances(hidden):
    model = base(hidden)
    encoder = train(gone_on(model, extra=5), extra=5)
    inputs = earlier()
    found = encoder(as_the_fit_has_them(inputs, extra=5)).vectors[:, 1:]
    assert (found - model(inputs).vectors)[inputs.present].abs().max() < 1e-4
    moved = encoder.each[1].departure.norm()
    assert moved > 1  # of directions that were not seen
    assert (encoder.each[1].departure[-5:] != 0).all()


def test_without_protection_they_change():
    model, inputs = base(), earlier()
    encoder = train(gone_on(model, protect="none"))
    assert encoder.update() is None
    found = encoder(as_the_fit_has_them(inputs)).vectors[:, 1:]
    assert (found - model(inputs).vectors)[inputs.present].abs().max() > 0.1


def test_disjoint_protection_leaves_inner_products_of_earlier_instances():
    # Outputs of a linear adapter with a free complement: rank 4 of 8 dimensions.
    model = base(hidden=0)
    for m, adapter in enumerate(model.each):
        span = torch.linalg.qr(draw(DIM, 4, seed=70)).Q
        adapter.start.copy_(draw(WIDTHS[m], 4, seed=40 + m) @ span.mT)
        adapter.departure.data.zero_()
    model.seen = None
    model.see([earlier()], lambda tensor: tensor)
    inputs = earlier()
    encoder = train(gone_on(model, protect="disjoint"))

    def outputs(adapters):
        return [
            components @ (a.start + a.departure) for components, a in zip(inputs.components, adapters, strict=True)
        ]

    (a, b), (new_a, new_b) = outputs(model.each), outputs(encoder.each[1:])
    torch.testing.assert_close(new_a @ new_b.mT, a @ b.mT, atol=2e-3, rtol=1e-4)
    assert (new_a - a).abs().max() > 0.1
    assert encoder.protection.ranks()[1] == {"inputs": 4, "of": 12, "free": 2}


def test_a_modality_that_no_instance_has_is_not_touched():
    encoder = gone_on(base(), trains=(True, True, False))
    kept = {name: p.clone() for name, p in encoder.named_parameters() if name.startswith("each.2")}
    train(encoder)
    assert all(torch.equal(kept[name], p) for name, p in encoder.named_parameters() if name in kept)


def test_moments_are_means_of_products_and_add_up_over_fits():
    model = base()
    first, second = earlier(), earlier(rows=30, seed=5)
    model.see([second], lambda tensor: tensor)
    both = base()
    both.seen = None
    both.see([first, second], lambda tensor: tensor)
    for part in ("inputs", "hidden", "outputs"):
        for ours, theirs in zip(getattr(model.seen, part), getattr(both.seen, part), strict=True):
            torch.testing.assert_close(ours, theirs)
    has = torch.cat([first.present, second.present])[:, 0]
    rows = torch.cat([first.components[0], second.components[0]])[has]
    expected = sum(row[:, None] * row for row in rows) / len(rows)
    torch.testing.assert_close(model.seen.inputs[0], expected)
    assert model.seen.together.tolist() == both.seen.together.tolist()
    assert model.seen.together[0, 1] == int(torch.cat([first.present, second.present]).all(1).sum())


def test_moments_are_stored_with_the_weights():
    model = base()
    config, tensors = encoder_state(model)
    again = encoder_from_state(config, {name: tensor.clone() for name, tensor in tensors.items()})
    for part in ("inputs", "hidden", "outputs"):
        for ours, theirs in zip(getattr(model.seen, part), getattr(again.seen, part), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert torch.equal(model.seen.together, again.seen.together)


def test_partners_are_those_that_were_trained_with_it():
    seen = Seen(
        (torch.eye(2),) * 3,
        (torch.zeros(0, 0),) * 3,
        tuple(torch.eye(2) * scale for scale in (1.0, 10.0, 100.0)),
        torch.tensor([[5.0, 3.0, 0.0], [3.0, 9.0, 4.0], [0.0, 4.0, 4.0]]),
    )
    assert [float(seen.partners(m)[0, 0]) for m in range(3)] == [11.0, 111.0, 110.0]


def test_energies_are_those_before_whitening():
    # Two whitened components of equal variance, one of which had a hundredth of the other's energy.
    model = base(hidden=0)
    nothing = torch.zeros(0, 0)
    model.seen = Seen((torch.eye(12), torch.eye(9)), (nothing, nothing), (torch.eye(DIM),) * 2, torch.ones(2, 2))
    maps = tuple(draw(width, DIM, seed=m) for m, width in enumerate(WIDTHS))
    lengths = (torch.tensor([1.0] * 2 + [100.0] * 10), torch.ones(9))
    asked = Continuation(model, (0, 1), (True, True), lengths, "input", 0.99)
    encoder = continued(Init(maps, ("a", "b"), hidden=0, dropout=0.0), asked)
    assert encoder.protection.ranks()[0] == {"inputs": 2, "of": 12}
