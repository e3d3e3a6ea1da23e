"""``--report``, ``--compare`` and ``pmrl diagnose MODEL``."""

import json
import re

import jsonschema
import pytest

from pmrl_cli.cli import reports
from pmrl_cli.cli.main import command_line
from pmrl_cli.cli.training_screen import lines, sparkline
from pmrl_cli.data.json_digest import with_digest
from pmrl_cli.errors import DataError, StateError, UsageError
from tests.diagnosis.test_schema import SCHEMA
from tests.report.sample import sample
from tests.run_command import CommandRunner
from tests.simulate import simulate


@pytest.fixture
def run(monkeypatch, capsys):
    return CommandRunner(monkeypatch, capsys)


@pytest.fixture
def drawn(monkeypatch):
    """Have pages and files show two figures alone: drawing them all takes a second or two."""
    from pmrl_cli.report import alignment, geometry

    monkeypatch.setattr("pmrl_cli.report.page._PICTURES", (alignment.share_histogram, geometry.similarity))


@pytest.fixture
def earlier(run, tmp_path):
    path = tmp_path / "earlier.json"
    path.write_text(run("diagnose", simulate(200, 2, 16, noise=1.2), "--json")[1], encoding="utf-8")
    return path


TRAINING = {
    "schema": "pmrl.training/1",
    "modalities": ["text", "video", "audio"],
    "dim": 64,
    "objectives": ["pmrl"],
    "kept": [{"stage": "dropout 0", "step": 90, "epoch": 4.5}, {"stage": "dropout 0.5", "step": 0, "epoch": 0.0}],
    "refitted": True,
    "history": sample()["training"]["history"],
}


def test_the_page_is_made_from_what_json_says(run, tmp_path, drawn):
    from pmrl_cli.diagnosis import notes
    from pmrl_cli.report import render

    data, page = simulate(60, 2, 8), tmp_path / "page.html"
    _, out, _ = run("diagnose", data, "--json", "--report", str(page))
    text = page.read_text(encoding="utf-8")
    assert text.partition("<footer>")[0] == render(json.loads(out), notes()).partition("<footer>")[0]
    assert re.search(r"<b>made</b> \d{4}-\d\d-\d\d .*<b>version</b> pmrl .*<b>command</b>", text, re.DOTALL)
    reports.check(reports.Drawn(page), None, force=False)  # its own page is replaced
    page.write_text("notes", encoding="utf-8")
    with pytest.raises(UsageError, match="a file that pmrl did not write"):
        run("diagnose", data, "--report", str(page))
    assert page.read_text(encoding="utf-8") == "notes"


def test_figures_are_written_one_by_one_and_replaced_only_by_figures(run, tmp_path, drawn):
    data, folder = simulate(60, 2, 8), tmp_path / "figures"
    for formats in ("pdf", "svg,png"):  # its own are replaced
        run("diagnose", data, "--figures", str(folder), "--format", formats)
    names = {path.name for path in folder.iterdir()}
    assert {"shares.svg", "shares.png", "similarities.svg", "similarities.png", "manifest.json"} == names
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("x", encoding="utf-8")
    with pytest.raises(UsageError, match="something that pmrl did not write"):
        run("diagnose", data, "--figures", str(tmp_path / "mine"))
    with pytest.raises(
        UsageError, match=r"unknown format of figures: --format svg,gif, expected some of svg, pdf, png"
    ):
        run("diagnose", data, "--figures", str(tmp_path / "new"), "--format", "svg,gif")


def test_a_missing_extra_is_reported_before_anything_is_read(run, tmp_path, monkeypatch):
    monkeypatch.setattr("pmrl_cli.report.find_spec", lambda _: None)
    with pytest.raises(UsageError, match="pip install 'pmrl-cli"):
        run("diagnose", simulate(20, 2, 4), "--report", str(tmp_path / "page.html"))
    assert run.asked == {}


def test_a_comparison_is_in_the_json_and_of_the_schema(run, earlier):
    result = json.loads(run("diagnose", simulate(200, 2, 16, noise=0.8), "--json", "--compare", str(earlier))[1])
    jsonschema.Draft202012Validator(SCHEMA).validate(result)
    before = json.loads(earlier.read_text(encoding="utf-8"))
    for name, path in (("A", "alignment"), ("MRR", "retrieval")):
        section = [one[path].get("pairwise", one[path])[name]["value"] for one in (before, result)]
        delta = result["compare"]["delta"][name]
        assert [delta["before"], delta["after"]] == pytest.approx(section, abs=1e-5)
        assert delta["p"] < 0.01
    assert result["compare"]["baseline"] == str(earlier)


def test_what_cannot_be_compared_is_refused(run, earlier, tmp_path):
    with pytest.raises(StateError, match="not the same ids"):
        run("diagnose", simulate(150, 2, 16), "--compare", str(earlier))
    broken = tmp_path / "broken.json"
    for text, found in (
        ("{", "no JSON"),
        ("[]", "JSON without a schema"),
        ('{"schema": "pmrl.fit/1"}', "'pmrl.fit/1'"),
    ):
        broken.write_text(text, encoding="utf-8")
        with pytest.raises(DataError, match=f"not a diagnosis: .*{found}"):
            run("diagnose", simulate(20, 2, 4), "--compare", str(broken))
    with pytest.raises(DataError, match=r"missing\.json"):
        run("diagnose", simulate(20, 2, 4), "--compare", str(tmp_path / "missing.json"))


def test_the_hand_made_sample_is_of_the_schema():
    result = {**sample(), "outcomes": {}}
    result["inputs"]["columns"] = result["inputs"]["dims"]
    jsonschema.Draft202012Validator(SCHEMA).validate(with_digest(json.loads(json.dumps(result))))


@pytest.mark.parametrize("width", [80, 50])
def test_the_training_screen_fits_and_shows_the_kept_evaluation(width):
    shown = lines(TRAINING, "runs/" + "model" * 8, width, unicode=True)
    assert max(map(len, shown)) <= width
    mrr = next(line for line in shown if line.startswith("held-out MRR")).split()
    assert mrr[2:4] == ["0.300", "0.450"]  # at the start, and at step 90
    assert any(line.startswith("gradient share, audio") for line in shown)
    assert "dropout 0 at step 90, dropout 0.5 at step 0; then repeated" in " ".join(shown)


def test_a_curve_is_drawn_from_its_lowest_to_its_highest():
    assert sparkline([0, 1, 2, 3, 4, 5, 6, 7], 8, unicode=True) == "▁▂▃▄▅▆▇█"
    assert sparkline([0, 0, 7, 7], 2, unicode=False) == "_%"
    assert sparkline([3, 3, 3], 8, unicode=True) == "▁▁▁"
    assert len(sparkline(list(range(1000)), 24, unicode=True)) == 24


def test_a_model_alone_shows_its_training(tmp_path, capsys):
    from pmrl_cli import Aligner

    model = tmp_path / "model"
    Aligner(steps=15, dropout=0.0, adapter="linear", refit=False).fit(simulate(80, 2, 6)).save(model)
    assert command_line(["diagnose", str(model), "--report", str(tmp_path / "t.html")], standalone_mode=False) is None
    out = capsys.readouterr().out
    assert out.startswith("pmrl diagnose")
    assert "How the fit went" in (tmp_path / "t.html").read_text(encoding="utf-8")
    command_line(["diagnose", str(model), "--json"], standalone_mode=False)
    training = json.loads(capsys.readouterr().out)
    written = (model / "history.csv").read_text(encoding="utf-8").splitlines()
    assert len(training["history"]) == len(written) - 1
    assert {"A", "signed", "gradient_share.m0", "participation_ratio.m1", "loading.m0", "rho_q50"} <= set(
        training["history"][0]
    )
    evaluations = {(line["stage"], line["step"]): line for line in training["history"]}
    assert all(evaluations[one["stage"], one["step"]]["epoch"] == one["epoch"] for one in training["kept"])
    with pytest.raises(UsageError, match=r"a model alone with --compare, expected feature files"):
        command_line(["diagnose", str(model), "--compare", "x.json"], standalone_mode=False)
    assert re.search(r"agreement above chance \(A\) +-?\d\.\d{3}", out)
