"""Everything whose speed is written down, each row beside its reference and its floor from the same run.

    python benchmarks/speed.py [--only NAME ...] [--quick] [--threads N] [--device cuda]

Times are medians of calls taken in turn in one process: its CPU seconds on one thread, wall seconds on more, those of
CUDA events on a GPU. The tables of docs/speed.md are written anew, those of the groups that ran, between their
markers; ``--quick`` (small sizes, a few seconds a row) and ``--device cuda`` only print. A floor is the least that
must be done, by the same library on the same machine: the matrix products alone, or one read and one write.
"""

from __future__ import annotations

import argparse
import os
import platform
import re
import sys
from collections.abc import Callable, Iterable
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

from rows import Call, Row, Run, cpu_seconds, table, wall_seconds

DOCS = Path(__file__).parents[1] / "docs" / "speed.md"

GROUPS = {
    "kernel": ("kernel", "kernel_rows"),
    "step": ("step", "step_rows"),
    "gathering": ("step", "gathering_rows"),
    "moments": ("moments", "moments_rows"),
    "ranks": ("retrieval", "rank_rows"),
    "diagnose": ("retrieval", "diagnose_rows"),
    "transfer": ("transfer", "transfer_rows"),
    "startup": ("startup", "startup_rows"),
    "processes": ("processes", "processes_rows"),
}
"""Name of each group, which is that of its table in the docs: the module and the function that give its rows."""

ON_CUDA = ("kernel", "step", "ranks")


def machine() -> str:
    """Return one line about where this runs."""
    fields = dict(
        line.split(":", 1) for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if ":" in line
    )
    model = next((value.strip() for name, value in fields.items() if name.strip() == "model name"), "unknown CPU")
    gigabytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    system = f"{platform.system()} {platform.release()}"
    return f"{len(os.sched_getaffinity(0))} cores of {model}, {gigabytes:.0f} GiB, {system}"


def versions() -> str:
    """Return the versions that matter."""
    found = [f"{name} {version(name)}" for name in ("torch", "numpy", "pyarrow", "h5py")]
    return ", ".join([f"Python {platform.python_version()}", *found])


def cuda_seconds(call: Call) -> float:
    """Return the seconds between CUDA events around a call."""
    import torch

    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


def written(text: str, name: str, content: str) -> str:
    """Return a page with the text between the markers of a table replaced.

    Raises: SystemExit if it has no such markers.
    """
    marked = re.compile(f"(<!-- table:{name} -->\n).*?(<!-- end:{name} -->)", re.DOTALL)
    if marked.search(text) is None:
        sys.exit(f"no table: {DOCS.name}: no <!-- table:{name} --> and <!-- end:{name} -->. Add them.")
    return marked.sub(lambda match: f"{match[1]}\n{content}\n\n{match[2]}", text)


def measure(rows: Iterable[Row]) -> list[Row]:
    """Return the rows, each printed as it comes."""
    found = []
    for row in rows:
        print(table([row]).splitlines()[-1], flush=True)
        found.append(row)
    return found


def main() -> None:
    """Measure, print, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=GROUPS, metavar="NAME", help=", ".join(GROUPS))
    parser.add_argument("--quick", action="store_true", help="small sizes, and nothing is written")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    # Read when the libraries are loaded, which happens with the first group.
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(options.threads)
    import_module("pmrl_cli.cli.main")  # which sets what is read then
    import_module("pmrl_cli.cli.compute").prepare(options.threads)
    timer: Callable[[Call], float] = cpu_seconds if options.threads == 1 else wall_seconds
    names = options.only or list(GROUPS)
    if options.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            print("no CUDA device: torch finds none, expected one for --device cuda.", file=sys.stderr)
            sys.exit(2)
        timer, names = cuda_seconds, [name for name in names if name in ON_CUDA]
    run = Run(options.quick, options.device, timer)
    command = " ".join(["python", "benchmarks/speed.py", *sys.argv[1:]])
    print(f"{machine()}\n{versions()}\n{command}")
    for name in names:
        module, function = GROUPS[name]
        print(f"\n{name}", flush=True)
        shown = table(measure(getattr(import_module(module), function)(run)))
        print(f"\n{shown}", flush=True)
        if not (options.quick or options.device == "cuda"):
            content = f"    {command}\n\n{machine()};\n{versions()};\nmedians, {_clock(options.threads)}.\n\n{shown}"
            DOCS.write_text(written(DOCS.read_text(encoding="utf-8"), name, content), encoding="utf-8")


def _clock(threads: int) -> str:
    return "CPU time on one thread" if threads == 1 else f"wall time on {threads} threads"


if __name__ == "__main__":
    main()
