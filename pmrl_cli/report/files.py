"""The figures of the page as files of their own, in the page's light colours on white."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.colors import to_rgba_array
from matplotlib.figure import Figure

from pmrl_cli.report.page import pictures_of
from pmrl_cli.report.shape import Result
from pmrl_cli.report.svg import FAINT, PALETTE, SERIES, drawing

__all__ = ["write_figures"]

_COLOURS = dict(zip((FAINT, *SERIES), PALETTE.values(), strict=True))
_PROPERTIES = ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor")
_DATES = {"svg": "Date", "pdf": "CreationDate"}  # left out: the same result gives the same bytes
_DOTS_PER_INCH = 200


def write_figures(result: Result, folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write every figure of a diagnosis, or of how a fit went, in each format.

    Args:
        result: see ``pmrl_cli.report.render``.
        folder: exists; files are named after the figures.
        formats: of svg, pdf, png.

    Returns: the files, in the order of the page.
    """
    written = []
    for one in pictures_of(result):
        _colour(one.figure)
        for kind in formats:
            path = folder / f"{one.name}.{kind}"
            metadata = {_DATES[kind]: None} if kind in _DATES else None
            with drawing(), mpl.rc_context({"svg.hashsalt": one.name}):
                one.figure.savefig(path, facecolor="white", dpi=_DOTS_PER_INCH, metadata=metadata)
            written.append(path)
    return written


def _colour(figure: Figure) -> None:
    """Replace the placeholders that the page's style sheet would fill in."""
    wanted = {tuple(to_rgba_array(place)[0, :3]): to_rgba_array(colour)[0, :3] for place, colour in _COLOURS.items()}
    for artist in figure.findobj():
        for name in _PROPERTIES:
            get, put = (getattr(artist, f"{verb}_{name}", None) for verb in ("get", "set"))
            if get is None or put is None:
                continue
            found = to_rgba_array(get())
            changed = found.copy()
            for row in changed:
                row[:3] = wanted.get(tuple(row[:3]), row[:3])
            if (changed != found).any():
                put(_one_or_all(changed))


def _one_or_all(colours: Any) -> Any:  # noqa: ANN401 - arrays of colours
    return colours[0] if len(colours) == 1 else colours
