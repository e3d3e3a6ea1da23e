"""How well the diagnosis finds what is wrong: planted swaps on real features, golden scenarios, levels and coverage.

    PYTHONPATH=. python benchmarks/diagnose.py SET [SET ...] [--models FOLDER] [--draws 40] [--refit]
    PYTHONPATH=. python benchmarks/diagnose.py --scenarios 4 --levels

A SET is a folder of feature files; it is aligned by a fit with default settings (kept in FOLDER if one is given).
Then a share of the instances gets one modality from another of them, and the columns are the area under the ROC
curve of scores that should be higher for them: ours; the least score over modalities (they are not weighed); the
mean cosine of the pairs; sigma_1; the volume. Means over draws of the swaps, two instances at least; "unseen" are
those that the fit kept aside. With ``--refit`` a twentieth is swapped before the fit, which then learns from them.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score

from pmrl_cli import Aligner, read_dataset
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.diagnosis import StateSampling, diagnose
from pmrl_cli.diagnosis.mispair_rates import consensus_auc
from pmrl_cli.diagnosis.mispairing import Mispairs
from pmrl_cli.diagnosis.rules import RULES
from pmrl_cli.diagnosis.statistics.dependence import Margin, dependence
from pmrl_cli.diagnosis.statistics.pairing import pairing_z
from pmrl_cli.diagnosis.statistics.probe import probe
from pmrl_cli.retrieval.batches import Batch, read_batch
from pmrl_cli.stats.instances import instance_statistics
from pmrl_cli.stats.statistic import Statistic

Array = npt.NDArray[np.float64]

RATES = (0.01, 0.05, 0.2)
SCORES = ("ours", "least score", "mean cosine", "sigma_1", "volume")

SAME = {"flickr8k_clip": "label"}
"""Side column, by name of the set, whose rows are the same thing: to swap among them would be no swap."""


def plan_swaps(
    present: npt.NDArray[np.bool_], same: npt.NDArray[np.int64], rate: float, seed: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return, for every instance, the modality it gets from another (-1: none) and which other that is."""
    generator = np.random.default_rng(seed)
    count = len(present)
    which, source = np.full(count, -1), np.arange(count)
    for row in generator.permutation(np.flatnonzero(present.sum(1) > 1))[: max(2, round(rate * count))]:
        m = generator.choice(np.flatnonzero(present[row]))
        others = np.flatnonzero(present[:, m] & (same != same[row]))
        which[row], source[row] = m, generator.choice(others)
    return which, source


def swap(batch: Batch, which: npt.NDArray[np.int64], source: npt.NDArray[np.int64]) -> Batch:
    """Return a batch with those swaps."""
    embeddings = batch.embeddings.clone()
    for row in np.flatnonzero(which >= 0):
        embeddings[row, which[row]] = batch.embeddings[source[row], which[row]]
    return Batch(batch.rows, embeddings, batch.present)


def scores_of(batch: Batch) -> tuple[dict[str, Array], npt.NDArray[np.int64], float, bool]:
    """Return every score, the modality ours blames, the estimated rate, and whether it is no mere upper bound."""
    names = tuple(str(m) for m in range(batch.present.shape[1]))
    mispairs = Mispairs.of(batch, names, np.arange(len(batch.rows)))
    found, model = mispairs.found, mispairs.model
    suspicion = model.suspicion(found.score)
    statistics = instance_statistics(batch)
    gram = torch.bmm(batch.embeddings, batch.embeddings.mT).double()
    gram.diagonal(dim1=1, dim2=2).fill_(1)  # an absent modality: as if orthogonal, it leaves the volume alone
    scores = {
        "ours": suspicion.evidence,
        "least score": -np.nanmin(found.score, axis=1),
        "mean cosine": -np.nanmean(statistics.cosine, axis=1),
        "sigma_1": -statistics.rho,
        "volume": torch.linalg.det(gram).clamp_min(0).sqrt().numpy(),
    }
    rates = [rate.value or 0.0 for rate in model.rates]
    total = rates[0] if len(rates) == 2 else sum(rates)
    return scores, suspicion.suspect_modality, total, all(rate.status == "ok" for rate in model.rates)


def whole(dataset: Dataset) -> tuple[Batch, npt.NDArray[np.int64]]:
    """Return the instances with two modalities as a batch, and their rows."""
    rows = np.flatnonzero(dataset.present.sum(1) > 1)
    batch = read_batch(dataset, rows)
    return Batch(np.arange(len(rows)), batch.embeddings, batch.present), rows


def identity(folder: Path, dataset: Dataset) -> npt.NDArray[np.int64]:
    """Return codes that are equal for instances of the same thing."""
    if folder.name not in SAME:
        return np.arange(len(dataset))
    return np.unique(dataset.columns[SAME[folder.name]].to_numpy(zero_copy_only=False), return_inverse=True)[1]


def fitted(folder: Path, dataset: Dataset, models: Path | None) -> Aligner:
    """Return a default fit, from ``models`` if it is there."""
    path = None if models is None else models / folder.name
    if path is not None and path.exists():
        return Aligner.load(path)
    aligner = Aligner().fit(dataset)
    if path is not None:
        aligner.save(path)
    return aligner


def planted(folder: Path, models: Path | None, draws: int) -> Iterator[str]:
    """Yield the rows of one set: swaps planted after the fit."""
    dataset = read_dataset([str(folder)], join="outer")
    aligner, same = fitted(folder, dataset, models), identity(folder, dataset)
    for split, count in (("unseen", draws), ("all", max(2, draws // 8))):
        rows, _ = aligner.rows(dataset, "test" if split == "unseen" else "all")
        batch, kept = whole(aligner.embed_dataset(dataset, rows))
        for rate in RATES:
            yield row_of(folder.name, split, batch, same[rows][kept], rate, count)


def row_of(name: str, split: str, batch: Batch, same: npt.NDArray[np.int64], rate: float, draws: int) -> str:
    """Return one row of the table."""
    curves, blamed, rates, decided = [], [], [], []
    for seed in range(draws):
        which, source = plan_swaps(batch.present.numpy(), same, rate, seed)
        scores, suspect_modality, total, known = scores_of(swap(batch, which, source))
        curves.append([roc_auc_score(which >= 0, scores[key]) for key in SCORES])
        blamed.append((suspect_modality == which)[which >= 0].mean())
        rates.append(total)
        decided.append(known)
    return text_of(name, split, len(batch.rows), rate, np.mean(curves, 0), blamed, rates, decided)


def text_of(
    name: str,
    split: str,
    count: int,
    rate: float,
    areas: Array,
    blamed: list[float],
    rates: list[float],
    decided: list[bool],
) -> str:
    """Return a line of the table; a rival that is ahead by .005 or more is bold."""
    cells = [f"{areas[0]:.3f}"] + [f"**{a:.3f}**" if a >= areas[0] + 0.005 else f"{a:.3f}" for a in areas[1:]]
    estimate = f"{np.mean(rates):.1%}" if np.mean(decided) > 0.5 else f"<= {np.mean(rates):.0%}"
    return f"| {name} | {split} | {count} | {rate:.0%} | {' | '.join(cells)} | {np.mean(blamed):.2f} | {estimate} |"


def refitted(folder: Path, rate: float = 0.05) -> str:
    """Return the row of a set whose fit saw the swaps."""
    dataset = read_dataset([str(folder)], join="outer")
    which, source = plan_swaps(dataset.present, identity(folder, dataset), rate, 0)
    modalities = []
    for m, features in enumerate(dataset.modalities):
        array = features.read(slice(0, len(dataset)))
        own = np.flatnonzero(which == m)
        array[own] = array[source[own]]
        modalities.append(replace(features, array=array, bfloat16=False, digest=""))
    mixed = replace(dataset, modalities=tuple(modalities))
    batch, kept = whole(Aligner().fit(mixed).embed_dataset(mixed))
    scores, suspect_modality, total, known = scores_of(batch)
    bad = which[kept] >= 0
    areas = np.array([roc_auc_score(bad, scores[key]) for key in SCORES])
    blamed = [float((suspect_modality == which[kept])[bad].mean())]
    return text_of(folder.name, "seen swapped", len(batch.rows), rate, areas, blamed, [total], [known])


def confusion(seeds: int) -> Iterator[str]:
    """Yield, for every code, how often it was due, said, and said without being due."""
    from tests.scenarios import scenarios

    settings = [(seed, 500, 64 if seed % 2 == 0 else 128) for seed in range(seeds)]
    codes = [*(rule.code for rule in RULES), "HEALTHY", "WEAK"]
    due, right, wrong = (dict.fromkeys(codes, 0) for _ in range(3))
    odd = []
    total = 0
    for seed, n, d in settings:
        for name, (data, expected) in scenarios(seed, n, d).items():
            verdict = diagnose(data, sampling=StateSampling(seed=seed)).as_dict()["verdict"]
            fired = {finding["code"] for finding in verdict["findings"]}
            total += 1
            for code in codes:
                due[code] += code in expected
                right[code] += code in expected & fired
                wrong[code] += code in fired - expected
            if fired != expected:
                odd.append(
                    f"{name} (n {n}, d {d}): missed {sorted(expected - fired)}, extra {sorted(fired - expected)}"
                )
    yield "| code | due | fired | not fired | fired without being due |\n|---|---|---|---|---|"
    for code in codes:
        missed, others = due[code] - right[code], total - due[code]
        yield f"| {code} | {due[code]} | {right[code]} | {missed} | {wrong[code]} of {others} |"
    yield ""
    yield from (f"* {line}" for line in odd)


def levels() -> Iterator[str]:
    """Yield type-I errors and coverages over many draws."""
    yield "| what | of | nominal | measured |\n|---|---|---|---|"
    draws = 400
    for n, d in ((60, 8), (60, 200), (300, 32)):
        for kind in ("normal", "t3"):
            generator = np.random.default_rng(n + d)
            found: dict[str, list[float]] = {"pairing z": [], "CKA z": [], "shared neighbours": []}
            for _ in range(draws):
                first, second = (
                    unit((generator.normal if kind == "normal" else generator.standard_t)(*a, size=(n, d)) + 0.3)
                    for a in (((0, 1) if kind == "normal" else (3,)),) * 2
                )
                one = dependence(*(Margin.of(side, np.arange(n)) for side in (first, second)))
                found["pairing z"].append(pairing_z(first, second) or 0.0)
                found["CKA z"].append(one.cka_z.value or 0.0)
                mknn = one.neighbours_adjusted.p
                found["shared neighbours"].append(0.0 if mknn is None or mknn >= 0.05 else 9.0)
            for name, values in found.items():
                share = np.mean(np.array(values) > 1.645)
                yield f"| one-sided test of unrelated modalities | {name}, n {n}, d {d}, {kind} | .05 | {share:.3f} |"
    for modalities in (2, 3):
        for rate in (0.0, 0.05, 0.2):
            yield coverage_of_rate(modalities, rate)
    yield from coverage_of_probe()


def unit(x: Array) -> Array:
    """Return rows at unit length."""
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def coverage_of_rate(modalities: int, rate: float, draws: int = 100, n: int = 500, d: int = 32) -> str:
    """Return how often the interval of the mispair rate covers the planted one, and of the AUC its mean."""
    covered, aucs = [], []
    for seed in range(draws):
        generator = np.random.default_rng(seed)
        latent = generator.normal(size=(n, 1, d))
        vectors = unit(latent + 0.6 * generator.normal(size=(n, modalities, d))).astype(np.float32)
        batch = Batch(np.arange(n), torch.from_numpy(vectors), torch.ones(n, modalities, dtype=torch.bool))
        which, source = plan_swaps(batch.present.numpy(), np.arange(n), rate, seed) if rate else (np.full(n, -1),) * 2
        moved = swap(batch, which, source)
        mispairs = Mispairs.of(moved, tuple(map(str, range(modalities))), np.arange(n))
        for m, estimated in enumerate(mispairs.model.rates):
            truth = float(((which >= 0) if modalities == 2 else (which == m)).mean())
            covered.append(inside(estimated, truth))
        aucs.append(consensus_auc(mispairs.found.score[:, 0], mispairs.mispaired[0, 0], np.arange(n)))
    mean = float(np.mean([one.value for one in aucs]))
    auc = np.mean([inside(one, mean) for one in aucs])
    what = f"k {modalities}, {rate:.0%} swapped, n {n}"
    return (
        f"| interval of the mispair rate | {what} | .95 | {np.mean(covered):.3f} |\n"
        f"| interval of the consensus AUC (around its mean) | {what} | .95 | {auc:.3f} |"
    )


def coverage_of_probe(draws: int = 200, n: int = 300) -> Iterator[str]:
    """Yield how often the interval of the shared dimensions covers chance, for unrelated modalities."""
    for d in (20, 200):
        found = []
        for seed in range(draws):
            generator = np.random.default_rng(seed)
            vectors = [generator.normal(size=(n, d)) for _ in range(2)]
            one = probe(vectors, np.arange(n) % 2 == 0, np.arange(n))
            found.append(one is not None and inside(one.shared_dimensions, 0.0))
        yield f"| interval of the shared dimensions, unrelated | n {n}, d {d} | .95 | {np.mean(found):.3f} |"


def inside(found: Statistic, truth: float) -> bool:
    """Whether an interval holds a value."""
    return found.ci is not None and found.ci[0] <= truth <= found.ci[1]


def main() -> None:
    """Print what is asked for, rows as they are done."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", type=Path)
    parser.add_argument("--models", type=Path, help="folder that keeps the fits")
    parser.add_argument("--draws", type=int, default=40, help="of swaps among unseen; an eighth as many among all")
    parser.add_argument("--refit", action="store_true", help="swap before the fit, too")
    parser.add_argument(
        "--scenarios", type=int, default=0, metavar="SEEDS", help="the golden scenarios, drawn so often"
    )
    parser.add_argument("--levels", action="store_true", help="type-I errors and coverages")
    arguments = parser.parse_args()
    if arguments.sets:
        print(f"| set | instances | n | swapped | {' | '.join(SCORES)} | blamed rightly | estimated |")
        print("|" + "---|" * (len(SCORES) + 6))
    for folder in arguments.sets:
        for line in planted(folder, arguments.models, arguments.draws):
            print(line, flush=True)
        if arguments.refit:
            print(refitted(folder), flush=True)
    for wanted, lines in ((arguments.scenarios, lambda: confusion(arguments.scenarios)), (arguments.levels, levels)):
        if wanted:
            print()
            for line in lines():
                print(line, flush=True)


if __name__ == "__main__":
    main()
