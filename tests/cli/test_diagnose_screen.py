"""The one screen: it fits, it marks without colour, and nothing stands on it without its chance."""

import copy

import pytest

from pmrl_cli.cli.diagnose_screen import LINES, lines
from pmrl_cli.cli.table import Column, table
from tests.report.sample import sample

NAMES = ("text", "video", "audio", "a modality of a name that is far too long for any screen")


def with_comparison(result):
    delta = {
        name: {"value": 0.03, "p": 1e-4, "ci": [0.02, 0.04], "before": 0.4, "after": 0.43, "test": "sign_flip"}
        for name in ("A", "R@1_standard", "MRR", "AUC", "fused.MRR")
    }
    return {**result, "compare": {"baseline": "old.json", "standard_gallery": 1000, "delta": delta}}


def before_alignment(result):
    return {
        **result,
        "inputs": {**result["inputs"], "stage": "pre"},
        "alignment": None,
        "retrieval": None,
        "remedies": [],
    }


@pytest.mark.parametrize("width", [80, 50, 40])
@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("change", [copy.copy, with_comparison, before_alignment], ids=lambda one: one.__name__)
def test_the_screen_fits(k, width, change):
    shown = lines(change(sample(NAMES[-k:])), width)
    assert max(map(len, shown)) <= width
    if width == 80:
        assert len(shown) <= LINES


def cells(shown, start):
    return next(line for line in shown if line.startswith(start)).split()


def test_every_table_of_numbers_has_its_chance():
    shown = lines(sample(), 80)
    assert cells(shown, "adjusted alignment A")[3:8] == ["0.410", "0.000", "0.390", "..", "0.430"]
    assert cells(shown, "R@1 in 1,000")[3:5] == ["0.400", "0.001"]
    chances = [line.split()[1:] for line in shown if line.startswith("  chance")]
    assert chances == [["0", "0", "0", "0.001", "0.001"], ["0.500", "all", "0.950", "0", "0.333", "0"]]


def test_a_narrow_screen_keeps_value_chance_and_interval():
    shown = lines(sample(), 50)
    assert cells(shown, "adjusted alignment A")[3:] == ["0.410", "0.000", "0.390", "..", "0.430"]


def test_what_a_finding_is_about_is_marked_without_colour():
    result = sample()
    result["verdict"]["findings"].append(
        {"code": "X", "severity": "fail", "subject": ["text|video"], "evidence": [], "text": "t", "advice": "a"}
    )
    marked = [line.split()[:2] for line in lines(result, 80) if line.startswith(("! ", "x "))]
    assert marked == [["x", "text|video"], ["!", "audio"]]


def test_a_comparison_stands_beside_the_numbers_it_is_about():
    shown = lines(with_comparison(sample()), 80)
    assert cells(shown, "adjusted alignment A")[-2:] == ["+0.030", "1e-04"]
    assert cells(shown, "sigma_1^2")[-1] == "0.640"
    assert "change: against old.json, paired; intervals in --json" in shown


def test_gains_whose_interval_holds_zero_are_no_advice():
    shown = "\n".join(lines(sample(), 80))
    assert "centre each modality" in shown
    assert "leave out audio" not in shown
    assert "fit without the suspects" not in shown


def test_more_findings_than_room_are_counted_and_named():
    result = sample(NAMES)
    one = result["verdict"]["findings"][0]
    result["verdict"]["findings"] = [one, *({**one, "code": f"CODE_{i}", "text": "word " * 40} for i in range(4))]
    shown = lines(result, 80)
    assert len(shown) <= LINES
    assert "and 4 more (--json): CODE_0, CODE_1, CODE_2, CODE_3" in shown
    assert any("GAIN" in line for line in shown)  # what helps most has its place all the same


def test_the_weakest_pairs_of_many_are_shown():
    result = sample(tuple("abcdef"))
    shown = lines(result, 80)
    adjusted = {name: pair["cosine_adjusted"]["value"] for name, pair in result["pair"].items()}
    weakest = sorted(adjusted, key=adjusted.get)[:6]
    assert [line.split()[0] for line in shown if "|" in line.split(" ")[-1] or line.strip()[:3] in adjusted] == [
        name for name in adjusted if name in weakest
    ]
    assert any(line.startswith("weakest 6 of 15 pairs") for line in shown)


def test_before_alignment_the_question_is_whether_it_could_be():
    shown = lines(before_alignment(sample()), 80)
    assert shown[1].endswith("before alignment") or "before alignment" in shown[0]
    heading = next(line for line in shown if line.startswith("pair "))
    assert heading.split()[1:5] == ["probe", "R@1", "shared", "dims"]
    assert cells(shown, "  chance")[1] == "0.005"


def test_a_table_gives_up_columns_by_rank_and_then_cuts_names():
    columns = [
        Column("name", ["a very long name", "b"]),
        Column("kept", ["1", "2"]),
        Column("second", ["1", "2"], 1),
        Column("first", ["1", "2"], 2),
    ]
    assert table(columns, width=40, first=8)[0].split() == ["name", "kept", "second", "first"]
    assert table(columns, width=24, first=8)[:2] == ["name         kept second", "a very long~    1      1"]
    narrow = table(columns, width=16, first=8)
    assert narrow == ["name        kept", "a very lon~    1", "b              2"]
    assert max(map(len, table(columns, width=13, first=8))) == 13
