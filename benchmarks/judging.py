"""What is said of eight cases in which confident numbers used to mislead, by whatever pmrl stands on PYTHONPATH.

    PYTHONPATH=. python benchmarks/judging.py [--only J1,J6a]

Each case writes a few hundred rows, runs the command a user would, and prints one row of a table: the case, what is
right, and what was said. Run with PYTHONPATH at an older checkout for what was said before.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def pmrl(*arguments: str | Path) -> tuple[int, str, str]:
    """Run a command; return its exit code, standard output and standard error."""
    line = [sys.executable, "-m", "pmrl_cli", *map(str, arguments)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def as_json(*arguments: str | Path) -> dict[str, Any]:
    """Run a command that prints JSON."""
    code, out, err = pmrl(*arguments, "--json")
    if code:
        raise RuntimeError(err)
    found: dict[str, Any] = json.loads(out)
    return found


def save(folder: Path, ids: list[str] | None = None, **arrays: Array) -> list[Path]:
    """Write one file a modality; return them."""
    for name, array in arrays.items():
        names = [f"id{i}" for i in range(len(array))] if ids is None else ids
        np.savez(folder / f"{name}.npz", ids=np.array(names), features=array.astype(np.float32))
    return [folder / f"{name}.npz" for name in arrays]


def said(found: dict[str, Any]) -> str:
    """Return the codes of a diagnosis, with subject and rows where there are any."""
    words = []
    for one in found["verdict"]["findings"]:
        rows = one.get("rows")
        where = f" {'|'.join(one['subject'])}" if one["subject"] else ""
        words.append(one["code"] + where + (f" rows {rows[0] + 1} to {rows[1]}" if rows else ""))
    return ", ".join(words)


def aligned(n: int = 900, noise: float = 0.6) -> dict[str, Array]:
    """Return three modalities of one latent."""
    generator = np.random.default_rng(0)
    latent = generator.normal(size=(n, 32))
    return {name: latent + noise * generator.normal(size=(n, 32)) for name in "abc"}


def repeated_noise(folder: Path) -> str:
    """Independent vectors, each in three rows."""
    generator = np.random.default_rng(0)
    image, text = (np.repeat(generator.normal(size=(200, 32)), 3, axis=0) for _ in range(2))
    files = save(folder, image=image, text=text)
    code, _, err = pmrl("fit", *files, "-o", folder / "model", "--steps", "50", "--quiet")
    if code:
        return err.splitlines()[0]
    found = as_json("diagnose", *files, "--model", folder / "model")
    pairwise = found["retrieval"]["pairwise"]
    return f"{said(found)}; MRR {pairwise['MRR']['value']:.3f}, chance {pairwise['MRR']['chance']:.3f}"


def captions(folder: Path) -> str:
    """Images with three captions each, all found."""
    generator = np.random.default_rng(0)
    image = np.repeat(generator.normal(size=(200, 32)), 3, axis=0)
    found = as_json("evaluate", *save(folder, image=image, text=image + 0.01 * generator.normal(size=image.shape)))
    return f"R@1 {found['pairwise']['R@1']['value']:.3f}"


def repeated_ids(folder: Path) -> str:
    """An id that stands in several rows of one file."""
    ids = [f"id{i // 3}" for i in range(60)]
    arrays = aligned(60)
    files = [*save(folder, ids[::3], a=arrays["a"][:20]), *save(folder, ids, b=arrays["b"])]
    _, _, err = pmrl("inspect", *files)
    sentences = " ".join(err.split()).split(". ")
    named = [one for one in sentences if "--on-repeat" in one]
    return named[0] if named else "not named: " + sentences[-1]


def python_and_command(folder: Path) -> str:
    """The same model and files in Python and on the command line."""
    arrays = aligned(300, 2.0)
    files = save(folder, **arrays)
    pmrl("fit", *files, "-o", folder / "model", "--steps", "50", "--quiet")
    command = as_json("diagnose", *files, "--model", folder / "model")["alignment"]["A"]["value"]
    code = (
        "import sys, numpy as np; from pmrl_cli import Aligner; f = {n: np.load(p)['features'] for n, p in "
        "zip('abc', sys.argv[2:])}; ids = np.load(sys.argv[2])['ids'].tolist(); "
        "print(Aligner.load(sys.argv[1]).diagnose(f, ids).result['alignment']['A']['value'])"
    )
    line = [sys.executable, "-c", code, str(folder / "model"), *map(str, files)]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    python = done.stdout.strip() or done.stderr.strip().splitlines()[-1]
    return f"A {command:.4f} by the command, {float(python):.4f} in Python"


def third(folder: Path) -> str:
    """The last third of one of three modalities is shuffled."""
    arrays = aligned()
    arrays["c"][600:] = np.random.default_rng(1).permutation(arrays["c"][600:])
    return said(as_json("diagnose", *save(folder, **arrays)))


def shifted(folder: Path) -> str:
    """From row 361 on one modality is a row late."""
    arrays = aligned()
    arrays["b"][360:] = np.roll(arrays["b"][360:], 1, axis=0)
    return said(as_json("diagnose", *save(folder, **arrays)))


def template(folder: Path) -> str:
    """One vector in a fifth of the rows."""
    arrays = aligned()
    arrays["c"][::5] = arrays["c"][0]
    return said(as_json("diagnose", *save(folder, **arrays)))


def advice(folder: Path) -> str:
    """What the first finding advises of files that are not paired."""
    arrays = aligned(300)
    arrays = {name: np.random.default_rng(m).permutation(x) for m, (name, x) in enumerate(arrays.items())}
    (first, *_) = as_json("diagnose", *save(folder, **arrays))["verdict"]["findings"]
    command = first.get("command", "no command").replace(f"{folder}/", "")
    return f"{first['code']}: {first['advice']}: {command}"


def edited(folder: Path) -> str:
    """A diagnosis with one digit changed by hand, given to --compare."""
    files = save(folder, **aligned(300))
    _, out, _ = pmrl("diagnose", *files, "--json")
    value = repr(json.loads(out)["alignment"]["A"]["value"])
    (folder / "before.json").write_text(out.replace(value, value[:-1] + str((int(value[-1]) + 1) % 10)))
    code, _, err = pmrl("diagnose", *files, "--compare", folder / "before.json")
    return f"exit {code}" + (f": {err.splitlines()[0]}" if code else "")


CASES: dict[str, tuple[str, str, Callable[[Path], str]]] = {
    "J1": ("noise, every vector in three rows, after a fit", "not aligned: MRR at chance", repeated_noise),
    "J2": ("images with three captions each, all found", "R@1 1", captions),
    "J3": ("repeated ids", "the error names `--on-repeat`", repeated_ids),
    "J4": ("one model in Python and on the command line", "one number", python_and_command),
    "J6a": ("last third of c shuffled", "MISPAIRED_ROWS c, rows 601 to 900", third),
    "J6b": ("b a row late from row 361 on", "MISPAIRED_ROWS b, rows 361 to 900", shifted),
    "J6c": ("one vector in a fifth of c", "TEMPLATES c", template),
    "J7": ("advice where nothing is paired", "a command to copy", advice),
    "J9": ("a saved diagnosis with one digit changed", "refused", edited),
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(CASES))
    print("| case | right | said |\n|---|---|---|")
    for name in parser.parse_args().only.split(","):
        what, right, run = CASES[name]
        with tempfile.TemporaryDirectory() as folder:
            print(f"| {name}: {what} | {right} | {run(Path(folder))} |", flush=True)


if __name__ == "__main__":
    main()
