"""One, two and four processes: the same moments, losses and model; one cause for all when something goes wrong."""

import json
import signal
import time

import numpy as np
import pytest
import torch

from pmrl_cli.closed_form.arithmetic import CPU, _Torch
from pmrl_cli.closed_form.columns import ProjectionFitter
from pmrl_cli.closed_form.projected import project
from pmrl_cli.closed_form.projection import FeatureMap
from pmrl_cli.files.durable.scratch import Scratch
from pmrl_cli.fit.context import Machine
from pmrl_cli.fit.fit import fit
from pmrl_cli.process_group import SINGLE_PROCESS
from tests.distributed.processes import free_port, in_processes
from tests.train.fits import settings_for, simulate
from tests.typed import Command, pmrl

SIZES = pytest.mark.parametrize("size", [2, 4])
SETTINGS = settings_for(steps=30, batch_size=48, adapter="mlp", test=0.1, refit=True)


def moments_of(processes):
    """Projections of every kind, and cross moments of their scores, over rows of which each process reads a share."""
    data, found = simulate(missing=0.4), {}
    train, everyone = np.flatnonzero(np.arange(len(data)) % 5), np.arange(len(data))
    # A kernel follows linear scores, on a sample that all ranks read.
    for kind, on in (("linear", CPU), ("given", CPU), ("linear", _Torch(torch.device("cpu")))):
        shared = {"processes": processes, "arithmetic": on}
        projections = ProjectionFitter(data, train, seed=0, **shared).fit(FeatureMap(kind, squash=True))
        bank = project(data, everyone, train, projections, cross=True, scratch=Scratch(), **shared)
        found[f"{kind} {type(on).__name__}"] = (
            [p.arrays() for p in projections],
            bank.cross.arrays(),
            list(bank.variances),
        )
        rows = bank.rows.tolist()
        assert set(everyone[::5]) <= set(rows)  # the validation part is on all ranks
        assert all(torch.isfinite(components).all() for components in bank.take(np.arange(len(rows))))
    return found


@SIZES
def test_moments_are_those_of_one_process(size):
    alone = moments_of(SINGLE_PROCESS)
    for found in in_processes(moments_of, size):
        for kind, (projections, cross, variances) in alone.items():
            for wanted, projection in zip(projections, found[kind][0], strict=True):
                for name, array in wanted.items():
                    np.testing.assert_allclose(projection[name], array, rtol=1e-4, atol=1e-5 * np.abs(array).max())
            for wanted, array in zip([*cross, *variances], [*found[kind][1], *found[kind][2]], strict=True):
                np.testing.assert_allclose(array, wanted, rtol=1e-6, atol=1e-6 * np.abs(wanted).max())


def model_of(processes):
    """Losses, and the weights of the model that every process ends with."""
    fitted = fit(simulate(), SETTINGS, machine=Machine(processes=processes))
    weights = [member.encoder.state_dict() for member in fitted.members]
    return {
        "history": [(line.stage, line.step, line.loss, line.mrr, line.r1) for line in fitted.history],
        "weights": weights,
        "held out": fitted.held_out,
        "learned": [recipe.learned for recipe in fitted.recipes],
    }


@pytest.fixture(scope="module")
def alone():
    return model_of(SINGLE_PROCESS)


@SIZES
def test_losses_and_model_are_those_of_one_process(size, alone):
    found = in_processes(model_of, size)
    for one in found[1:]:  # what is broadcast or added up everywhere is the same to the bit
        assert repr(one["history"]) == repr(found[0]["history"])  # NaN where a refit is not judged
        for member, first in zip(one["weights"], found[0]["weights"], strict=True):
            assert member.keys() == first.keys()
            assert all(np.array_equal(member[name], first[name]) for name in first)
    # A near tie among some sixty may fall otherwise on another machine, and with it when a run stops.
    lines = [
        (line, wanted)
        for line, wanted in zip(found[0]["history"], alone["history"], strict=False)
        if line[:2] == list(wanted[:2])
    ]
    assert len(lines) > 3
    for line, wanted in lines:
        np.testing.assert_allclose(line[2], wanted[2], rtol=2e-6)
        np.testing.assert_allclose(line[3:], wanted[3:], atol=0.05)
    if len(lines) == len(alone["history"]):
        for member, wanted in zip(found[0]["weights"], alone["weights"], strict=True):
            for name, array in wanted.items():
                np.testing.assert_allclose(member[name], array.numpy(), rtol=1e-3, atol=1e-4)


def launch(size, arguments, where=lambda _: None):
    """Start ``pmrl ARGUMENTS`` in several processes, as a launcher does."""
    port, started = free_port(), []
    for rank in range(size):
        environment = {
            "RANK": str(rank),
            "WORLD_SIZE": str(size),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
        }
        started.append(Command(*arguments, cwd=where(rank), env=environment))
    return started


def ended(started):
    """Return exit codes, outputs and what was said on standard error, by rank."""
    outputs, said = zip(*(command.communicate() for command in started), strict=True)
    return [command.returncode for command in started], list(outputs), said


@pytest.fixture
def files(tmp_path):
    data = simulate(n=300)
    folder = tmp_path / "features"
    folder.mkdir()
    for features in data.modalities:
        np.save(folder / f"{features.name}.npy", features.array + np.float32(1e-3))
    return sorted(folder.iterdir())


FIT = ("--adapter", "linear", "--dropout", "0", "--no-refit", "--batch-size", "32", "--quiet")


def test_the_command_prints_and_writes_once(tmp_path, files):
    typed = ["fit", *files, *FIT, "--steps", "20", "-o"]
    codes, outputs, said = ended(launch(2, [*typed, tmp_path / "two"]))
    assert codes == [0, 0], said
    assert outputs == [f"{tmp_path / 'two'}\n", ""]
    assert ended(launch(1, [*typed, tmp_path / "one"]))[0] == [0]
    one, two = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two"))
    assert one.keys() == two.keys()
    assert two["held_out.mrr"] == pytest.approx(one["held_out.mrr"], abs=1e-3)


def test_a_process_that_is_killed_ends_all_and_no_output_is_left(tmp_path, files):
    # A method that no closed form stands in for is not stopped by what others have reached.
    endless = ("--objective", "umurl", "--steps", "1000000", "--patience", "1000000")
    log = tmp_path / "log.jsonl"
    started = launch(2, ["fit", *files, *FIT, *endless, "--log", log, "-o", tmp_path / "m"])
    while not log.exists() or not log.read_text(encoding="utf-8"):
        assert [process.poll() for process in started] == [None, None], "it ended before training began"
        time.sleep(0.05)
    time.sleep(0.5)  # so that it is met in a step, most often
    started[1].send_signal(signal.SIGKILL)
    codes, outputs, said = ended(started)
    assert codes == [5, -signal.SIGKILL]
    assert "error: another process of this run ended" in said[0]
    assert not (tmp_path / "m").exists()
    assert outputs[0] == ""


def test_an_error_in_one_process_is_reported_by_all_with_its_code(tmp_path, files):
    # Only rank 1 meets the bad file: its own copy of the features.
    own = [tmp_path / f"rank{rank}" for rank in range(2)]
    for folder in own:
        folder.mkdir()
        for file in files:
            (folder / file.name).write_bytes(file.read_bytes())
    broken = np.load(own[1] / files[0].name)
    broken[3, 1] = np.nan
    np.save(own[1] / files[0].name, broken)
    typed = ["fit", *(file.name for file in files), *FIT, "--steps", "9", "-o", tmp_path / "m"]
    started = launch(2, typed, lambda rank: own[rank])
    codes, _, said = ended(started)
    assert codes == [3, 3], said
    assert "non-finite value" in said[1]
    assert "rank 1 reported: non-finite value" in said[0]


def test_a_number_of_processes_without_a_launcher_is_a_wrong_use(tmp_path, files):
    ran = pmrl("fit", *files, "-o", tmp_path / "m", env={"WORLD_SIZE": "2"})
    assert ran.returncode == 2
    assert "Unset WORLD_SIZE, or use torchrun." in ran.stderr
