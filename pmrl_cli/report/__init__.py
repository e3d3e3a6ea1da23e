"""A diagnosis as one self-contained page: from the JSON alone, with nothing loaded from anywhere.

Needs matplotlib and Jinja2, which the extra ``report`` brings; neither is imported before a page is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pmrl_cli.errors import UsageError

__all__ = ["FIGURE_FORMATS", "check_installed", "render", "write_figures"]

FIGURE_FORMATS = ("svg", "pdf", "png")


def check_installed() -> None:
    """Find out whether a page can be made, before the work that would be in it.

    Raises: UsageError that says what to install.
    """
    missing = [name for name in ("matplotlib", "jinja2") if find_spec(name) is None]
    if missing:
        raise UsageError(
            what="pages and figures need more than is installed",
            found=f"no {' and no '.join(missing)}",
            expected="the extra 'report'",
            next_step="Install it with: pip install 'pmrl-cli[report]'.",
        )


def render(
    result: Mapping[str, Any],
    notes: Sequence[tuple[str, str, str]] = (),
    origin: Sequence[tuple[str, str]] = (),
) -> str:
    """Return the page of a diagnosis, or of how a fit went: the same arguments give the same text.

    Args:
        result: JSON values as ``docs/diagnose.schema.json`` describes them (what is null or absent is not shown), or
            the ``pmrl.training/1`` object of ``pmrl_cli.train.history``.
        notes: name, formula and chance of the statistics.
        origin: what stands below the page: when it was made, by which version, with which command.
    """
    check_installed()
    from pmrl_cli.report.page import TRAINING, render_page, render_training_page

    if result["schema"] == TRAINING:
        return render_training_page(result, origin)
    return render_page(result, notes, origin)


def write_figures(result: Mapping[str, Any], folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write the figures of the page as files: see ``pmrl_cli.report.files.write_figures``."""
    check_installed()
    from pmrl_cli.report import files

    return files.write_figures(result, folder, formats)
