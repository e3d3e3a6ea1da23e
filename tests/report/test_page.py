"""The page of a diagnosis: whole, readable by everyone, harmless, the same twice."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pmrl_cli.errors import UsageError
from pmrl_cli.report import alignment as alignment_figures
from pmrl_cli.report import geometry, remedies, render
from tests.report.sample import sample

VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}
NAMES = ("<script>alert(1)</script>", "$x_1$ & 'b' \"c\"", "日本語 → ünï")


class Page(HTMLParser):
    """Elements, ids and texts of a page; fails where tags do not nest."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.text = [], [], []
        self.feed(text)
        self.close()
        assert self.open == []
        self.ids = [attributes["id"] for _, attributes in self.elements if "id" in attributes]

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def test_the_page_nests_has_unique_ids_and_is_under_a_megabyte(page):
    found = Page(page)
    ids = found.ids
    assert len(ids) == len(set(ids))
    referred = set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', page))
    assert {a or b for a, b in referred} <= set(ids)
    assert len(page.encode()) < 1_000_000


@pytest.fixture(scope="module")
def wide():
    """The page of sixteen modalities, some of names that a browser could obey, the others long."""
    long = (f"modality {i} " + "x" * 70 for i in range(16 - len(NAMES)))
    return render(sample((*NAMES, *long)))


def test_sixteen_modalities_of_long_names_stay_under_a_megabyte(wide):
    assert len(wide.encode()) < 1_000_000


def test_nothing_is_loaded_from_anywhere_and_nothing_runs(page):
    found = Page(page)
    assert "://" not in page
    assert not {tag for tag, _ in found.elements} & {"script", "link", "iframe", "object", "embed", "base", "img"}
    for _, attributes in found.elements:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("href", "src"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,"))
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_every_figure_has_a_title_and_a_description_with_numbers(page):
    drawings = re.findall(r"<svg.*?</svg>", page, re.DOTALL)
    assert len(drawings) == 13
    for drawing in drawings:
        assert 'role="img"' in drawing
        title, description = re.match(
            r'<svg role="img" aria-labelledby="(\S+) (\S+)" viewBox="[^"]*">'
            r'<title id="\1">[^<]+</title><desc id="\2">([^<]+)</desc>',
            drawing,
        ).group(1, 3)
        assert title
        assert re.search(r"\d", description)


def test_drawings_take_the_colours_and_the_font_of_the_page(page):
    for drawing in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        assert not re.search(r"#[0-9a-f]{6}\b|font-family", drawing)
        assert "currentColor" in drawing
    assert "prefers-color-scheme: dark" in page
    assert set(re.findall(r"var\((--[a-z0-9]+)", page)) <= set(re.findall(r"(--[a-z0-9]+):", page))


def test_series_differ_without_colour(page):
    lines = re.search(r'<section id="dimensions">.*?</section>', page, re.DOTALL)[0]
    dashes = re.findall(r'style="fill: none; (?:stroke-dasharray: ([^;]+);[^"]*)?stroke: var\(--s\d\)', lines)
    assert len(set(dashes)) >= 3


def test_names_are_shown_and_never_obeyed(wide):
    found = Page(wide)
    assert not [tag for tag, _ in found.elements if tag == "script"]
    words = " ".join(found.text)
    assert all(name in words for name in NAMES)


def test_the_same_diagnosis_gives_the_same_bytes_whatever_the_user_s_matplotlib_settings(page):
    import matplotlib as mpl

    written = json.loads(json.dumps(sample(), sort_keys=True))  # as --json writes it
    with mpl.rc_context({"font.size": 30, "axes.facecolor": "red", "svg.fonttype": "path"}):
        assert render(written) == page


def test_what_was_not_measured_is_left_out():
    bare = sample(("a", "b"))
    bare |= {
        "alignment": None,
        "retrieval": None,
        "suspects": None,
        "training": None,
        "remedies": [],
        "plot": {},
    }
    for pair in bare["pair"].values():
        pair.update(retrieval={}, gap={}, hubness={})
    for name in bare["modality"]:
        bare["modality"][name] = {
            key: {**bare["modality"][name][key], "value": None, "ci": None, "status": "n_too_small"}
            for key in ("loading", "mean_cosine", "participation_ratio")
        }
    drawn = re.findall(r'<section id="([^"]+)"', render(bare))
    assert drawn == ["why", "pairs", "probe", "notes"]
    assert re.findall(r'<li><a href="#([^"]+)"', render(bare)) == drawn


def section(page, name):
    return re.search(rf'<section id="{name}">.*?</section>', page, re.DOTALL)[0]


def test_the_verdict_is_shown_once_and_rules_without_findings_are_folded(page):
    body = page.partition("<body>")[2]
    assert body.count("audio deviates: adjusted cosine 0.21") == 1
    folded = re.search(r"<details><summary>2 checks found nothing</summary>.*?</details>", body, re.DOTALL)[0]
    assert body.count("NO_PAIRING") == folded.count("NO_PAIRING") == 1


def test_the_contents_name_every_section_by_its_heading(page):
    listed = re.findall(r'<li><a href="#([^"]+)">([^<]+)</a></li>', page)
    assert listed == re.findall(r'<section id="([^"]+)"[^>]*>\s*<h2>([^<]+)</h2>', page)


def test_remedies_of_which_none_helps_are_one_sentence(page, drawn):
    assert "remedies" in Page(page).ids
    drawn(remedies.remedy_gains)
    result = sample(("a", "b"))
    for one in result["remedies"]:
        one["delta"] = {**one["delta"], "value": -0.01, "ci": [-0.02, 0.0]}
    text = render(result)
    assert "remedies" not in Page(text).ids
    assert "None of what was tried on held-out halves gains anything beyond chance: refit" in section(text, "gains")


def test_suspects_are_listed_only_where_some_are_estimated(page, drawn):
    drawn(remedies.suspect_scores)
    assert "150 of 5,000 instances are rather mispaired than not" in section(page, "suspects")
    assert "clip-00000" in page
    result = sample()
    result["suspects"]["flagged"] = 0
    result["modality"]["audio"]["mispair_rate"] |= {"status": "upper_bound", "value": 0.0, "ci": [0.0, 0.236]}
    text = render(result)
    assert "up to 23.6% of audio" in section(text, "suspects")
    assert "clip-00000" not in text


def test_the_page_says_when_by_which_version_and_how_it_was_made(drawn):
    drawn()
    text = render(
        sample(("a", "b")), origin=[("made", "2026-01-02 03:04 UTC"), ("command", "pmrl diagnose 'a b.h5'")]
    )
    footer = re.search(r"<footer>.*</footer>", text, re.DOTALL)[0]
    assert "<b>model</b> model" in footer
    assert "2026-01-02 03:04 UTC" in footer
    assert "<code>pmrl diagnose &#39;a b.h5&#39;</code>" in footer


def test_means_close_to_each_other_are_not_written_over_each_other(drawn):
    drawn(alignment_figures.share_histogram)
    result = sample(("a", "b"))
    result["alignment"]["rho"] = {**result["alignment"]["rho"], "value": 0.37, "chance": 0.36}
    assert re.findall(r"text-anchor: (\w+)[^>]*>mean \d", render(result)) == ["start", "end"]


def test_the_projection_by_label_stands_where_there_are_labels(page, drawn):
    drawn(geometry.label_map)
    assert "scene 0 (29)" in section(page, "labels")
    result = sample(("a", "b"))
    result["plot"]["pca"]["labels"] = [None] * 200
    assert "labels" not in Page(render(result)).ids


def test_every_statistic_is_on_the_page(page):
    def paths(node, path=""):
        if isinstance(node, dict):
            if "status" in node and "value" in node:
                yield path
            else:
                for key, child in node.items():
                    yield from paths(child, f"{path}.{key}" if path else key)

    shown = set(re.findall(r'<th scope="row">([^<]*)</th>', page))
    assert {path.replace("->", "-&gt;") for path in paths(sample())} <= shown


def test_without_the_extra_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr("pmrl_cli.report.find_spec", lambda name: None if name == "matplotlib" else object())
    with pytest.raises(UsageError, match=r"no matplotlib, expected .* pip install 'pmrl-cli\[report\]'"):
        render(sample())


def test_the_template_is_in_the_package():
    folder = Path(sys.modules["pmrl_cli.report"].__file__).parent / "templates"
    assert {path.name for path in folder.iterdir()} == {
        "base.html",
        "figure.html",
        "page.css",
        "page.html",
        "training.html",
    }
