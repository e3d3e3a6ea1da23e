"""CPU time of a training step of the systems: three modalities of 128 components, 32 dimensions, batch 128.

    PYTHONPATH=. python benchmarks/systems/steps.py

Median of 12 steps after three, one thread, forward, backward and AdamW.
"""

from __future__ import annotations

import time

import torch

from pmrl_cli.methods import make_method
from pmrl_cli.terms import make_term
from pmrl_cli.terms.weighted import WeightedTerms
from tests.methods.toy import start, toy

CASES = ("pmrl", "infonce", "decalign", "mvae", *(f"infonce+{n}" for n in ("separation", "bridge", "geometry")))


def milliseconds(case: str) -> float:
    """Return the median CPU time of a step of METHOD or METHOD+TERM."""
    name, _, added = case.partition("+")
    data = toy(600, width=128)
    init = start(data, 32, hidden=256)
    torch.manual_seed(0)
    method = make_method(name, {})
    terms = WeightedTerms(method.terms(), {added: (1.0, make_term(added))} if added else {})
    encoder = method.encoder(init)
    for term in terms.terms:
        encoder = term.extend(encoder, init)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *terms.parameters()], lr=1e-3)
    found = []
    for _ in range(15):
        inputs = data.rows(torch.randperm(600)[:128]).inputs
        began = time.process_time()
        optimiser.zero_grad()
        terms(encoder(inputs), inputs).value.backward()
        optimiser.step()
        found.append(1000 * (time.process_time() - began))
    return sorted(found[3:])[6]


if __name__ == "__main__":
    torch.set_num_threads(1)
    for case in (*CASES, "infonce+neighbourhood"):
        print(f"{case}: {milliseconds(case):.1f} ms", flush=True)
