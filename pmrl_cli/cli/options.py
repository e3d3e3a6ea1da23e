"""The options that commands share, and the config file that sets any of them.

Precedence: flag, then environment (``PMRL_<COMMAND>_<OPTION>``), then ``--config FILE.toml``, then default.
"""

from __future__ import annotations

import errno
import os
import re
import sys
import tomllib
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pmrl_cli.errors import Place, UsageError

__all__ = [
    "ConfigFile",
    "Device",
    "FeatureColumn",
    "Files",
    "Force",
    "Fusion",
    "FusionOption",
    "IdColumn",
    "Join",
    "JoinOption",
    "Json",
    "LabelsFile",
    "MaxMemory",
    "NullPaths",
    "OnBad",
    "OnBadOption",
    "Precision",
    "PrecisionOption",
    "Quiet",
    "Seed",
    "Shard",
    "Threads",
    "Verbose",
    "expand_files",
    "option",
    "parse_bytes",
    "parse_shard",
]

option = partial(typer.Option, show_envvar=False)
"""An option whose help leaves its environment variable out: all follow one rule, and the README states it."""


class Join(StrEnum):
    """Which instances a joined data set keeps."""

    inner = "inner"
    outer = "outer"


class OnBad(StrEnum):
    """What happens to an instance with a bad row."""

    error = "error"
    drop = "drop"


class Fusion(StrEnum):
    """How the modalities of an instance become one vector."""

    leading = "leading"
    weighted = "weighted"


class Precision(StrEnum):
    """Arithmetic of training."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


def _load_config(context: typer.Context, path: Path | None) -> Path | None:
    if path is None:
        return None
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise OSError(errno.EINVAL, "no regular file")
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        what = "config file cannot be read"
        raise UsageError(
            what,
            at=Place(str(path)),
            found=error.strerror or "an I/O error",
            expected="a TOML file",
            next_step="Check the path after --config.",
        ) from None
    except (ValueError, RecursionError) as error:  # also of numbers too long and tables too deep to be read
        what = "config file is not TOML"
        raise UsageError(
            what,
            at=Place(str(path)),
            found=str(error)[:160],
            expected="lines like seed = 0",
            next_step="Mend that line.",
        ) from None
    known = {p.name for p in context.command.params if p.name is not None} - {"files", "config", "help"}
    unknown = sorted(set(values) - known)
    if unknown:
        what = "unknown config key"
        raise UsageError(
            what,
            at=Place(str(path)),
            found=", ".join(repr(key) for key in unknown),
            expected=f"one of {', '.join(sorted(known))}",
            next_step=f"See pmrl {context.command.name} --help.",
        )
    context.default_map = {**(context.default_map or {}), **values}
    return path


def parse_bytes(text: str | None) -> int | None:
    """Return bytes from ``512M``, ``8G``, ``1.5GiB`` or a plain number (powers of 1024)."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", text, re.IGNORECASE)
    if match is None or float(match[1]) <= 0:
        message = f"{text!r} is not a size such as 512M or 8G"
        raise typer.BadParameter(message, param_hint="'--max-memory'")
    power = ["", "k", "m", "g", "t"].index(match[2].lower())
    return int(float(match[1]) * 1024**power)


def parse_seconds(text: str | None) -> float | None:
    """Return seconds from ``90s``, ``5m``, ``1.5h`` or a plain number."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d{1,15}(?:\.\d+)?)\s*([smh]?)\s*", text, re.IGNORECASE)
    if match is None or float(match[1]) <= 0:
        message = f"{text!r} is not a time such as 90s, 5m or 2h"
        raise typer.BadParameter(message, param_hint="'--budget'")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2].lower()]


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """Return (2, 8) for ``3/8``, the third of eight shares: its number from 0 on, and how many there are.

    Raises: UsageError for anything but i/n with 1 <= i <= n.
    """
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        what = "unknown shard"
        raise UsageError(
            what,
            found=f"--shard {text!r}",
            expected="i/n with i from 1 to n, such as 3/8 for the third of eight",
            next_step="Give every call its own i and all the same n.",
        )
    return int(match[1]) - 1, int(match[2])


def expand_files(files: list[str], *, null: bool) -> list[str]:
    """Replace ``-`` by the paths on standard input, one a line (or NUL-separated with ``-0``)."""
    expanded: list[str] = []
    for item in files:
        if item == "-":
            text = os.fsdecode(sys.stdin.buffer.read())
            if "\0" in text and not null:
                what = "NUL in a path"
                raise UsageError(
                    what,
                    found="NUL on standard input",
                    expected="one path a line",
                    next_step="Pass -0 if NUL ends them.",
                )
            expanded += [path for path in (text.split("\0") if null else text.splitlines()) if path]
        else:
            expanded.append(item)
    if not expanded:
        what = "no input"
        raise UsageError(
            what,
            found="no path",
            expected="feature files, a folder or a store",
            next_step="Name them, for example features/*.h5.",
        )
    return expanded


def _start_reading(files: list[str]) -> list[str]:
    """Start the reading process while this one still loads its libraries."""
    from pmrl_cli.files.formats import sandbox_client

    sandbox_client.start()
    return files


Files = Annotated[
    list[str],
    typer.Argument(
        callback=_start_reading,
        metavar="FILES",
        help="Feature files, a folder, or a store; name=path, path:/dataset and path#column name things; "
        "- reads paths from standard input.",
        show_default=False,
    ),
]
NullPaths = Annotated[bool, option("-0", "--null", help="Paths on standard input end in NUL.")]
LabelsFile = Annotated[
    Path | None,
    option("--labels", help="Side table (Parquet, HDF5 or CSV) with an id column and labels or groups."),
]
IdColumn = Annotated[str | None, option("--id-column", help="Dataset or column that holds the ids.")]
FeatureColumn = Annotated[str | None, option("--feature-column", help="Dataset or column that holds the vectors.")]
JoinOption = Annotated[Join, option("--join", help="Keep instances in all modalities, or in two or more.")]
OnBadOption = Annotated[OnBad, option("--on-bad", help="Rows with NaN, Inf or no length: stop, or drop.")]
FusionOption = Annotated[
    Fusion,
    option("--fusion", help="Fuse modalities to their leading direction, or to a mean weighted by agreement."),
]
Json = Annotated[bool, option("--json", help="Print the result as JSON on standard output.")]
Quiet = Annotated[bool, option("-q", "--quiet", help="Only errors on standard error.")]
Verbose = Annotated[bool, option("-v", "--verbose", help="Progress as plain lines even off a terminal.")]
Seed = Annotated[int, option("--seed", help="Seed of every random choice.")]
Device = Annotated[str, option("--device", help="auto, cpu, cuda or cuda:N.")]
PrecisionOption = Annotated[Precision, option("--precision", help="auto, fp32 or bf16.")]
Threads = Annotated[int | None, option("--threads", min=1, help="CPU threads (default: all cores).")]
MaxMemory = Annotated[
    str | None,
    option("--max-memory", help="Memory for feature arrays, e.g. 8G; beyond it they live on disk."),
]
Shard = Annotated[
    str | None,
    option("--shard", metavar="I/N", help="Do one share of the instances: 3/8 is the third of eight."),
]
Force = Annotated[bool, option("--force", help="Replace an output that pmrl did not write.")]
ConfigFile = Annotated[
    Path | None,
    option("--config", help="TOML file of options.", callback=_load_config, is_eager=True),
]
