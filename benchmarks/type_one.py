"""How often a diagnosis speaks of clean data: the type I error of LEAK, MISPAIRS and the test of the row order.

    PYTHONPATH=. python benchmarks/type_one.py [--draws 400] [--first 0] [--order]

A draw is structured data (``scenarios``: power-law spectra, clusters, heavy tails in turn) of 150 to 400 instances,
16 columns and two to four modalities, well aligned, in an order that means nothing. For LEAK every second draw holds
a fifth of its vectors of one modality twice, and is split into training and held-out instances as ``fit`` does it.
With --order the row order alone is tested, of as many draws as are asked for.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from math import sqrt

import numpy as np
from scenarios import KINDS, Maker

from pmrl_cli.data.leaks import find_leaks, trained_vectors
from pmrl_cli.data.repeats import hashes_of, with_hashes
from pmrl_cli.data.split import TRAIN, SplitRule, split_instances
from pmrl_cli.diagnosis import StateSampling, state_of
from pmrl_cli.diagnosis.evidence import Evidence
from pmrl_cli.diagnosis.rules import ResultView, pairing, rows
from pmrl_cli.diagnosis.statistics.declared import section
from pmrl_cli.diagnosis.statistics.row_runs import runs_of
from pmrl_cli.stats.statistic import plain

TESTS = ("row order, p below .05", "MISPAIRED_ROWS", "MISPAIRS", "TEMPLATES", "LEAK")


def draw(seed: int) -> Maker:
    """Return the maker of a draw."""
    return Maker(KINDS[seed % 3], 150 + 50 * (seed // 3 % 6), 2 + seed // 18 % 3, 100_000 + seed, d=16)


def order_p(seed: int) -> float:
    """Return the p of the row order of a clean draw."""
    maker = draw(seed)
    data = maker.dataset(maker.aligned())
    p = runs_of(Evidence(state_of(data, sampling=StateSampling(seed=seed)), data)).p
    return 1.0 if p is None else p


def leaks(seed: int) -> bool:
    """Whether held-out instances of a draw share a vector with those that trained, split as fit splits."""
    maker = draw(seed)
    arrays = maker.aligned()
    if seed % 2:
        fifth = maker.n // 5
        arrays["m0"][:fifth] = arrays["m0"][fifth : 2 * fifth]
    data = with_hashes(maker.dataset(arrays))
    train = split_instances(data, SplitRule(seed=seed, validation=0.2, test=0.0)) == TRAIN
    found = find_leaks(hashes_of(data)[~train], trained_vectors(data, train), data.names)
    return found.sharing > 0


def spoken_of(seed: int) -> Iterator[str]:
    """Yield the tests and rules that speak of a clean draw."""
    maker = draw(seed)
    data = maker.dataset(maker.aligned())
    evidence = Evidence(state_of(data, sampling=StateSampling(seed=seed)), data)
    modality = {name: section("modality", evidence, m) for m, name in enumerate(data.names)}
    result = plain({"inputs": {"modalities": data.names, "leaks": None}, "modality": modality})
    p = runs_of(evidence).p
    if p is not None and p < 0.05:
        yield TESTS[0]
    for rule in (*pairing.RULES, *rows.RULES):
        if rule.code in TESTS and any(rule.ask(ResultView(result))):
            yield rule.code
    if leaks(seed):
        yield "LEAK"


def main() -> None:
    """Print how often each test spoke."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--first", type=int, default=0, help="number of the first draw")
    parser.add_argument("--order", action="store_true", help="the row order alone")
    arguments = parser.parse_args()
    seeds = range(arguments.first, arguments.first + arguments.draws)
    if arguments.order:
        values = np.array([order_p(seed) for seed in seeds])
        counts = {f"row order, p at most {level}": int((values <= level).sum()) for level in (0.01, 0.05, 0.1, 0.5)}
    else:
        spoken = [test for seed in seeds for test in spoken_of(seed)]
        counts = {test: spoken.count(test) for test in TESTS}
    print(f"| of {arguments.draws} clean draws | share | standard error |\n|---|---|---|")
    for name, count in counts.items():
        share = count / arguments.draws
        print(f"| {name} | {share:.4f} | {sqrt(share * (1 - share) / arguments.draws):.4f} |")


if __name__ == "__main__":
    main()
