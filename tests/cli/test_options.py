"""Options that commands share: what is typed, or stands in a config file, is read right or refused in one line."""

import io
import math
import os
import sys
import time
from types import SimpleNamespace

import pytest
import typer

from pmrl_cli.cli import fit, options
from pmrl_cli.cli.main import app
from pmrl_cli.cli.options import parse_shard
from pmrl_cli.errors import UsageError
from pmrl_cli.training.settings import FitSettings


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
        app(["inspect", "absent.h5", "--config", str(path)], standalone_mode=False)
    assert time.process_time() - started < 5
    assert said.format(path=path) in str(caught.value)
    assert len(str(caught.value)) < 500 + len(str(path))


def test_nul_between_paths_is_told_and_read_with_0(monkeypatch):
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
    assert options.parse_bytes(text) == expected


@pytest.mark.parametrize(("text", "expected"), [("90s", 90), ("5m", 300), ("1.5h", 5400), ("7", 7)])
def test_times_are_in_seconds(text, expected):
    assert options.parse_seconds(text) == expected


@pytest.mark.parametrize("text", ["", "0", "-1", "1e3", "8X", "M", "nan", "inf", "1.5.5G", "9" * 400])
def test_what_is_no_size_or_time_is_refused(text):
    for parse in (options.parse_bytes, options.parse_seconds):
        with pytest.raises(typer.BadParameter, match=f"{text!r} is not a"):
            parse(text)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_a_setting_that_is_no_finite_number_is_refused_before_the_data_are_read(number):
    for name in ("learning_rate", "mixup", "mispaired", "budget", "dropout", "validation", "test"):
        with pytest.raises(UsageError, match=f"out of range: {number}"):
            FitSettings(**{name: number})
    with pytest.raises(UsageError, match="--set is not KEY=NUMBER"):
        fit._settings([f"spectrum_weight={number}"])


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
