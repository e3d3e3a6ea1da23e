"""How well the rate of mispaired vectors is estimated: on structured data of known rates, and how often it is said.

    PYTHONPATH=. python benchmarks/mispair_rates.py [--draws 2] [--modalities 2,3,4]

Data as in ``scenarios``: power-law spectra, clusters and heavy tails of 700 and 1,200 instances in turn. A third, a
tenth or 2 % of one modality are swapped at random or within classes; or nothing is; or one modality is much noisier.
"Said" are rates with a finding, "covered" those whose 95 % interval holds the truth.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator

import numpy as np
from scenarios import KINDS, SHARES, Maker

from pmrl_cli.data.dataset import Dataset
from pmrl_cli.diagnosis.mispairing import Mispairs
from pmrl_cli.diagnosis.rules.pairing import MISPAIR_FLOOR, NEAR_FLOOR
from pmrl_cli.retrieval.batches import read_batch
from pmrl_cli.stats.statistic import Statistic

DEFECTS = (
    "clean",
    "noisy",
    "a tenth at random",
    "2 % at random",
    "a third at random",
    "a tenth by class",
    "a third by class",
    "2 % by class",
)


def cases(modalities: int, draws: int) -> Iterator[tuple[str, str, Dataset, int, float]]:
    """Yield kind, defect, data, the modality it is about and its rate."""
    seed = 5000 + (modalities - 2) * len(KINDS) * len(DEFECTS) * draws
    for kind in KINDS:
        for defect in DEFECTS:
            for draw in range(draws):
                seed += 1
                maker = Maker(kind, (700, 1200)[draw % 2], modalities, seed)
                arrays, name, rate = maker.aligned(), "m0", 0.0
                if defect == "noisy":
                    if modalities == 2:
                        continue
                    arrays["m0"] = maker.aligned(2.5)["m0"]
                elif defect != "clean":
                    share, way = next(
                        (one, defect.removeprefix(f"{one} ")) for one in SHARES if defect.startswith(one)
                    )
                    rate = SHARES[share]
                    name, _ = maker.mispair(arrays, rate, way)
                yield kind, defect, maker.dataset(arrays), maker.names.index(name), rate


def said(rate: Statistic, near: Statistic) -> bool:
    """Whether a rate leads to a finding."""
    alike = near.value is not None and rate.value is not None and near.value > rate.value / 2
    return rate.status == "ok" and rate.ci is not None and rate.ci[0] > (NEAR_FLOOR if alike else MISPAIR_FLOOR)


def main() -> None:
    """Print one row for each number of modalities, defect and kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--modalities", default="2,3,4")
    arguments = parser.parse_args()
    print(
        "| modalities | swapped | data | rates | truth | mean | said | covered |\n|---|---|---|---|---|---|---|---|"
    )
    for modalities in map(int, arguments.modalities.split(",")):
        found: dict[tuple[str, str], list[tuple[float, float, bool, bool]]] = defaultdict(list)
        for kind, defect, data, about, planted in cases(modalities, arguments.draws):
            mispairs = Mispairs.of(read_batch(data, np.arange(len(data))), data.names, np.arange(len(data)))
            for m in range(1 if modalities == 2 else modalities):
                of_it = m == about or modalities == 2
                rate, near = mispairs.model.rates[m], mispairs.model.near_rates[m]
                truth = planted if of_it else 0.0
                covered = rate.ci is not None and rate.ci[0] <= truth <= rate.ci[1]
                row = truth, rate.value or 0.0, said(rate, near), covered
                found[defect if of_it else "clean", kind].append(row)
        for (defect, kind), rows in sorted(found.items()):
            truth, mean, spoken, covered = np.mean(rows, axis=0)
            count = len(rows)
            counts = f"{round(spoken * count)} | {round(covered * count)}"
            print(f"| {modalities} | {defect} | {kind} | {count} | {truth:.3f} | {mean:.3f} | {counts} |")


if __name__ == "__main__":
    main()
