"""What ``pmrl diagnose`` and ``pmrl merge`` do with a diagnosis besides printing it: compare it, make it a page."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pmrl_cli import __version__
from pmrl_cli.cli.options import option, switch

__all__ = ["Compare", "Full", "Report", "add_comparison", "check", "write"]

_LONGEST = 2_000  # characters of a command, whose files may be thousands

Report = Annotated[
    Path | None,
    option("--report", metavar="HTML", help="Write a page with figures there (needs the extra 'report')."),
]
Compare = Annotated[
    Path | None,
    option("--compare", metavar="JSON", help="Test against an earlier --json of the same instances, pair by pair."),
]
Full = Annotated[bool, switch("--full", help="Show every finding, pair, modality and limit, not only what matters.")]


def check(report: Path | None, compare: Path | None, *, force: bool) -> Mapping[str, Any] | None:
    """Refuse what cannot be done before anything is read, and return the diagnosis to compare with."""
    if report is not None:
        from pmrl_cli.files.artifacts.diagnoses import PAGE_MARKER
        from pmrl_cli.files.durable.outputs import check_file
        from pmrl_cli.report import check_installed

        check_installed()
        check_file(report, PAGE_MARKER, force=force)
    if compare is None:
        return None
    from pmrl_cli.files.artifacts.diagnoses import read_diagnosis

    return read_diagnosis(compare)


def add_comparison(result: dict[str, Any], baseline: Mapping[str, Any] | None, compare: Path | None) -> None:
    """Set ``compare`` of a diagnosis, if there is anything to compare with."""
    if baseline is not None:
        from pmrl_cli.diagnosis.compare import compare as difference

        result["compare"] = difference(result, baseline, name=str(compare), seed=result["config"]["seed"])


def write(result: Mapping[str, Any], report: Path | None) -> None:
    """Write the page of a diagnosis, or of a training, if one is asked for."""
    if report is not None:
        from pmrl_cli.diagnosis import notes
        from pmrl_cli.files.artifacts.diagnoses import write_page
        from pmrl_cli.report import render

        write_page(report, render(result, notes(), _origin()))


def _origin() -> list[tuple[str, str]]:
    """Return when, by which version and with which command a page is made."""
    command = shlex.join(["pmrl", *sys.argv[1:]])
    return [
        ("made", time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())),
        ("version", f"pmrl {__version__}"),
        ("command", command if len(command) <= _LONGEST else f"{command[:_LONGEST]} ..."),
    ]
