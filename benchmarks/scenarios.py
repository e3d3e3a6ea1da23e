"""One hundred data sets with a known defect each, on structured data, and what diagnose says of them.

    PYTHONPATH=. python benchmarks/scenarios.py [--only WORD] [--first N]

Spectra fall as a power of the rank, instances come in clusters, or tails are heavy; 120 to 5,000 instances, two to
six modalities, of one width (embeddings) or of several (features before alignment). A scenario says which codes must
be said, of which modality, with what rate or rows, and which may be said besides. The result is a confusion matrix,
followed by every scenario that was judged otherwise.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pmrl_cli.data.dataset import Dataset, Features
from pmrl_cli.diagnosis import diagnose

Array = npt.NDArray[np.float64]

KINDS = ("power law", "clusters", "heavy tails")
SHARES = {"a third": 1 / 3, "a tenth": 0.1, "2 %": 0.02}
WAYS = ("at random", "by class", "in one run")
LEVEL = {"HEALTHY", "WEAK"}
SPECTRUM = {"CONE", "DIM_COLLAPSE", "HUBNESS", "TIES", "ONE_WAY"}
"""What the structure itself may give rise to, with or without a defect."""


@dataclass(frozen=True)
class Due:
    """A finding that must be said.

    Args:
        code: its code.
        subject: the modality that is wrong; empty where any will do. Of two modalities the pair is right.
        rate: planted share of the instances, or None.
        rows: first and last row but one of the range, or None.
    """

    code: str
    subject: str = ""
    rate: float | None = None
    rows: tuple[int, int] | None = None


@dataclass(frozen=True)
class Scenario:
    """A data set and what should be said of it.

    Args:
        name: in words.
        data: the instances, in the order of their files.
        due: findings that must be there.
        may: codes that may be there besides.
    """

    name: str
    data: Dataset
    due: tuple[Due, ...]
    may: set[str] = field(default_factory=set)


class Maker:
    """Structured instances of one latent, seen by every modality.

    Args:
        kind: of ``KINDS``.
        n: instances.
        k: modalities.
        seed: of everything.
        d: columns of the latent and, where widths are equal, of every modality.
    """

    def __init__(self, kind: str, n: int, k: int, seed: int, d: int = 64) -> None:
        self.kind, self.n, self.k, self.d = kind, n, k, d
        self.random = np.random.default_rng(seed)
        self.names = [f"m{m}" for m in range(k)]
        self.classes = self.random.integers(12, size=n)
        self._turn = np.linalg.qr(self.random.normal(size=(d, d)))[0]
        self.latent = self._draw()
        if kind == "clusters":
            middles = self.random.normal(size=(12, d)) * self._scale()
            self.latent = self.latent + middles[self.classes] @ self._turn.T
        else:  # classes are slices along the leading direction
            leading = self.latent @ self._turn[:, 0]
            self.classes = np.argsort(np.argsort(leading)) * 12 // n

    def _scale(self) -> Array:
        exponent = 0.25 if self.kind == "clusters" else 0.5
        scale: Array = np.arange(1, self.d + 1) ** -exponent
        return scale / np.sqrt((scale**2).mean())

    def _draw(self) -> Array:
        drawn = self.random.normal(size=(self.n, self.d)) * self._scale()
        if self.kind == "heavy tails":
            drawn /= np.sqrt(self.random.chisquare(3, size=(self.n, 1)) / 3)
        return drawn @ self._turn.T

    def aligned(self, noise: float = 0.6) -> dict[str, Array]:
        """Every modality: the latent, noise of the same spectrum, and a small offset of its own."""
        return {
            name: self.latent + noise * self._draw() + 0.15 * np.sqrt(self.d) * self.direction()
            for name in self.names
        }

    def direction(self) -> Array:
        """Return a unit vector."""
        away = self.random.normal(size=self.d)
        return away / np.linalg.norm(away)

    def features(self, noise: float = 0.6) -> dict[str, Array]:
        """Every modality in coordinates of its own: 40 columns, 48, 56, ..."""
        found = {}
        for m, (name, x) in enumerate(self.aligned(noise).items()):
            turn = np.linalg.qr(self.random.normal(size=(self.d, self.d)))[0]
            found[name] = x @ turn[:, : 40 + 8 * (m % 4)]
        return found

    def mispair(self, arrays: dict[str, Array], share: float, way: str) -> tuple[str, tuple[int, int] | None]:
        """Give a share of the instances another's vector of one modality; return which, and the rows of a run."""
        name = self.names[int(self.random.integers(self.k))]
        count, rows = round(share * self.n), None
        if way == "in one run":
            first = int(self.random.integers(self.n - count + 1))
            rows = (first, first + count)
            bad = np.arange(first, first + count)
        else:
            bad = self.random.permutation(self.n)[:count]
        x = arrays[name]
        moved = x.copy()
        groups = [bad] if way != "by class" else [bad[self.classes[bad] == c] for c in range(12)]
        for group in groups:
            if way == "by class" and len(group):
                for row in group:
                    others = np.flatnonzero((self.classes == self.classes[row]) & (np.arange(self.n) != row))
                    moved[row] = x[self.random.choice(others)]
            elif len(group):
                order = self.random.permutation(group)
                moved[order] = x[np.roll(order, 1)]
        arrays[name] = moved
        return name, rows

    def dataset(self, arrays: dict[str, Array], present: npt.NDArray[np.bool_] | None = None) -> Dataset:
        """Return arrays as a data set."""
        present = np.ones((self.n, self.k), dtype=bool) if present is None else present
        features = tuple(
            Features(name, np.where(present[:, [m]], arrays[name], 0).astype(np.float32))
            for m, name in enumerate(self.names)
        )
        return Dataset(pa.array([f"id{i}" for i in range(self.n)], pa.large_string()), features, present, {})


def subject_of(maker: Maker, name: str) -> str:
    """Return whom a finding should name: of two modalities the pair."""
    return "|".join(maker.names) if maker.k == 2 else name


def small(maker: Maker) -> tuple[Due, ...]:
    """Return what must be said of few instances."""
    return (Due("N_SMALL"),) if maker.n < 200 else ()


def mispaired(maker: Maker, share: str, way: str, *, wide: bool = False) -> Scenario:
    """A share of one modality goes to other instances."""
    arrays = maker.features() if wide else maker.aligned()
    name, rows = maker.mispair(arrays, SHARES[share], way)
    code = "MISPAIRED_ROWS" if rows else "MISPAIRS"
    due = (Due(code, subject_of(maker, name), SHARES[share], rows), *small(maker))
    may = SPECTRUM | ({"MISPAIRS"} if rows else set()) | ({"NOT_ALIGNED_BUT_ALIGNABLE"} if wide else set())
    return Scenario(f"{share} {way}", maker.dataset(arrays), due, may)


def healthy(maker: Maker) -> Scenario:
    """Nothing is wrong."""
    return Scenario("clean", maker.dataset(maker.aligned()), (Due("HEALTHY"), *small(maker)), SPECTRUM)


def missing(maker: Maker) -> Scenario:
    """A fifth of the vectors are not there."""
    present = maker.random.random((maker.n, maker.k)) > 0.2
    present[present.sum(1) < 2] = True
    return Scenario("a fifth missing", maker.dataset(maker.aligned(), present), (Due("HEALTHY"),), SPECTRUM)


def weak(maker: Maker) -> Scenario:
    """Much noise."""
    return Scenario("weak", maker.dataset(maker.aligned(2.5)), (Due("WEAK"), *small(maker)), SPECTRUM)


def shuffled(maker: Maker, *, wide: bool = False) -> Scenario:
    """No instance has its own vectors."""
    arrays = maker.features() if wide else maker.aligned()
    arrays = {name: maker.random.permutation(x) for name, x in arrays.items()}
    return Scenario("shuffled", maker.dataset(arrays), (Due("NO_PAIRING"), *small(maker)), SPECTRUM)


def shifted_run(maker: Maker) -> Scenario:
    """From two fifths of the rows on, one modality is one row late."""
    arrays = maker.aligned()
    name, first = maker.names[-1], 2 * maker.n // 5
    arrays[name][first:] = np.roll(arrays[name][first:], 1, axis=0)
    due = Due("MISPAIRED_ROWS", subject_of(maker, name), 0.6, (first, maker.n))
    may = SPECTRUM | {"MISPAIRS", "ODD_ONE_OUT"}
    return Scenario("one row late from two fifths on", maker.dataset(arrays), (due, *small(maker)), may)


def template(maker: Maker) -> Scenario:
    """A fifth of the rows of one modality hold one vector."""
    arrays = maker.aligned()
    name = maker.names[0]
    arrays[name][maker.random.permutation(maker.n)[: maker.n // 5]] = maker.latent[0]
    due = Due("TEMPLATES", name, 0.2)
    may = SPECTRUM | {"MISPAIRS"} | LEVEL
    return Scenario("one vector in a fifth of the rows", maker.dataset(arrays), (due, *small(maker)), may)


def unrelated(maker: Maker, *, wide: bool = False) -> Scenario:
    """One modality has nothing to do with the others."""
    arrays = maker.features() if wide else maker.aligned()
    arrays["m0"] = maker.random.permutation(arrays["m0"])
    codes = [Due("NO_PAIRING")] if maker.k == 2 else [Due("UNRELATED_PAIR")]
    may = SPECTRUM | {"ODD_ONE_OUT", "NOT_ALIGNED_BUT_ALIGNABLE"}
    return Scenario("one unrelated", maker.dataset(arrays), (*codes, *small(maker)), may)


def opposed(maker: Maker) -> Scenario:
    """One modality points the other way."""
    arrays = maker.aligned()
    arrays["m0"] = -arrays["m0"]
    may = SPECTRUM | {"NOT_ALIGNED_BUT_ALIGNABLE", "ODD_ONE_OUT"}
    return Scenario("one opposed", maker.dataset(arrays), (Due("ANTI_ALIGNED"), *small(maker)), may)


def rotated(maker: Maker) -> Scenario:
    """One modality of one width stands in other coordinates."""
    arrays = maker.aligned()
    arrays["m0"] = arrays["m0"] @ np.linalg.qr(maker.random.normal(size=(maker.d, maker.d)))[0]
    may = SPECTRUM | {"ODD_ONE_OUT", "UNRELATED_PAIR"}
    return Scenario("one rotated", maker.dataset(arrays), (Due("NOT_ALIGNED_BUT_ALIGNABLE"), *small(maker)), may)


def offset(maker: Maker) -> Scenario:
    """Every modality is far from the others, by a constant."""
    arrays = {name: x + 2.5 * np.sqrt(maker.d) * maker.direction() for name, x in maker.aligned(0.8).items()}
    return Scenario("offset", maker.dataset(arrays), (Due("MODALITY_GAP"), *small(maker)), SPECTRUM | {"COV_GAP"})


def cone(maker: Maker) -> Scenario:
    """All vectors share a direction."""
    away = 2 * np.sqrt(maker.d) * maker.direction()
    arrays = {name: x + away for name, x in maker.aligned().items()}
    return Scenario("cone", maker.dataset(arrays), (Due("CONE"), *small(maker)), SPECTRUM | LEVEL)


def flat(maker: Maker) -> Scenario:
    """Two dimensions of 64 are in use."""
    axes = np.linalg.qr(maker.random.normal(size=(maker.d, maker.d)))[0][:, :2]
    arrays = {
        name: x @ axes @ axes.T * 4 + 0.02 * maker.random.normal(size=x.shape) for name, x in maker.aligned().items()
    }
    return Scenario("two dimensions", maker.dataset(arrays), (Due("DIM_COLLAPSE"), *small(maker)), SPECTRUM | LEVEL)


def noisy(maker: Maker) -> Scenario:
    """One modality has much more noise than the others."""
    arrays = maker.aligned()
    arrays["m0"] = maker.aligned(2.5)["m0"]
    return Scenario("one noisy", maker.dataset(arrays), (Due("ODD_ONE_OUT", "m0"), *small(maker)), SPECTRUM)


def late(maker: Maker, *, wide: bool = False) -> Scenario:
    """One modality is one row late, all of it."""
    arrays = maker.features() if wide else maker.aligned()
    arrays["m0"] = np.roll(arrays["m0"], 1, axis=0)
    may = SPECTRUM | {"NO_PAIRING", "UNRELATED_PAIR", "ODD_ONE_OUT", "NOT_ALIGNED_BUT_ALIGNABLE"}
    return Scenario("one row late", maker.dataset(arrays), (Due("SHIFTED_JOIN"), *small(maker)), may)


def copies(maker: Maker) -> Scenario:
    """A quarter of the instances are copies of others."""
    arrays, quarter = maker.aligned(), maker.n // 4
    for x in arrays.values():
        x[:quarter] = x[quarter : 2 * quarter]
    return Scenario("a quarter are copies", maker.dataset(arrays), (Due("TIES"), *small(maker)), SPECTRUM | LEVEL)


def alignable(maker: Maker) -> Scenario:
    """Features of several widths, of one latent."""
    due = (Due("NOT_ALIGNED_BUT_ALIGNABLE"), *small(maker))
    return Scenario("clean", maker.dataset(maker.features()), due, SPECTRUM)


def scenarios() -> Iterator[tuple[Maker, Callable[[], Scenario]]]:
    """Yield makers, and what each should make."""
    sizes = {"a third": (300, 1500, 800), "a tenth": (800, 300, 1500), "2 %": (1500, 5000, 2500)}
    counter = 0

    def maker(kind: str, n: int, k: int) -> Maker:
        nonlocal counter
        counter += 1
        return Maker(kind, n, k, counter)

    for (share, way), (i, kind) in product(product(SHARES, WAYS), enumerate(KINDS)):
        one = maker(kind, sizes[share][i], 2 + counter % 4)
        yield one, lambda m=one, s=share, w=way: mispaired(m, s, w)
    for i, (share, way) in enumerate(product(SHARES, WAYS)):  # the same at other numbers of modalities
        one = maker(KINDS[i % 3], sizes[share][i % 3], 3 + counter % 4)
        yield one, lambda m=one, s=share, w=way: mispaired(m, s, w)
    plain = (
        (healthy, (120, 1500, 5000), (2, 3, 6)),
        (missing, (300, 800, 1500), (3, 4, 5)),
        (weak, (300, 800, 1500), (2, 3, 4)),
        (shuffled, (120, 800, 2500), (2, 4, 6)),
        (shifted_run, (300, 800, 2500), (2, 3, 5)),
        (template, (300, 800, 1500), (2, 3, 4)),
        (unrelated, (120, 800, 1500), (2, 3, 5)),
        (opposed, (300, 800, 1500), (2, 3, 4)),
        (rotated, (800, 800, 1500), (2, 3, 4)),
        (offset, (300, 800, 1500), (2, 3, 4)),
        (cone, (120, 800, 1500), (2, 3, 4)),
        (flat, (300, 800, 1500), (2, 3, 4)),
        (noisy, (300, 800, 1500), (3, 4, 6)),
        (late, (120, 800, 2500), (2, 3, 5)),
        (copies, (120, 800, 1500), (2, 3, 4)),
        (alignable, (300, 800, 1500), (2, 3, 4)),
        (lambda m: shuffled(m, wide=True), (300, 800, 1500), (2, 3, 4)),
        (lambda m: late(m, wide=True), (300, 800, 1500), (2, 3, 4)),
        (lambda m: unrelated(m, wide=True), (300, 800, 1500), (2, 3, 5)),
        (lambda m: mispaired(m, "a third", "in one run", wide=True), (300, 1500, 800), (2, 3, 4)),
        (lambda m: mispaired(m, "a tenth", "in one run", wide=True), (800, 1500, 2500), (2, 3, 4)),
    )
    for make, counts, modalities in plain:
        for kind, n, k in zip(KINDS, counts, modalities, strict=True):
            one = maker(kind, n, k)
            yield one, lambda m=one, f=make: f(m)
    one = maker("power law", 120, 3)
    yield one, lambda m=one: healthy(m)


def judge(scenario: Scenario) -> tuple[set[str], set[str], set[str], list[str]]:
    """Return the codes that were due, those that fired, those that should not have, and what else is wrong."""
    findings = diagnose(scenario.data).as_dict()["verdict"]["findings"]
    fired, wrong, due = {one["code"] for one in findings}, [], set()
    for one in scenario.due:
        due.add(one.code)
        said = [f for f in findings if f["code"] == one.code]
        if said and one.subject and one.subject not in {name for f in said for name in f["subject"]}:
            wrong.append(f"{one.code} of {said[0]['subject']}, not {one.subject}")
        elif said and (one.rate is not None or one.rows is not None):
            own = next((f for f in said if one.subject in f["subject"]), said[0])
            wrong += quantities(one, own)
    return due, fired, fired - due - scenario.may, wrong


def quantities(due: Due, said: dict[str, Any]) -> list[str]:
    """Return what is wrong with rate and rows of a finding: rates within a half of the truth, ends within 5 %."""
    wrong = []
    rate, rows = said.get("rate"), said.get("rows")
    if due.rows is not None:
        length = due.rows[1] - due.rows[0]
        if rows is None or max(abs(a - b) for a, b in zip(due.rows, rows, strict=True)) > max(10, 0.05 * length):
            wrong.append(f"rows {rows}, not {due.rows}")
    elif due.rate is not None and (rate is None or not due.rate / 1.5 <= rate <= due.rate * 1.5):
        wrong.append(f"rate {rate}, not {due.rate:.3f}")
    return wrong


def main() -> None:
    """Print the confusion matrix and the failures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="scenarios whose name has this in it")
    parser.add_argument("--first", type=int, default=10**6, help="as many scenarios")
    arguments = parser.parse_args()
    counts: dict[str, list[int]] = {}
    odd, asked, begun = [], 0, time.process_time()
    for maker, make in list(scenarios())[: arguments.first]:
        scenario = make()
        widths = "one width" if len(set(scenario.data.dims)) == 1 else "several widths"
        name = f"{scenario.name} ({maker.kind}, n {maker.n:,}, k {maker.k}, {widths})"
        if arguments.only not in name:
            continue
        asked += 1
        due, fired, extra, wrong = judge(scenario)
        for code in due | fired:
            row = counts.setdefault(code, [0, 0, 0])
            row[0] += code in due
            row[1] += code in due & fired
            row[2] += code in extra
        if due - fired or extra or wrong:
            missed = [f"missed {', '.join(sorted(due - fired))}"] if due - fired else []
            more = [f"said {', '.join(sorted(extra))}"] if extra else []
            instead = [f"({', '.join(sorted(fired))})"] if due - fired else []
            odd.append(f"{name}: {'; '.join([*missed, *instead, *more, *wrong])}")
    spent = time.process_time() - begun
    print(f"{asked} scenarios, {asked - len(odd)} judged as they should be, {spent:.0f} s of CPU\n")

    print("| code | due | said | missed | said without being due |\n|---|---|---|---|---|")
    for code, (due_of, right, more_of) in sorted(counts.items()):
        print(f"| `{code}` | {due_of} | {right} | {due_of - right} | {more_of} |")
    print()
    for line in odd:
        print(f"* {line}")


if __name__ == "__main__":
    main()
