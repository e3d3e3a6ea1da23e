"""Which packages may import which."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.house import imported

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pmrl_cli"

EVERYWHERE = {"array_types", "errors", "flags"}

# Each package and those it may import. All may import ``EVERYWHERE``; ``cli`` may import every one.
ARROWS = {
    "array_types": set(),
    "errors": set(),
    "flags": set(),
    "adamw": set(),
    "eigen": set(),
    "spectrum": {"eigen"},
    "fusion": {"spectrum"},
    "batch": set(),
    "encoders": {"batch"},
    "terms": {"adamw", "batch", "encoders", "information", "spectrum"},
    "methods": {"batch", "encoders", "terms"},
    "model": {"batch", "encoders", "closed_form", "data", "files", "fusion", "process_group"},
    "process_group": {"batch"},
    "data": set(),
    "files": {"data"},
    "retrieval": {"spectrum", "fusion", "data", "process_group"},
    "closed_form": {"data", "files", "process_group"},
    "stats": {"spectrum", "retrieval"},
    "diagnosis": {"spectrum", "closed_form", "data", "information", "report", "retrieval", "stats", "process_group"},
    "train": {
        "adamw",
        "batch",
        "methods",
        "terms",
        "encoders",
        "closed_form",
        "data",
        "spectrum",
        "files",
        "retrieval",
        "stats",
        "process_group",
    },
    "information": {"adamw"},
    "comparison": {"data", "train"},
    "codes": {"data"},
    "report": set(),
    "fit": {
        "train",
        "batch",
        "fusion",
        "methods",
        "encoders",
        "model",
        "closed_form",
        "data",
        "files",
        "retrieval",
        "stats",
        "process_group",
    },
    "python_words": set(),
    "estimator": {"python_words", "train"},
    "aligner": {
        "train",
        "data",
        "fit",
        "model",
        "diagnosis",
        "retrieval",
        "process_group",
        "estimator",
        "python_words",
    },
}

# The floors of ``files``, lowest first: a module imports only its own folder and those below.
FLOORS = ("durable", "formats", "join", "artifacts")

# Libraries that only some packages may touch. In ``cli`` they stay inside functions: see the last test.
OWNERS = {
    "h5py": {"files"},
    "pyarrow": {"files", "data", "cli"},
    "torch": {
        "codes",
        "comparison",
        "information",
        "adamw",
        "eigen",
        "spectrum",
        "fusion",
        "batch",
        "encoders",
        "terms",
        "methods",
        "model",
        "process_group",
        "closed_form",
        "fit",
        "train",
        "retrieval",
        "stats",
        "diagnosis",
        "cli",
    },
    "typer": {"cli"},
    "rich": {"cli"},
    "matplotlib": {"report"},
    "jinja2": {"report"},
}

# The only module of files that imports torch: safetensors of model weights.
TENSORS = PACKAGE / "files" / "artifacts" / "tensors.py"


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or not path.stem.startswith("__"))


def package_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> Iterator[str]:
    return imported(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_packages_import_only_along_the_arrows(path):
    package = package_of(path)
    for name in imports(path):
        top, _, rest = name.partition(".")
        imported = rest.split(".")[0]
        if top == "pmrl_cli" and imported not in {package, *EVERYWHERE, "__version__"}:
            assert imported != "cli", f"{package} imports cli"
            assert package == "cli" or imported in ARROWS[package], f"{package} imports {imported}"
        if top in OWNERS and not (top == "torch" and path == TENSORS):
            assert package in OWNERS[top], f"{package} imports {top}"


@pytest.mark.parametrize("path", sorted((PACKAGE / "files").rglob("*/*.py")), ids=lambda path: path.stem)
def test_the_folders_of_files_import_only_those_below(path):
    floor = FLOORS.index(path.relative_to(PACKAGE / "files").parts[0])
    for name in imports(path):
        if name.startswith("pmrl_cli.files."):
            assert FLOORS.index(name.split(".")[2]) <= floor, f"{FLOORS[floor]} imports {name}"


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_command_line_ends_the_process(path):
    if package_of(path) == "cli":
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute | ast.Name)}
    assert not names & {"sys.exit", "os._exit", "SystemExit", "exit", "quit", "sys.stdout", "sys.stderr"}


def test_the_command_line_starts_without_the_heavy_libraries():
    heavy = {"numpy", "torch", "pyarrow", "h5py", "rich", "matplotlib", "jinja2"}
    code = "import sys; from pmrl_cli.cli.main import command_line; dict(command_line.commands); print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not heavy & set(ran.stdout.split())


def test_importing_aligner_loads_no_diagnosis_report_or_command_line():
    code = "import sys; from pmrl_cli import Aligner; print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    packages = {name.split(".")[1] for name in ran.stdout.split() if name.startswith("pmrl_cli.")}
    assert not packages & {"diagnosis", "report", "cli"}
