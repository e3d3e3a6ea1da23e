"""What ``pmrl diagnose`` and ``pmrl merge`` do with a diagnosis besides printing it: compare it, draw it."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pmrl_cli import __version__
from pmrl_cli.cli.options import option, switch
from pmrl_cli.errors import UsageError
from pmrl_cli.flags import flag

__all__ = ["Compare", "Drawn", "Full", "add_comparison", "check", "write"]

_LONGEST = 2_000  # characters of a command, whose files may be thousands

_FIGURES = "pmrl.figures"


@dataclass(frozen=True)
class Drawn:
    """The page and the figures of a diagnosis."""

    PANEL: ClassVar = "Page and figures"

    report: Path | None = flag(
        None, "--report", metavar="HTML", help="Write a page with figures there (needs the extra 'report')."
    )
    figures: Path | None = flag(
        None, "--figures", metavar="DIR", help="Write the figures of the page as files there (the same extra)."
    )
    formats: str = flag("svg", "--format", metavar="LIST", help="Formats of --figures: any of svg,pdf,png.")


Compare = Annotated[
    Path | None,
    option("--compare", metavar="JSON", help="Test against an earlier --json of the same instances, pair by pair."),
]
Full = Annotated[bool, switch("--full", help="Show every finding, pair, modality and limit, not only what matters.")]


def check(drawn: Drawn, compare: Path | None, *, force: bool) -> Mapping[str, Any] | None:
    """Refuse what cannot be done before anything is read, and return the diagnosis to compare with."""
    if drawn.report is not None or drawn.figures is not None:
        from pmrl_cli.report import check_installed

        check_installed()
    if drawn.report is not None:
        from pmrl_cli.files.artifacts.diagnoses import PAGE_MARKER
        from pmrl_cli.files.durable.outputs import check_file

        check_file(drawn.report, PAGE_MARKER, force=force)
    if drawn.figures is not None:
        from pmrl_cli.files.durable.outputs import check_replaceable

        check_replaceable(drawn.figures, kind=_FIGURES, force=force)
        _formats(drawn)
    if compare is None:
        return None
    from pmrl_cli.files.artifacts.diagnoses import read_diagnosis

    return read_diagnosis(compare)


def _formats(drawn: Drawn) -> list[str]:
    from pmrl_cli.report import FIGURE_FORMATS

    formats = list(dict.fromkeys(drawn.formats.split(",")))
    unknown = [one for one in formats if one not in FIGURE_FORMATS]
    if unknown:
        raise UsageError(
            what="unknown format of figures",
            found=f"--format {drawn.formats}",
            expected=f"some of {', '.join(FIGURE_FORMATS)}",
            next_step="Type for example: --format svg,pdf.",
        )
    return formats


def add_comparison(result: dict[str, Any], baseline: Mapping[str, Any] | None, compare: Path | None) -> None:
    """Set ``compare`` of a diagnosis, if there is anything to compare with."""
    if baseline is not None:
        from pmrl_cli.diagnosis.compare import compare as difference

        result["compare"] = difference(result, baseline, name=str(compare), seed=result["config"]["seed"])


def write(result: Mapping[str, Any], drawn: Drawn, *, force: bool) -> None:
    """Write the page and the figures of a diagnosis, or of a training, where they are asked for."""
    if drawn.report is not None:
        from pmrl_cli.diagnosis import notes
        from pmrl_cli.files.artifacts.diagnoses import write_page
        from pmrl_cli.report import render

        write_page(drawn.report, render(result, notes(), _origin()))
    if drawn.figures is not None:
        from pmrl_cli.files.durable.atomic import atomic_folder, to_json
        from pmrl_cli.files.durable.outputs import MANIFEST
        from pmrl_cli.report import write_figures

        with atomic_folder(drawn.figures, kind=_FIGURES, force=force) as folder:
            files = [path.name for path in write_figures(result, folder, _formats(drawn))]
            (folder / MANIFEST).write_text(to_json({"format": _FIGURES, "files": files}), encoding="utf-8")


def _origin() -> list[tuple[str, str]]:
    """Return when, by which version and with which command a page is made."""
    command = shlex.join(["pmrl", *sys.argv[1:]])
    return [
        ("made", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())),
        ("version", f"pmrl {__version__}"),
        ("command", command if len(command) <= _LONGEST else f"{command[:_LONGEST]} ..."),
    ]
