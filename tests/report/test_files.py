"""Figures that stand alone: complete, in their own colours, the same twice."""

import re

import pytest

from pmrl_cli.report import FIGURE_FORMATS, render, write_figures
from pmrl_cli.report.svg import FAINT, PALETTE, SERIES
from tests.report.sample import sample


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("figures")
    write_figures(sample(), path, FIGURE_FORMATS)
    return path


def test_every_figure_of_the_page_is_there_in_every_format(folder):
    on_page = re.findall(r'aria-labelledby="([^"]+)-title', render(sample()))
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        f"{name}.{kind}" for name in on_page for kind in FIGURE_FORMATS
    )
    for kind, start in (("svg", b"<?xml"), ("pdf", b"%PDF"), ("png", b"\x89PNG")):
        assert all(path.read_bytes().startswith(start) for path in folder.glob(f"*.{kind}"))


def test_no_placeholder_is_left_of_the_colours_that_the_page_fills_in(folder):
    used = set()
    for path in folder.glob("*.svg"):
        colours = set(re.findall(r"#[0-9a-f]{6}\b", path.read_text(encoding="utf-8")))
        assert not colours & {FAINT, *SERIES}, path.name
        used |= colours
    assert set(PALETTE.values()) - {PALETTE["--s5"]} <= used


def test_the_same_diagnosis_gives_the_same_files(folder, tmp_path):
    for path in write_figures(sample(), tmp_path, ("svg", "pdf")):
        assert path.read_bytes() == (folder / path.name).read_bytes(), path.name
