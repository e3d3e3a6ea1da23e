"""The screen: verdict first, it fits, it marks without colour, and no number stands on it without its chance."""

import copy

import pytest

from pmrl_cli.cli.diagnose_screen import lines
from pmrl_cli.cli.table import Column, bar, table
from pmrl_cli.report.wording import mispair_text, number_text
from tests.report.sample import sample

NAMES = ("text", "video", "audio", "a modality of a name that is far too long for any screen")


def with_comparison(result):
    delta = {
        name: {"value": 0.03, "p": 1e-4, "ci": [0.02, 0.04], "before": 0.4, "after": 0.43, "test": "sign_flip"}
        for name in ("A", "R@1_standard", "R@1", "text->video", "MRR", "AUC", "fused.MRR")
    }
    sizes = {"text->video": {"gallery": 1200}, "video->audio": {"gallery": 900}}
    return {
        **result,
        "outcomes": {"directions": sizes},
        "compare": {"baseline": "old.json", "standard_gallery": 1000, "delta": delta},
    }


def before_alignment(result):
    return {
        **result,
        "inputs": {**result["inputs"], "stage": "pre"},
        "alignment": None,
        "retrieval": None,
        "remedies": [],
    }


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("width", [120, 80, 50, 40])
@pytest.mark.parametrize("k", [2, 3, 4])
@pytest.mark.parametrize("change", [copy.copy, with_comparison, before_alignment], ids=lambda one: one.__name__)
def test_the_screen_fits(k, width, change, full):
    shown = lines(change(sample(NAMES[-k:])), width, full=full)
    assert max(map(len, shown)) <= width
    if width >= 80 and not full:
        assert len(shown) <= 24  # a terminal's first size


def cells(shown, start):
    return next(line for line in shown if line.startswith(start)).removeprefix(start).split()


def test_the_verdict_comes_first_then_why_then_what_to_do():
    shown = lines(sample(), 80)
    assert shown[3].startswith("! ODD_ONE_OUT [warn]  audio deviates: adjusted cosine 0.21")
    do = next(place for place, line in enumerate(shown) if line.startswith("  do: check its files"))
    assert shown[do + 1] == "    pmrl fit FILES -o runs/aligned"
    assert do < next(place for place, line in enumerate(shown) if line.startswith("agreement above chance"))


def test_five_numbers_at_most_stand_beside_their_chance_and_a_bar():
    shown = lines(sample(), 80)
    assert cells(shown, "agreement above chance (A)")[:2] == ["0.410", "0.000"]
    assert cells(shown, "agreement above chance (A)")[3:] == ["0.390", "..", "0.430"]
    assert cells(shown, "partner ranked first of 1,000 (R@1)")[:2] == ["0.400", "0.001"]
    assert sum("·" in line and ".." in line for line in shown) == 5


def test_a_bar_marks_chance_and_what_is_beyond_it():
    assert bar(0.75, 0.5, 8, unicode=True) == "░░░░██··"
    assert bar(0.25, 0.5, 8, unicode=False) == "==------"
    assert bar(-0.5, 0.0, 4, unicode=False) == "----"
    assert bar(1.0, 0.0, 4, unicode=False) == "####"


def test_further_tables_have_their_chance_and_come_only_when_asked_for():
    assert not [line for line in lines(sample(), 80) if line.startswith("  chance")]
    chances = [line.split()[1:] for line in lines(sample(), 80, full=True) if line.startswith("  chance")]
    assert chances == [["0", "0", "0", "0.001", "0.001"], ["0.500", "all", "0.950", "0", "0.333", "0"]]


def test_a_narrow_screen_keeps_value_and_chance():
    shown = lines(sample(), 50)
    assert cells(shown, "agreement above chance (A)")[:2] == ["0.410", "0.000"]


def test_what_a_finding_is_about_is_marked_without_colour():
    result = sample()
    result["verdict"]["findings"].append(
        {"code": "X", "severity": "fail", "subject": ["text|video"], "evidence": [], "text": "t", "advice": "a"}
    )
    marked = [line.split()[:2] for line in lines(result, 80, full=True) if line.startswith(("! ", "x "))]
    assert marked == [["!", "ODD_ONE_OUT"], ["x", "X"], ["x", "text|video"], ["!", "audio"]]


def test_a_comparison_shows_before_now_and_change():
    shown = lines(with_comparison(sample()), 80, full=True)
    assert cells(shown, "A ")[:3] == ["0.400", "0.430", "+0.030"]
    assert cells(shown, "agreement above chance (A)")[-2:] == ["+0.030", "1e-04"]
    assert [line[:30].strip() for line in shown if line.startswith("R@1")] == [
        "R@1 in 1,000",
        "R@1 in all 1,200",
        "R@1 text->video in all 1,200",
    ]
    assert sum(line.startswith("change against old.json") for line in shown) == 2


def test_gains_whose_interval_holds_zero_are_no_advice():
    shown = "\n".join(lines(sample(), 80, full=True))
    assert "centre each modality" in shown
    assert "leave out audio" not in shown
    assert "fit without the suspects" not in shown


def test_more_findings_than_three_are_counted_and_named_and_all_are_in_full():
    result = sample(NAMES)
    one = result["verdict"]["findings"][0]
    result["verdict"]["findings"] = [one, *({**one, "code": f"CODE_{i}"} for i in range(4))]
    assert "  and 2 more (--full): CODE_2, CODE_3" in lines(result, 80)
    assert any("CODE_3 [warn]" in line for line in lines(result, 80, full=True))


@pytest.mark.parametrize(
    ("flagged", "hidden", "said"),
    [
        (12, None, "12 of 5,000 instances are rather mispaired than not: look at them before you drop them."),
        (0, None, "No instance stands out as mispaired."),
        (0, 0.236, "No instance stands out as mispaired; too few to be seen may be, up to 23.6% of audio."),
    ],
)
def test_one_sentence_says_how_many_are_mispaired(flagged, hidden, said):
    result = sample()
    result["suspects"]["flagged"] = flagged
    if hidden is not None:
        result["modality"]["audio"]["mispair_rate"] |= {"status": "upper_bound", "value": 0.0, "ci": [0.0, hidden]}
    assert mispair_text(result) == said
    assert sum("mispaired" in line for line in lines(result, 200, full=True)) == 2  # and the column's heading


def test_before_alignment_the_question_is_whether_it_could_be():
    shown = lines(before_alignment(sample()), 80, full=True)
    assert "before alignment" in shown[0]
    assert cells(shown, "partner first of 200, linear adapter")[:2] == ["value", "chance"]
    heading = next(line for line in shown if line.startswith("pair "))
    assert heading.split()[1:5] == ["probe", "R@1", "shared", "dims"]
    assert cells(shown, "  chance")[0] == "0.005"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.3784, "0.378"), (0.9996, "1.00"), (1.0, "1.00"), (6.939, "6.94"), (90.61, "90.6"), (169.8, "170"),
        (1797.0, "1,797"), (-0.044, "-0.044"), (0.0, "0.000"), (6e-4, "6e-04"), (None, "-"),
    ],
)  # fmt: skip
def test_every_number_has_three_digits(value, text):
    assert number_text(value) == text


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
