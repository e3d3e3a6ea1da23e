"""decalign on a toy of shared and unique factors: what each term does, and what it leaves as it is."""

import pytest
import torch

from pmrl_cli.methods import make_method
from pmrl_cli.terms.decoupling import linear_dependence
from pmrl_cli.terms.transport import fit_mixtures, transport_cost
from tests.methods.toy import r_squared, recall, start, toy, train

OFF = {"decoupling": 0.0, "heterogeneous": 0.0, "homogeneous": 0.0}
ON = {"decoupling": 3.0, "heterogeneous": 0.3, "homogeneous": 0.1}
APART = OFF | {"decoupling": 1.0}


def mean(values):
    return sum(values) / len(values)


@pytest.fixture(scope="module")
def found():
    """Measures of held-out instances, by what is switched on."""
    data = toy(850, noise=0.3, bend=0.3)
    training, held = data.rows(torch.arange(600)), data.rows(torch.arange(600, 850))
    outcomes = {}
    for name, settings in (("off", OFF), ("on", ON), ("apart", APART)):
        encoder, _ = train(make_method("decalign", settings), training, start(training, 16), steps=150)
        with torch.no_grad():
            output = encoder(held.inputs)
        common, unique = output.vectors, output.extra["unique"]
        scaled = unique * unique.shape[2] ** 0.5
        outcomes[name] = {
            "recall": recall(common),
            "transport": transport_cost(fit_mixtures(scaled, output.present, 8)).item(),
            "cosine": (common * unique).sum(2).abs().mean().item(),
            "dependence": linear_dependence(common, unique, output.present).item(),
            "shared": mean([r_squared(unique[:, m], held.shared) for m in range(3)]),
            "unique": mean([r_squared(unique[:, m], held.unique[m]) for m in range(3)]),
        }
    return outcomes


def test_unique_parts_transport_to_each_other_and_stay_at_right_angles_to_the_common_ones(found):
    off, on = found["off"], found["on"]
    assert on["transport"] < 0.3 * off["transport"]
    assert on["cosine"] < 0.6 * off["cosine"]
    assert on["recall"] > off["recall"] - 0.01


def test_the_covariance_penalty_drives_out_of_the_unique_part_what_is_shared(found):
    off, apart = found["off"], found["apart"]
    assert apart["dependence"] < 0.4 * off["dependence"]
    assert apart["shared"] < 0.1 < 0.25 < off["shared"]
    assert apart["unique"] > off["unique"] - 0.05
