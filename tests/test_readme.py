"""The README tells the truth: its session and example run, its tables are complete.

``python -m tests.test_readme`` writes the output of the session into the README.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from pmrl_cli.cli.main import command_line
from pmrl_cli.errors import PmrlError
from pmrl_cli.methods import REGISTRY
from pmrl_cli.terms import REGISTRY as TERMS
from tests import typed
from tests.sample_data import put_features

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
TEXT = README.read_text(encoding="utf-8")

PLACEHOLDER = "<!-- output -->"
SESSION = re.compile(r"(?<=<!-- session -->\n```console\n).*?(?=```)", re.DOTALL)
EXAMPLE = re.compile(r"(?<=<!-- example -->\n```python\n).*?(?=```)", re.DOTALL)

TOLERANCE = 0.1
SMALL = 0.02
"""Difference a printed decimal may have on another machine, whose rounding takes training elsewhere: relative, or
absolute for shares near zero; a unit of its last place is always allowed. Whole numbers are exact."""

BAR = re.compile("[░█·]+")
"""As long as the number beside it."""

NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?(?:e-\d+)?")


def parse(session: str) -> list[tuple[str, list[str]]]:
    """Return each command with the lines under it."""
    steps: list[tuple[str, list[str]]] = []
    for line in session.splitlines():
        if line.startswith("$ "):
            steps.append((line.removeprefix("$ "), []))
        else:
            steps[-1][1].append(line)
    return steps


def environment(folder: Path) -> dict[str, str]:
    """Put the sample data into a folder, and this checkout's ``pmrl`` on its path."""
    shutil.copytree(ROOT / "sample_data", folder / "sample_data")
    (folder / "bin").mkdir()
    typed.put_command(folder / "bin")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PMRL_", "COLUMNS"))}
    return {
        **kept,
        "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "LC_ALL": "C.UTF-8",
    }


def run_session(commands: list[str], folder: Path) -> list[list[str]]:
    """Run commands in one shell and return the lines each writes to standard output."""
    mark = "--- next command ---"
    script = "\n".join(f"echo '{mark}'\n{command}" for command in commands)
    ran = subprocess.run(
        ["sh", "-eu", "-c", script], cwd=folder, env=environment(folder), capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    return [part.splitlines() for part in ran.stdout.split(f"{mark}\n")[1:]]


def agree(expected: str, found: str) -> bool:
    """Whether two lines have the same words and, within tolerance, the same numbers."""

    def words(line: str) -> list[str]:
        return NUMBER.sub("#", BAR.sub("bar", line)).split()

    def close(a: str, b: str) -> bool:
        if "." not in a + b and "e" not in a + b:
            return a == b
        places = len(a.partition(".")[2])
        x, y = (float(number.replace(",", "")) for number in (a, b))
        return abs(x - y) <= max(TOLERANCE * abs(x), SMALL, 1.001 * 10**-places)

    numbers = NUMBER.findall(expected), NUMBER.findall(found)
    return (
        words(expected) == words(found)
        and len(numbers[0]) == len(numbers[1])
        and all(close(a, b) for a, b in zip(*numbers, strict=True))
    )


@pytest.mark.parametrize(
    ("expected", "found", "same"),
    [
        ("R@1 0.412  MRR 0.531", "R@1  0.413 MRR 0.531", True),
        ("R@1 0.412", "R@1 0.512", False),
        ("1,797 instances", "1,797 instances", True),
        ("1,797 instances", "1,798 instances", False),
        ("MRR 0.001", "MRR 0.002", True),
        ("MRR 0.001", "MRR 0.041", False),
        ("ALIGNED 0.9", "COLLAPSE 0.9", False),
        ("left 0.9 right", "left right", False),
    ],
)
def test_lines_agree_up_to_float_noise_only(expected, found, same):
    assert agree(expected, found) is same


def test_the_session_prints_what_the_readme_shows(tmp_path):
    steps = parse(SESSION.search(TEXT)[0])
    printed = run_session([command for command, _ in steps], tmp_path)
    if PLACEHOLDER in TEXT:
        pytest.skip("the session's output is not written yet: run this file as a script")
    for (command, expected), found in zip(steps, printed, strict=True):
        assert len(found) == len(expected), f"$ {command}\n" + "\n".join(found)
        for line, other in zip(expected, found, strict=True):
            assert agree(line, other), f"$ {command}\n{line}\n{other}"


def test_the_python_example_runs(tmp_path):
    put_features(tmp_path / "sample_data" / "features", 150)
    (tmp_path / "example.py").write_text(EXAMPLE.search(TEXT)[0], encoding="utf-8")
    done = typed.pmrl(program=tmp_path / "example.py", cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def table(heading: str) -> dict[str, str]:
    """First table under a heading: the first cell of each row, without backquotes, and the row."""
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    return {row.split("|")[1].strip().replace("`", ""): row for row in rows}


def test_every_command_is_in_the_readme():
    listed = [first.split()[1] for first in table("Commands")]
    assert listed == list(command_line.commands)


def test_every_objective_and_term_is_in_the_readme():
    listed = [first.split()[0] for first in table("Objectives")]
    assert listed == [*REGISTRY, "--term", *TERMS]


def test_every_error_s_exit_code_is_in_the_readme():
    assert {str(error.exit_code) for error in PmrlError.__subclasses__()} <= set(table("Exit codes"))


def write_session() -> None:
    """Put the session's present output into the README."""
    steps = parse(SESSION.search(TEXT)[0])
    with tempfile.TemporaryDirectory() as folder:
        printed = run_session([command for command, _ in steps], Path(folder))
    lines = [line for (command, _), found in zip(steps, printed, strict=True) for line in (f"$ {command}", *found)]
    README.write_text(SESSION.sub(lambda _: "\n".join(lines) + "\n", TEXT), encoding="utf-8")


if __name__ == "__main__":
    write_session()
