"""What holds for every method with an encoder of its own and every term: masks, edges, storing, processes."""

import pytest
import torch

from pmrl_cli.batch import SINGLE, Inputs
from pmrl_cli.encoders import encoder_from_state, encoder_state
from pmrl_cli.encoders.protocol import Init
from pmrl_cli.methods import REGISTRY, make_method, method_class
from pmrl_cli.methods.protocol import Method
from pmrl_cli.terms import REGISTRY as TERMS
from pmrl_cli.terms import make_term
from pmrl_cli.terms.weighted import WeightedTerms
from tests.distributed.processes import in_processes

OWN = [n for n in REGISTRY if method_class(n).encoder is not Method.encoder and not method_class(n).needs]
CASES = [*OWN, *(f"infonce+{term}" for term in TERMS), "mvae+separation", "decalign+separation"]
EVERY = pytest.mark.parametrize("case", CASES)
WIDTHS = (7, 5, 9)


def draw(rows, seed=0):
    generator = torch.Generator().manual_seed(seed)
    common = torch.randn(rows, 4, generator=generator)
    components = [
        common @ torch.randn(4, width, generator=generator) / 2 + torch.randn(rows, width, generator=generator) / 2
        for width in WIDTHS
    ]
    present = torch.rand(rows, len(WIDTHS), generator=generator) < 0.7
    present[:4] = True
    return Inputs([c * present[:, m, None] for m, c in enumerate(components)], present)


def build(case, dropout=0.0):
    """Return the encoder and the terms of ``METHOD+TERM``, away from where they start."""
    name, _, added = case.partition("+")
    generator = torch.Generator().manual_seed(1)
    maps = tuple(torch.randn(width, 6, generator=generator) for width in WIDTHS)
    names = ("audio", "image", "text")
    whiten = tuple(torch.ones(width) / 2 for width in WIDTHS)
    init = Init(maps, names, hidden=8, dropout=dropout, whiten=whiten, sample=draw(40, seed=5))
    torch.manual_seed(0)
    method = make_method(name, {})
    terms = WeightedTerms(method.terms(), {added: (0.5, make_term(added))} if added else {})
    encoder = method.encoder(init)
    for term in terms.terms:
        encoder = term.extend(encoder, init)
    for parameter in [*encoder.parameters(), *terms.parameters()]:
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return encoder, terms


def differentiate(encoder, terms, inputs, group=SINGLE, seed=3):
    torch.manual_seed(seed)
    encoded = encoder(inputs)
    torch.manual_seed(seed + 1)
    value, parts = terms(encoded, inputs, group)
    parameters = [*encoder.parameters(), *terms.parameters()]
    gradients = torch.autograd.grad(value, parameters, allow_unused=True)
    found = [torch.zeros_like(p) if g is None else g for g, p in zip(gradients, parameters, strict=True)]
    return value.detach(), found, parts


def same(found, wanted, gradients, message=""):
    """Assert that gradients agree to single precision, beside the largest of all."""
    largest = max(gradient.abs().max().item() for gradient in gradients if gradient.numel())
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5 * largest, msg=lambda text: f"{message} {text}")


@EVERY
def test_what_an_instance_lacks_is_not_seen(case):
    encoder, terms = build(case)
    inputs = draw(12)
    value, gradients, _ = differentiate(encoder, terms, inputs)
    garbage = [c.masked_fill(~inputs.present[:, m, None], 50.0) for m, c in enumerate(inputs.components)]
    other, others, _ = differentiate(*build(case), inputs._replace(components=garbage))  # a codebook has learnt
    torch.testing.assert_close(other, value)
    for found, wanted in zip(others, gradients, strict=True):
        same(found, wanted, gradients)
    vectors = encoder(inputs)
    for name, output in {"vectors": vectors.vectors, **vectors.extra}.items():
        assert output.isfinite().all(), name


@EVERY
@pytest.mark.parametrize("edge", ["empty", "nothing present", "one instance", "identical"])
def test_edges_are_finite(case, edge):
    encoder, terms = build(case)
    inputs = draw(6)
    if edge == "nothing present":
        inputs = Inputs([torch.zeros_like(c) for c in inputs.components], torch.zeros_like(inputs.present))
    if edge == "identical":
        inputs = Inputs([c[:1].expand_as(c) for c in inputs.components], torch.ones_like(inputs.present))
    rows = {"empty": 0, "one instance": 1}.get(edge, 6)
    value, gradients, _ = differentiate(
        encoder, terms, Inputs([c[:rows] for c in inputs.components], inputs.present[:rows])
    )
    assert value.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)


@EVERY
def test_a_stored_encoder_gives_the_same_outputs(case):
    encoder, _ = build(case)
    encoder = encoder.eval()
    inputs = draw(9)
    again = encoder_from_state(*encoder_state(encoder))
    assert not again.training
    with torch.no_grad():
        wanted, found = encoder(inputs), again(inputs)
    torch.testing.assert_close(found.vectors, wanted.vectors)
    assert found.extra.keys() == wanted.extra.keys()
    for name, output in wanted.extra.items():
        torch.testing.assert_close(found.extra[name], output)


@EVERY
def test_vectors_have_unit_length(case):
    encoder, _ = build(case)
    inputs = draw(9)
    outputs = encoder.eval()(inputs)
    for output in (outputs.vectors, *(o for n, o in outputs.extra.items() if n == "unique")):
        lengths = output.norm(dim=2)[inputs.present]
        torch.testing.assert_close(lengths, torch.ones_like(lengths))


COUNTS = (7, 0, 9)

# Whose encoder draws nothing: each process draws what it does to its own instances.
UNDRAWN = [case for case in CASES if case != "umurl"]


def shares(processes, counts):
    """Value and gradients of this process's part of the loss, by case."""
    start = sum(counts[: processes.rank])
    own = slice(start, start + counts[processes.rank])
    whole = draw(16)
    inputs = Inputs([c[own] for c in whole.components], whole.present[own])
    found = {}
    for case in UNDRAWN:
        value, gradients, _ = differentiate(*build(case), inputs, processes.batch_group(counts))
        found[case] = {"value": value, "gradients": gradients}
    return found


def test_parts_of_all_processes_add_up_to_the_loss_of_the_batch():
    found = in_processes(shares, len(COUNTS), COUNTS)
    for case in UNDRAWN:
        value, gradients, _ = differentiate(*build(case), draw(16))
        assert sum(of_one[case]["value"] for of_one in found) == pytest.approx(value.item(), rel=1e-5), case
        for i, wanted in enumerate(gradients):
            summed = sum(torch.as_tensor(of_one[case]["gradients"][i]) for of_one in found)
            same(summed, wanted, gradients, case)
