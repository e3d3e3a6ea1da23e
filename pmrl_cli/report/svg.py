"""From a matplotlib figure to SVG that belongs to the page: its text, its colours, light and dark.

Figures are drawn in placeholder colours, which become ``currentColor`` and the page's CSS variables, so that one
drawing serves both colour schemes. Text stays text, in the page's font. Nothing in the result names a time, a
version or a place on the network; the same figure gives the same bytes.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis

__all__ = [
    "DASHES",
    "FAINT",
    "INK",
    "MARKERS",
    "PALETTE",
    "SERIES",
    "Picture",
    "beside",
    "drawing",
    "few_ticks",
    "key_above",
    "line_style",
    "logarithmic",
    "picture",
    "plain_axes",
    "short",
]

INK = "#010203"
FAINT = "#010204"
SERIES = ("#0a0b00", "#0a0b01", "#0a0b02", "#0a0b03", "#0a0b04", "#0a0b05")
"""Colours of modalities, pairs and curves, in order; beyond six they come round again."""
MARKERS = ("o", "s", "^", "D", "v", "P")
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (6, 1.5, 1.5, 1.5)), (0, (3, 3)), (0, (8, 2)))
"""Markers by which series differ where colours do not."""

PALETTE = {
    "--faint": "#6b7480",
    "--s0": "#2563c3",
    "--s1": "#b3541e",
    "--s2": "#14805e",
    "--s3": "#8a3fa0",
    "--s4": "#8a6d00",
    "--s5": "#b02a5b",
}
"""Colours on white, of the page and of figures that stand alone."""

_COLOURS = {INK: "currentColor", FAINT: "var(--faint)"} | {
    colour: f"var(--s{index})" for index, colour in enumerate(SERIES)
}

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # a modality may be called $x$
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "image.interpolation": "none",
}

_WIDTH = 4.8
"""Inches. Nothing of a figure is too small to be read on a telephone, where it is as wide as the screen."""

_KEY_CHARACTERS = 74  # in a line of that width, the look of the line counted as eight


@dataclass(frozen=True)
class Picture:
    """A figure of the page.

    Args:
        name: of its element, unique on the page.
        heading: what it shows, a few words.
        reading: how to read it.
        alternative: what it says, with its numbers, to those who do not see it.
        svg: the drawing, as an element of the page.
        figure: the drawing, to be written as a file.
    """

    name: str
    heading: str
    reading: str
    alternative: str
    svg: str
    figure: Figure


@contextmanager
def drawing() -> Iterator[None]:
    """Draw in the page's style, whatever the user's own configuration says."""
    logger = logging.getLogger("matplotlib")
    level = logger.level
    with mpl.rc_context(), warnings.catch_warnings():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        # The browser has fonts for what matplotlib cannot measure.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        logger.setLevel(logging.ERROR)  # it writes about its font cache
        try:
            yield
        finally:
            logger.setLevel(level)


def plain_axes(
    height: float, columns: int = 1, *, rows: int = 1, sharex: bool = False, sharey: bool = False
) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure of the page's width and its axes in reading order.

    Args:
        height: inches.
        columns: of axes.
        rows: of axes.
        sharex: one scale across.
        sharey: one scale down.
    """
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=sharex, sharey=sharey)
    return figure, list(axes.ravel())


def line_style(index: int) -> dict[str, Any]:
    """Return the look of the line of a series."""
    return {"color": SERIES[index % len(SERIES)], "linestyle": DASHES[index % len(DASHES)]}


def key_above(figure: Figure, axes: Axes) -> None:
    """Explain the lines of the axes above the figure, where nothing is drawn."""
    handles, labels = axes.get_legend_handles_labels()
    columns = max(1, min(4, _KEY_CHARACTERS // (max(map(len, labels), default=0) + 8)))
    figure.legend(handles, labels, loc="outside upper left", ncols=columns)


def beside(axes: Axes, text: str, point: tuple[float, float], *, left: bool = False) -> None:
    """Write a few characters to the right of a point, or to its left."""
    across, side = (-3, "right") if left else (3, "left")
    axes.annotate(
        text,
        point,
        xytext=(across, 0),
        textcoords="offset points",
        va="center",
        ha=side,
        fontsize=8,
        annotation_clip=False,
    )


def few_ticks(*axes: Axis) -> None:
    """Number an axis so sparsely that panels beside each other have room."""
    for one in axes:
        one.set_major_locator(MaxNLocator(3))


def logarithmic(*axes: Axis) -> None:
    """Label logarithmic axes in plain numbers."""
    for one in axes:
        one.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.6g}"))
        one.set_minor_formatter(NullFormatter())


def short(name: str, limit: int = 24) -> str:
    """Return a name cut to fit into a drawing; the tables of the page have it whole."""
    printable = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in name)
    return printable if len(printable) <= limit else f"{printable[: limit - 1]}…"


def picture(name: str, figure: Figure, *, heading: str, reading: str, alternative: str) -> Picture:
    """Render a figure.

    Args:
        name: unique on the page, a valid identifier.
        figure: drawn within ``drawing``.
        heading: see ``Picture``.
        reading: see ``Picture``.
        alternative: see ``Picture``.
    """
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", metadata=nothing)
    svg = _inline(buffer.getvalue(), name, heading, alternative)
    return Picture(name, heading, reading, alternative, svg, figure)


def _inline(text: str, name: str, heading: str, alternative: str) -> str:
    """Return matplotlib's SVG document as an element of the page."""
    opening, body = text[text.index("<svg") :].split(">", 1)
    view = re.search(r'viewBox="[^"]*"', opening)
    assert view is not None
    body = re.sub(r"\s*<(metadata|style)\b.*?</\1>", "", body, flags=re.DOTALL)
    body = re.sub(r"<[^>]*>", lambda tag: _tag(tag[0], name), body)  # never what stands between tags: names
    labels = f'<title id="{name}-title">{escape(heading)}</title><desc id="{name}-desc">{escape(alternative)}</desc>'
    return f'<svg role="img" aria-labelledby="{name}-title {name}-desc" {view[0]}>{labels}{body.strip()}'


def _tag(tag: str, name: str) -> str:
    tag = re.sub(r"\s+", " ", tag).replace("xlink:href=", "href=")
    # Ids of groups have no use; the others must differ from those of the next figure.
    tag = re.sub(r' id="[^"]*"', "", tag) if tag.startswith("<g") else tag.replace(' id="', f' id="{name}-')
    tag = tag.replace("url(#", f"url(#{name}-").replace('href="#', f'href="#{name}-')
    tag = re.sub(r"font-family: [^;\"]*(; )?", "", tag)
    return re.sub(r"#0[0-9a-f]{5}\b", lambda found: _COLOURS.get(found[0], found[0]), tag)
