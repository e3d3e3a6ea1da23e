"""``pmrl compare``: kept runs, a paired test against the first objective, and one table in four forms."""

import csv
import json

import h5py
import numpy as np
import pytest
from typer.testing import CliRunner

from pmrl_cli import comparison
from pmrl_cli.cli.main import app
from pmrl_cli.comparison import compared, to_latex, to_markdown

FEW = ("--steps", "15", "--adapter", "linear", "--dropout", "0", "--dim", "4", "--test", "0.3", "--no-refit")


def run(objective, seed, units, ranks, mrr=0.5):
    return {
        "objective": objective,
        "seed": seed,
        "MRR": mrr,
        "R@1": 0.25,
        "seconds": 2.0,
        "trained": 3,
        "units": units,
        "reciprocal_ranks": ranks,
    }


def test_the_difference_is_paired_by_unit_over_seeds():
    rng = np.random.default_rng(0)
    units = [f"i{i}" for i in range(60)]
    hard = rng.random(60)
    runs = []
    for seed in range(3):
        some = sorted(rng.permutation(60)[:40])
        for objective, gain in (("a", 0.0), ("b", 0.05), ("c", 0.0)):
            noise = 0.0 if objective == "a" else 0.02 * rng.normal(size=40)
            runs.append(
                run(objective, seed, [units[i] for i in some], (hard[some] + gain + noise).tolist(), 0.1 * seed)
            )
    first, better, same = compared(runs, ["a", "b", "c"])
    assert first["difference"] is None
    assert first["MRR"] == {"mean": pytest.approx(0.1), "sd": pytest.approx(0.1)}
    assert first["trained"] == 9
    of_units = {}
    for one, other in zip(runs[0::3], runs[1::3], strict=True):
        for unit, x, y in zip(one["units"], one["reciprocal_ranks"], other["reciprocal_ranks"], strict=True):
            of_units.setdefault(unit, []).append(y - x)
    expected = np.mean([np.mean(values) for values in of_units.values()])
    assert better["difference"]["mean"] == pytest.approx(expected)
    assert better["difference"]["units"] == len(of_units)
    assert better["difference"]["ci"][0] > 0.03
    assert better["difference"]["p"] < 0.001
    assert same["difference"]["p"] > 0.01
    assert "0.100 ± 0.100" in to_markdown([first, better, same])
    assert r"$\pm$" in to_latex([first, better, same])


def test_instances_of_one_group_are_one_unit():
    runs = [run("a", 0, ["g", "g", "h"], [0.1, 0.3, 0.5]), run("b", 0, ["g", "g", "h"], [0.5, 0.3, 0.6])]
    assert compared(runs, ["a", "b"])[1]["difference"]["mean"] == pytest.approx((0.2 + 0.1) / 2)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(160, 5))
    for name in ("audio", "text"):
        with h5py.File(folder / f"{name}.h5", "w") as file:
            file["embedding"] = (latent @ rng.normal(size=(5, 9)) + 0.3 * rng.normal(size=(160, 9))).astype("f4")
            file["id"] = [f"i{i}" for i in range(160)]
    return [str(folder / f"{name}.h5") for name in ("audio", "text")]


def test_it_writes_one_table_and_makes_no_run_twice(files, tmp_path, monkeypatch):
    out = tmp_path / "compared"
    command = ["compare", *files, "--objective", "pmrl,gcca", "--seeds", "2", "-o", str(out), *FEW]
    first = CliRunner().invoke(app, [*command, "--json"])
    assert first.exit_code == 0, first.exception
    rows = json.loads(first.stdout)["objectives"]
    assert [row["objective"] for row in rows] == ["pmrl", "gcca"]
    assert [row["trained"] for row in rows] == [2, 0]
    assert sorted(path.name for path in (out / "runs").iterdir()) == [
        f"{name}-{seed}.json" for name in ("gcca", "pmrl") for seed in (0, 1)
    ]
    table = list(csv.DictReader((out / "table.csv").read_text().splitlines()))
    assert float(table[1]["difference"]) == pytest.approx(rows[1]["difference"]["mean"])

    made = []
    monkeypatch.setattr(comparison, "run_of", lambda aligner, _: made.append(aligner.settings.seed) or 1 / 0)
    again = CliRunner().invoke(app, command)
    assert again.exit_code == 0, again.exception
    assert again.stdout == (out / "table.md").read_text()
    assert made == []
    (out / "runs" / "pmrl-1.json").write_text("{")
    CliRunner().invoke(app, command)
    assert made == [1]


@pytest.mark.parametrize(
    ("objective", "sentence"),
    [("pmrl", "nothing to compare"), ("pmrl,pmrl", "nothing to compare"), ("pmrl,nope", "unknown objective")],
)
def test_what_cannot_be_compared_is_refused_before_anything_is_read(objective, sentence, tmp_path):
    (tmp_path / "no.h5").touch()
    command = ["compare", str(tmp_path / "no.h5"), "--objective", objective, "-o", str(tmp_path / "out")]
    result = CliRunner().invoke(app, command)
    assert sentence in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_something_else_is_refused(files, tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    result = CliRunner().invoke(app, ["compare", *files, "-o", str(tmp_path)])
    assert "output is not of compare" in str(result.exception)
