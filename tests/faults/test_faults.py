"""Kills, failed calls and flipped bits at a sample of the places where they can happen (all of them by command)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

from tests.faults import bits, inject, points
from tests.limits import HUNG

HERE = Path(__file__).parent


@pytest.mark.skipif(bool(inject.why_not()), reason=inject.why_not())
@pytest.mark.parametrize("commands", [["fit"], ["ingest", "export-h5", "export-parquet", "diagnose-partial"]])
def test_whatever_call_is_met_the_output_is_the_old_or_the_new_one_and_the_next_run_mends_the_rest(commands):
    # In a process of its own: it forks, which the threads of other tests would not survive.
    command = [sys.executable, HERE / "points.py", *commands, "--sample", "2", "--json"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=HUNG)
    assert done.stdout, done.stderr.decode()
    said = json.loads(done.stdout)
    assert said["wrong"] == []
    assert len(said["results"]) == 2 * len(commands)
    for found in said["results"].values():
        assert found["tried"] == 3 < found["calls"]
        assert (found["torn"], found["lost"]) == (0, 0)
        assert_durable(found["order"])


def assert_durable(calls: list[str]) -> None:
    """Hold calls to their order: data, then fsync of files and folders, then the name, then fsync."""
    naming = max(at for at, name in enumerate(calls) if name in inject.RENAMING.values())
    written = max(at for at, name in enumerate(calls[:naming]) if name in inject.DATA.values())
    between = calls[written + 1 : naming]
    # safetensors renames inside the working folder what it wrote there: that is data too, and fsync follows it.
    assert set(between) <= {"fsync", "ftruncate", "renameat"}
    assert "fsync" in between[-1:]
    assert calls[naming + 1] == "fsync"


@pytest.mark.skipif(bool(inject.why_not()), reason=inject.why_not())
def test_fit_kill_resume_export_corrupt_and_repair_in_any_order():
    command = [sys.executable, HERE / "machine.py", "--examples", "4", "--steps", "6"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=HUNG)
    assert done.returncode == 0, done.stderr.decode()


def test_a_fit_and_an_export_without_room_say_so_in_one_line():
    command = [sys.executable, HERE / "memory.py", "64", "16"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"}, timeout=HUNG)
    assert done.returncode == 0, done.stdout.decode()
    assert b"exit 5" in done.stdout


def test_every_option_that_names_an_output_is_among_the_commands():
    from pmrl_cli.cli.main import app

    read = {"files", "labels", "ids", "model", "continue_from", "like", "config", "exclude", "compare"}
    # Written by the same atomic file and folder: into an AnnData file, graphs, the table of many fits, figures.
    elsewhere = {"export-into", "export-onnx", "compare", "diagnose-figures"}
    # Grow line by line while a fit runs.
    elsewhere |= {"fit-log", "fit-tensorboard"}
    for entry in app.registered_commands:
        hints = get_type_hints(entry.callback)
        outputs = {name for name, hint in hints.items() if hint in (Path, Path | None)} - read
        if hints.get("output") is str:  # a folder or -
            outputs.add("output")
        for option in outputs:
            # merge writes its tables and its page by what diagnose writes them with.
            writer = "diagnose" if entry.name == "merge" else entry.name
            name = entry.name if option == "output" else f"{writer}-{option.replace('_', '-')}"
            assert name in elsewhere or any(command.startswith(name) for command in points.COMMANDS), name


def test_every_flipped_bit_of_every_output_is_found(tmp_path):
    for kind, (path, reader) in bits.outputs(tmp_path).items():
        silent = [place for place in bits.flips(path, reader, each=24) if place]
        assert silent == [], kind


@pytest.mark.parametrize("name", ["image.h5", "text/part-00000-of-00001.parquet", "image.npy"])
def test_a_file_of_an_export_is_held_to_its_digest_also_when_it_is_named_alone(tmp_path, name):
    made = bits.outputs(tmp_path)
    export = made[{".h5": "h5", ".npy": "npy", ".parquet": "parquet"}[Path(name).suffix]][0]
    assert bits.refusal(bits._read, export / name) == ""
    silent = [place for place in bits.flips(export / name, bits._read, each=40) if place]
    assert silent == []
