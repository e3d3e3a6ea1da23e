"""ProcessGroup sizes 1, 2 and 4: the same loss and gradient of every objective, whatever each process holds."""

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from tests.distributed.processes import in_processes
from tests.reference.agreement import ON_VECTORS, make_objective

# One process each; none of an instance, uneven, and none left for the last.
COUNTS = {1: (16,), 2: (5, 11), 4: (7, 0, 8, 1)}


def whole_batch():
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(16, 3, 8, generator=generator, dtype=torch.float64)
    present = torch.rand(16, 3, generator=generator) < 0.7
    present[:4] = True
    return normalize(vectors, dim=2), present


def shares_of_every_loss(processes, counts):
    """Value, parts and gradients of this process's share, by objective."""
    vectors, present = whole_batch()
    start = sum(counts[: processes.rank])
    own = slice(start, start + counts[processes.rank])
    found = {}
    for name in ON_VECTORS:
        objective = make_objective(name, {}).double()
        mine = vectors[own].clone().requires_grad_()
        torch.manual_seed(0)
        value, parts = objective(mine, present[own], processes.batch_group(counts))
        value.backward()
        learned = [parameter.grad for parameter in objective.parameters()]
        found[name] = {"value": value.detach(), "gradient": mine.grad, "parts": parts, "learned": learned}
    return found


@pytest.fixture(scope="module")
def alone():
    vectors, present = whole_batch()
    outcomes = {}
    for name in ON_VECTORS:
        objective = make_objective(name, {}).double()
        own = vectors.clone().requires_grad_()
        torch.manual_seed(0)
        value, parts = objective(own, present)
        value.backward()
        outcomes[name] = (value.detach(), own.grad, parts, [p.grad for p in objective.parameters()])
    return outcomes


@pytest.mark.parametrize("size", COUNTS)
def test_shares_of_all_processes_add_up_to_the_loss_of_the_batch(size, alone):
    found = in_processes(shares_of_every_loss, size, COUNTS[size])
    for name, (value, gradient, parts, learned) in alone.items():
        shares = [of_one[name] for of_one in found]
        assert_sum([share["value"] for share in shares], value)
        assert_same(np.concatenate([share["gradient"] for share in shares]), gradient)
        for part, whole in parts.items():
            assert_sum([share["parts"][part] for share in shares], whole)
        for i, whole in enumerate(learned):
            assert_sum([share["learned"][i] for share in shares], whole)


def assert_sum(shares, whole):
    assert_same(sum(shares), whole)


def assert_same(found, wanted):
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-9, atol=1e-12)
