"""Kills, failed calls and flipped bits at a sample of the places where they can happen (all of them by command)."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import get_type_hints

import pytest

from tests import typed
from tests.faults import bits, inject, points

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """An output of every kind, and what reads it."""
    return bits.outputs(tmp_path_factory.mktemp("outputs"))


def run(script, *arguments):
    """Run a script of this folder in a process of its own: it forks, which threads would not survive."""
    return typed.pmrl(*arguments, program=HERE / script)


@pytest.mark.skipif(bool(inject.why_not()), reason=inject.why_not())
@pytest.mark.parametrize("commands", [["fit"], ["ingest", "export-parquet", "diagnose-partial"]])
def test_after_a_fault_at_any_call_the_output_is_the_old_or_the_new_one_and_the_next_run_completes(commands):
    done = run("points.py", *commands, "--sample", "1", "--json")
    assert done.stdout, done.stderr
    said = json.loads(done.stdout)
    assert said["wrong"] == []
    assert len(said["results"]) == 2 * len(commands)
    for found in said["results"].values():
        assert found["tried"] == 2 < found["calls"]
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
    done = run("machine.py", "--examples", "2", "--steps", "6")
    assert done.returncode == 0, done.stderr


def test_a_fit_and_an_export_without_room_say_so_in_one_line():
    done = run("memory.py", "--rows", "2000", "32", "4")
    assert done.returncode == 0, done.stdout
    assert "exit 5" in done.stdout


def test_every_option_that_names_an_output_is_among_the_commands():
    from pmrl_cli.cli.main import command_line

    read = {"files", "labels", "ids", "model", "continue_from", "like", "config", "exclude", "compare"}
    # Written by the same atomic file and folder: into an AnnData file, graphs, the table of many fits, figures.
    elsewhere = {"export-into", "export-onnx", "compare", "diagnose-figures"}
    # Grow line by line while a fit runs.
    elsewhere |= {"fit-log", "fit-tensorboard"}
    for command in command_line.commands:
        hints = get_type_hints(import_module(f"pmrl_cli.cli.{command.replace('-', '_')}").command)
        outputs = {name for name, hint in hints.items() if hint in (Path, Path | None)} - read
        if hints.get("output") is str:  # a folder or -
            outputs.add("output")
        for option in outputs:
            # merge writes its tables and its page by what diagnose writes them with.
            writer = "diagnose" if command == "merge" else command
            name = command if option == "output" else f"{writer}-{option.replace('_', '-')}"
            assert name in elsewhere or any(one.startswith(name) for one in points.COMMANDS), name


def test_every_flipped_bit_of_every_output_is_found(outputs):
    for kind, (path, reader) in outputs.items():
        silent = [place for place in bits.flips(path, reader, each=12) if place]
        assert silent == [], kind


@pytest.mark.parametrize("name", ["image.h5", "text/part-00000-of-00001.parquet", "image.npy"])
def test_a_file_of_an_export_is_held_to_its_digest_also_when_it_is_named_alone(outputs, name):
    export = outputs[{".h5": "h5", ".npy": "npy", ".parquet": "parquet"}[Path(name).suffix]][0]
    assert bits.refusal(bits._read, export / name) == ""
    silent = [place for place in bits.flips(export / name, bits._read, each=20) if place]
    assert silent == []
