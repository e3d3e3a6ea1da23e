"""How large the package is to read: modules, functions, parameters, and what one task makes a reader open.

    python benchmarks/house.py [FOLDER ...]

A FOLDER is a checkout (default: this one), so that two states of the project can be put side by side. Functions are
counted by syntax, nested ones too; a function is as long as from its ``def`` to its last line. Code lines are those
that are neither blank, comment nor docstring. What a task makes a reader open are the modules of the package that its
entry imports, directly or through others, wherever in a module the import stands; imports for type checkers and those
of a package's own ``__init__`` on the way to a module in it are not followed.
"""

from __future__ import annotations

import argparse
import ast
import io
import tokenize
from collections.abc import Iterator
from pathlib import Path
from statistics import median

PACKAGE = "pmrl_cli"

TASKS = {
    "pmrl fit": ("cli/fit.py",),
    "pmrl export": ("cli/export.py",),
    "pmrl diagnose": ("cli/diagnose.py",),
    "Aligner of arrays": ("aligner.py",),
    "read_dataset": ("files/reading.py", "files/join/dataset.py"),
}
"""Entry of each task: the first of these modules that there is."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


def parsed(folder: Path) -> dict[Path, ast.Module]:
    """Return the syntax of every Python file under a folder."""
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted(folder.rglob("*.py"))}


def functions(tree: ast.Module) -> Iterator[Function]:
    """Yield every function of a module, nested ones too."""
    return (node for node in ast.walk(tree) if isinstance(node, Function))


def length(function: Function) -> int:
    """Return the lines of a function."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def parameters(function: Function) -> int:
    """Return how many parameters a function takes, ``self`` and ``cls`` left out."""
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    packed = [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
    return len([a for a in [*named, *packed] if a.arg not in ("self", "cls")])


def is_command(function: Function, path: Path) -> bool:
    """Return whether a function is the signature of a command, whose parameters are its options."""
    return path.parent.name == "cli" and function.name == "command"


def docstring_lines(tree: ast.Module) -> set[int]:
    """Return the numbers of the lines that docstrings take."""
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                found.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return found


def code_lines(path: Path, tree: ast.Module) -> int:
    """Return the lines of a module that hold code."""
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline)
    lines = {n for t in tokens if t.type not in skipped for n in range(t.start[0], t.end[0] + 1)}
    return len(lines - docstring_lines(tree))


def imported(tree: ast.Module) -> Iterator[str]:
    """Yield the dotted names that a module imports, those for type checkers only left out."""
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for child in block.body
        for node in ast.walk(child)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def module_of(root: Path, name: str) -> Path | None:
    """Return the file of the module that a dotted name is, or is in; None for one outside the package."""
    parts = name.split(".")
    if parts[0] != PACKAGE:
        return None
    for end in range(len(parts), 0, -1):
        path = root.joinpath(*parts[:end])
        if path.with_suffix(".py").is_file():
            return path.with_suffix(".py")
        if (path / "__init__.py").is_file():
            return path / "__init__.py"
    return None


def opened(root: Path, entry: Path, trees: dict[Path, ast.Module]) -> set[Path]:
    """Return the modules that an entry imports, directly or through others, itself included."""
    found, waiting = set[Path](), [entry]
    while waiting:
        path = waiting.pop()
        if path not in found:
            found.add(path)
            modules = (module_of(root, name) for name in imported(trees[path]))
            waiting += [module for module in modules if module is not None]
    return found


def figures(root: Path) -> dict[str, str]:
    """Return the figures of a checkout by name."""
    package = root / PACKAGE
    trees, tests = parsed(package), parsed(root / "tests")
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in [*trees, *tests]}
    every = [(path, function) for path, tree in trees.items() for function in functions(tree)]
    lengths = sorted(length(function) for _, function in every)
    many = [(path, f) for path, f in every if parameters(f) > 8]
    code = sum(code_lines(path, tree) for path, tree in trees.items())
    docs = sum(len(docstring_lines(tree)) for tree in trees.values())
    found = {
        "modules": f"{len(trees)}",
        "lines of the package (code)": f"{sum(lines[p] for p in trees):,} ({code:,})",
        "lines of the tests": f"{sum(lines[p] for p in tests):,}",
        "docstring lines per code line": f"{docs / code:.2f}",
        "functions": f"{len(every):,}",
        "their lines: median, p90, most": f"{median(lengths):g}, {lengths[int(0.9 * len(lengths))]}, {lengths[-1]}",
        "over 60 lines": f"{sum(n > 60 for n in lengths)}",
        "over 100 lines": f"{sum(n > 100 for n in lengths)}",
        "over 8 parameters": f"{len(many)}",
        "of these not commands": f"{sum(not is_command(f, path) for path, f in many)}",
        "modules over 400 lines": f"{sum(lines[p] > 400 for p in trees)}",
    }
    for task, entries in TASKS.items():
        entry = next((package / name for name in entries if (package / name).is_file()), None)
        if entry is not None:
            modules = opened(root, entry, trees)
            found[f"{task}: modules, lines"] = f"{len(modules)}, {sum(lines[p] for p in modules):,}"
    return found


def main() -> None:
    """Print the figures of each checkout side by side, as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="*", type=Path, default=[Path(__file__).parents[1]])
    folders = parser.parse_args().folders
    columns = [figures(folder) for folder in folders]
    names = list(dict.fromkeys(name for column in columns for name in column))
    print("| |", " | ".join(folder.resolve().name for folder in folders), "|")
    print("|---" * (1 + len(folders)) + "|")
    for name in names:
        print(f"| {name} |", " | ".join(column.get(name, "") for column in columns), "|")


if __name__ == "__main__":
    main()
