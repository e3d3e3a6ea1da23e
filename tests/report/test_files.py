"""Figures that stand alone: complete, in their own colours, the same twice."""

import re

import pytest

from pmrl_cli.report import FIGURE_FORMATS, alignment, geometry, write_figures
from pmrl_cli.report.svg import FAINT, PALETTE, SERIES
from tests.report.sample import sample


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("figures")
    write_figures(sample(), path, ("svg",))
    return path


def test_every_figure_of_the_page_is_there(folder, page):
    on_page = re.findall(r'aria-labelledby="([^"]+)-title', page)
    assert sorted(path.name for path in folder.iterdir()) == sorted(f"{name}.svg" for name in on_page)


def test_no_placeholder_is_left_of_the_colours_that_the_page_fills_in(folder):
    used = set()
    for path in folder.glob("*.svg"):
        colours = set(re.findall(r"#[0-9a-f]{6}\b", path.read_text(encoding="utf-8")))
        assert not colours & {FAINT, *SERIES}, path.name
        used |= colours
    assert set(PALETTE.values()) - {PALETTE["--s5"]} <= used


def test_figures_are_there_in_every_format_and_the_same_diagnosis_gives_the_same_files(folder, tmp_path, drawn):
    drawn(alignment.share_histogram, geometry.similarity)
    written = []
    for name in ("first", "again"):
        (tmp_path / name).mkdir()
        paths = write_figures(sample(), tmp_path / name, FIGURE_FORMATS)
        written.append({path.name: path.read_bytes() for path in paths})
    first, again = written
    starts = {"svg": b"<?xml", "pdf": b"%PDF", "png": b"\x89PNG"}
    assert {*first} == {f"{name}.{kind}" for name in ("shares", "similarities") for kind in FIGURE_FORMATS}
    for name, content in first.items():
        assert content.startswith(starts[name.partition(".")[2]])
        assert content == again[name]
        assert not name.endswith("svg") or content == (folder / name).read_bytes()
