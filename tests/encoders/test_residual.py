"""Adapters: at the closed form, or as a network of random weights; and as they are read back."""

import math

import numpy as np
import pytest
import torch

from pmrl_cli.batch import Inputs
from pmrl_cli.encoders import encoder_from_state, encoder_state
from pmrl_cli.encoders.residual import Adapter, Residual


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def gelu(x):
    return x * 0.5 * (1 + math.erf(x / math.sqrt(2)))


def test_an_adapter_starts_at_its_closed_form_and_a_network_at_its_hidden_layer():
    start, components = draw(4, 3), draw(5, 4, seed=1)
    torch.testing.assert_close(Adapter(start, hidden=6, dropout=0.0).eval()(components), components @ start)
    torch.manual_seed(0)
    network = Adapter(torch.zeros(4, 3), hidden=2, dropout=0.3, network=True).eval()
    network.requires_grad_(requires_grad=False)
    found = network(components)
    for row in range(5):
        for column in range(3):
            total = 0.0
            for unit in range(2):
                entered = float(network.enter.weight[unit] @ components[row] + network.enter.bias[unit])
                total += float(network.leave.weight[column, unit]) * gelu(entered)
            assert abs(float(found[row, column]) - total) < 1e-5
    assert float(found.abs().max()) > 0.01


def test_dropout_of_a_network_is_of_its_hidden_units():
    torch.manual_seed(0)
    network = Adapter(torch.eye(3), hidden=1, dropout=0.5, network=True).train()
    components = draw(200, 3)
    added = network(components) - components  # of the one hidden unit: nothing, or twice what it gives
    whole = network.eval()(components) - components
    dropped = added.abs().amax(1) < 1e-6
    assert 60 < int(dropped.sum()) < 140
    torch.testing.assert_close(added[~dropped], 2 * whole[~dropped], atol=1e-5, rtol=1e-4)


def test_what_is_read_back_rounds_as_what_was_trained():
    encoder = Residual([draw(4, 3), draw(5, 3, seed=1)], "ab", hidden=6, dropout=0.0)
    for parameter in encoder.parameters():
        parameter.data += 0.3 * draw(*parameter.shape, seed=2)
    inputs = Inputs([draw(9, 4, seed=3), draw(9, 5, seed=4)], torch.ones(9, 2, dtype=torch.bool))
    loaded = encoder_from_state(*encoder_state(encoder.eval()))
    assert torch.equal(loaded(inputs).vectors, encoder(inputs).vectors)


@pytest.mark.parametrize("hidden", [0, 6])
def test_a_few_rows_in_numpy_are_what_torch_makes_of_them(hidden):
    encoder = Residual([draw(4, 3), draw(5, 3, seed=1)], "ab", hidden=hidden, dropout=0.5).eval()
    for parameter in encoder.parameters():
        parameter.data += 0.3 * draw(*parameter.shape, seed=2)
    components = [draw(7, 4, seed=3), draw(7, 5, seed=4)]
    components[1][2] = 0
    expected = encoder(Inputs(components, torch.ones(7, 2, dtype=torch.bool))).vectors
    for m, vectors in enumerate(encoder.row_maps()):
        found = vectors(components[m].numpy())
        np.testing.assert_allclose(found, expected[:, m].detach(), atol=1e-6)
        assert found.dtype == np.float32
