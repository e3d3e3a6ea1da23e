"""What a fit writes while it runs: JSON lines, and events that TensorBoard reads."""

import json
import math

import pytest

from pmrl_cli.cli.fit_log import FitLog
from pmrl_cli.errors import UsageError
from pmrl_cli.train.progress import Progress


def line(stage, step, mrr, loss):
    return Progress(stage, step, 0.0, loss, 0.5, mrr, 0.25, {}, {})


def test_lines_are_there_at_once_and_added_to_those_before(tmp_path):
    path = tmp_path / "logs" / "fit.jsonl"
    for _ in range(2):
        with FitLog(path, None) as log:
            log.evaluation(line("kernel start", 0, 0.5, math.nan))
            last = json.loads(path.read_text(encoding="utf-8").splitlines()[-1])
    del last["time"]
    assert last == {"candidate": "kernel start", "step": 0, "mrr": 0.5, "r1": 0.25, "share": 0.5}
    assert len(path.read_text(encoding="utf-8").splitlines()) == 2


def test_a_log_that_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(UsageError, match="--log cannot be written"), FitLog(tmp_path, None):
        pass


def test_each_candidate_is_a_run_of_tensorboard(tmp_path):
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with FitLog(None, tmp_path) as log:
        for step in (0, 30):
            log.evaluation(line("linear dropout 0.5", step, 0.1 + step, math.nan if step == 0 else 2.0))
    found = events.EventAccumulator(str(tmp_path / "linear-dropout-0.5")).Reload()
    assert [(one.step, pytest.approx(one.value)) for one in found.Scalars("mrr")] == [(0, 0.1), (30, 30.1)]
    assert [one.step for one in found.Scalars("loss")] == [30]


def test_without_tensorboard_the_extra_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("pmrl_cli.cli.fit_log.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'pmrl-cli\[tensorboard\]'"):
        FitLog(None, tmp_path)
