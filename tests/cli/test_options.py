"""Options that commands share: what is typed, or stands in a config file, is read right or refused in one line."""

import ast
import io
import math
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Literal

import pytest
import typer
from typer.exceptions import TyperException
from typer.testing import CliRunner

from pmrl_cli.aligner import Aligner
from pmrl_cli.cli import options
from pmrl_cli.cli.main import app, command_line
from pmrl_cli.cli.options import parse_shard
from pmrl_cli.errors import UsageError
from pmrl_cli.flags import flag, parse_bytes, parse_seconds
from pmrl_cli.train.settings import FitSettings, parse_settings, parse_terms


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a = " + "[" * 100_000, "config file is not TOML"),
        ("seed = " + "1" * 100_000, "config file is not TOML"),
        ("seed = 1\nseed = 2\n", "config file is not TOML"),
        (b"seed = '\xff'\n", "config file is not TOML"),
        (None, "config file cannot be read: {path}: no regular file"),
        ("folder", "config file cannot be read: {path}: no regular file"),
    ],
    ids=["deep", "long", "doubled", "not UTF-8", "pipe", "folder"],
)
def test_a_config_file_that_cannot_be_read_is_refused_in_one_line_and_at_once(tmp_path, text, said):
    path = tmp_path / "c.toml"
    if text is None:
        os.mkfifo(path)
    elif text == "folder":
        path.mkdir()
    else:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    started = time.process_time()
    with pytest.raises(UsageError) as caught:
        command_line(["inspect", "absent.h5", "--config", str(path)], standalone_mode=False)
    assert time.process_time() - started < 5
    assert said.format(path=path) in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(path))


def test_no_choice_is_broken_in_the_help_of_80_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERMINAL_WIDTH", "80")
    for name in command_line.commands:
        shown = CliRunner().invoke(app, [name, "--help"]).output
        assert "Show this message" in shown
        assert not [line for line in shown.splitlines() if re.search("<[^>]*$", line)], name


def test_paths_separated_by_nul_are_refused_unless_0_is_given(monkeypatch):
    for null, expected in ((True, ["a", "b"]), (False, None)):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"a\0b\0")))
        if expected is None:
            with pytest.raises(UsageError, match=r"NUL in a path: .* Pass -0"):
                options.expand_files(["-"], null=null)
        else:
            assert options.expand_files(["-"], null=null) == expected
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"\n\n")))
    with pytest.raises(UsageError, match="no input"):
        options.expand_files(["-"], null=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("512M", 512 * 2**20), ("8G", 8 * 2**30), ("1.5GiB", 3 * 2**29), ("7", 7), (" 2 kb ", 2048)],
)
def test_sizes_are_powers_of_1024(text, expected):
    assert parse_bytes(text) == expected


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("5m", 300), ("1.5h", 5400), ("7", 7)])
def test_times_are_in_seconds(text, expected):
    assert parse_seconds(text) == expected


@pytest.mark.parametrize("text", ["", "0", "-1", "1e3", "8X", "M", "nan", "inf", "1.5.5G", "9" * 400])
def test_what_is_no_size_or_time_is_refused(text):
    for parse in (parse_bytes, parse_seconds):
        with pytest.raises(ValueError, match=f"{text!r} is not a"):
            parse(text)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_setting_that_is_no_finite_number_is_refused_before_the_data_are_read(number):
    for name in ("learning_rate", "mixup", "mispaired", "budget", "dropout", "validation", "test"):
        with pytest.raises(UsageError, match=f"out of range: {number}"):
            FitSettings(**{name: number})
    with pytest.raises(UsageError, match=f"out of range: spectrum_weight={number}, expected a number"):
        Aligner(objective_settings=parse_settings([f"spectrum_weight={number}"]))
    with pytest.raises(UsageError, match="weight of a term out of range"):
        FitSettings(terms=parse_terms([f"spectrum={number}"]))


def test_a_pair_without_a_name_or_a_value_is_refused():
    for pair in ("=3", "temperature=", "temperature"):
        with pytest.raises(UsageError, match="--set is not NAME=VALUE"):
            parse_settings([pair])
    with pytest.raises(UsageError, match="weight of a term is not a number: spectrum=high"):
        parse_terms(["spectrum=high"])
    with pytest.raises(UsageError, match="unknown term"):
        Aligner(terms={"nothing": 1.0})


def test_a_shard_is_counted_from_one_where_it_is_typed():
    assert [parse_shard(text) for text in ("1/1", "3/8", "08/8")] == [(0, 1), (2, 8), (7, 8)]
    assert parse_shard(None) is None


@pytest.mark.parametrize("text", ["0/8", "9/8", "1/0", "3", "3/", "/8", "-1/8", "3/8/2", "3 / 8", "\u0663/8", ""])
def test_another_shard_is_refused_with_what_was_typed(text):
    with pytest.raises(UsageError) as caught:
        parse_shard(text)
    assert str(caught.value) == (
        f"unknown shard: --shard {text!r}, expected i/n with i from 1 to n, such as 3/8 for the third of eight. "
        "Give every call its own i and all the same n."
    )


@dataclass(frozen=True)
class Drawing:
    """Some options of no command."""

    colour: Literal["red", "blue"] = flag("red", "--colour", help="Of lines.")
    sizes: tuple[int, ...] = flag((), "--size", help="Repeatable.", parse=lambda texts: tuple(map(int, texts)))
    room: int | None = flag(None, "--room", help="In bytes.", parse=parse_bytes)
    filled: bool | None = flag(None, "--filled/--hollow", help="Inside.")
    inside: int = 7


def drawn(*arguments, left_out=()):
    """Run a throw-away command that takes ``Drawing`` and return what it was given."""
    given = []

    def command(name, drawing, *, config=None):
        given.append(drawing)

    command.__annotations__ = {
        "name": str,
        "drawing": Annotated[Drawing, options.without(*left_out)],
        "config": options.ConfigFile,
    }
    throw_away = typer.Typer()
    throw_away.command()(options.flattened(command))
    throw_away(list(arguments), standalone_mode=False)
    return given[0]


def test_a_field_of_a_dataclass_is_an_option_of_each_command_that_takes_it(tmp_path):
    assert drawn("x") == Drawing()
    typed = drawn("x", "--colour", "blue", "--size", "3", "--size", "1", "--room", "2k", "--hollow")
    assert typed == Drawing("blue", (3, 1), 2048, filled=False)
    (tmp_path / "c.toml").write_text('colour = "blue"\nsize = "3"\nroom = 7\n')
    assert drawn("x", "--config", str(tmp_path / "c.toml"), "--colour", "red") == Drawing("red", (3,), 7)


def test_options_are_refused_by_name_and_fields_left_out_are_none():
    with pytest.raises(TyperException, match="'green' is not one of 'red', 'blue'"):
        drawn("x", "--colour", "green")
    with pytest.raises(TyperException) as caught:
        drawn("x", "--room", "much")
    assert "'--room': 'much' is not a size such as 512M or 8G" in caught.value.format_message()
    with pytest.raises(TyperException, match="No such option: --colour"):
        drawn("x", "--colour", "blue", left_out=["colour"])
    with pytest.raises(TyperException, match="No such option: --inside"):
        drawn("x", "--inside", "1")


PACKAGE = Path(options.__file__).parents[1]


def test_only_commands_take_more_than_eight_parameters():
    many = [
        f"{path.relative_to(PACKAGE)}: {node.name}"
        for folder in ("files", "data", "cli")
        for path in (PACKAGE / folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef)
        and len(node.args.args) + len(node.args.kwonlyargs) > 8
        and node.name != "command"
    ]
    assert not many
