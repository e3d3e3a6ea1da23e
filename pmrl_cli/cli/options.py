"""The options that commands share, and the config file that sets any of them.

Precedence: flag, then environment (``PMRL_<COMMAND>_<OPTION>``), then ``--config FILE.toml``, then default.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import partial, wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import typer

from pmrl_cli.cli.config import load_config
from pmrl_cli.errors import UsageError
from pmrl_cli.flags import FLAG, Flag
from pmrl_cli.python_words import command_line

__all__ = [
    "ConfigFile",
    "Files",
    "Force",
    "FusionOption",
    "Json",
    "NullPaths",
    "Quiet",
    "Seed",
    "Shard",
    "Verbose",
    "check_inputs",
    "expand_files",
    "flattened",
    "option",
    "parse_shard",
    "switch",
    "without",
]

option = partial(typer.Option, show_envvar=False)
"""An option whose help leaves its environment variable out: all follow one rule, and the README states it."""

switch = partial(option, metavar="")
"""An option without a value."""


Command = Callable[..., None]


class Without(NamedTuple):
    """Beside a dataclass in the signature of a command: the fields it does not offer, which keep their defaults."""

    fields: frozenset[str]


def without(*fields: str) -> Without:
    """Name the fields a command does not offer: the note beside a dataclass in its signature."""
    return Without(frozenset(fields))


def flattened(command: Command) -> Command:
    """Return a command with one parameter for each field of the dataclasses it takes.

    A dataclass may name the heading its options stand under in the help as ``PANEL``.

    A field that is declared with ``flags.flag`` becomes an option of its name; what is typed is put together again
    before the command runs. Other parameters stay as they are.
    """
    hints = get_type_hints(command, include_extras=True)
    parameters: list[Parameter] = []
    groups: dict[str, tuple[type[Any], list[Field[Any]]]] = {}
    for parameter in signature(command).parameters.values():
        hint = hints[parameter.name]
        group: Any
        group, *notes = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        if not (isinstance(group, type) and is_dataclass(group)):
            parameters.append(parameter.replace(annotation=hint, kind=Parameter.KEYWORD_ONLY))
            continue
        left_out = {name for note in notes if isinstance(note, Without) for name in note.fields}
        offered = [one for one in fields(group) if FLAG in one.metadata and one.name not in left_out]
        types = get_type_hints(group)
        parameters += [_parameter(one, types[one.name], getattr(group, "PANEL", None)) for one in offered]
        groups[parameter.name] = (group, offered)

    @wraps(command)
    def flat(**given: Any) -> None:  # noqa: ANN401 - typer has checked them
        for name, (group, offered) in groups.items():
            typed = {one.name: given.pop(_option_name(one)) for one in offered}
            given[name] = group(**{one.name: _value(one, typed[one.name]) for one in offered})
        with command_line():
            command(**given)

    flat.__signature__ = Signature(parameters)  # type: ignore[attr-defined] # read by inspect.signature
    flat.__annotations__ = {one.name: one.annotation for one in parameters}
    return flat


def _parameter(
    one: Field[Any],
    kind: Any,  # noqa: ANN401 - a type, or a special form of typing
    panel: str | None,
) -> Parameter:
    flag: Flag = one.metadata[FLAG]
    default = None if one.default is MISSING else one.default
    if get_origin(kind) in (tuple, dict):  # given as often as one likes
        kind, default = list[str] | None, None
    elif flag.parse is not None:
        kind = str | None
    metavar = "" if kind in (bool, bool | None) else flag.metavar or (None if flag.min is None else "N")
    typed = option(*flag.names, help=flag.help, metavar=metavar, min=flag.min, rich_help_panel=flag.panel or panel)
    return Parameter(_option_name(one), Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, typed])


def _option_name(one: Field[Any]) -> str:
    """Return what the option is called in a config file and in the environment: its long form."""
    flag: Flag = one.metadata[FLAG]
    long = next(name for name in flag.names if name.startswith("--"))
    return long.partition("/")[0].removeprefix("--").replace("-", "_")


def _value(one: Field[Any], given: Any) -> Any:  # noqa: ANN401 - of whatever type the field is
    flag: Flag = one.metadata[FLAG]
    repeatable = one.default == () or one.default is MISSING
    if repeatable:
        given = tuple(given or ())
    if flag.parse is None or given is None:
        return given
    try:
        return flag.parse(given)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=f"'{flag.names[0]}'") from None


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """Return (2, 8) for ``3/8``, the third of eight shards: its number from 0 on, and how many there are.

    Raises: UsageError for anything but i/n with 1 <= i <= n.
    """
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(
            what="unknown shard",
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
                raise UsageError(
                    what="NUL in a path",
                    found="NUL on standard input",
                    expected="one path a line",
                    next_step="Pass -0 if NUL ends them.",
                )
            expanded += [path for path in (text.split("\0") if null else text.splitlines()) if path]
        else:
            expanded.append(item)
    if not expanded:
        raise UsageError(
            what="no input",
            found="no path",
            expected="feature files, a folder or a store",
            next_step="Name them, for example features/*.h5.",
        )
    return expanded


def check_inputs(files: list[str], model: Path | None = None) -> None:
    """Refuse inputs that are not there now, before the libraries that read them are loaded.

    Not where several processes run: what one of them lacks is for the others to know, which wait for it by then.

    Args:
        files: paths as typed, expanded.
        model: folder of a model, if there is one.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        return
    from pmrl_cli.files.artifacts.model import FORMAT, manifest_of
    from pmrl_cli.files.durable.outputs import format_of
    from pmrl_cli.files.join.items import check_there

    if model is not None and format_of(model) != FORMAT:
        manifest_of(model)  # says what is wrong
    check_there(files)


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
NullPaths = Annotated[
    bool, switch("-0", "--null", help="Paths on standard input end in NUL.", rich_help_panel="Reading files")
]
FusionOption = Annotated[
    Literal["leading", "weighted"],
    option("--fusion", help="Fuse modalities to their leading direction, or to a mean weighted by agreement."),
]
Json = Annotated[bool, switch("--json", help="Print the result as JSON on standard output.")]
Quiet = Annotated[bool, switch("-q", "--quiet", help="Only errors on standard error.")]
Verbose = Annotated[bool, switch("-v", "--verbose", help="Progress as plain lines even off a terminal.")]
Seed = Annotated[int, option("--seed", help="Seed of every random choice.")]
Shard = Annotated[
    str | None,
    option("--shard", metavar="I/N", help="Do one shard of the instances: 3/8 is the third of eight."),
]
Force = Annotated[bool, switch("--force", help="Replace an output that pmrl did not write.")]
ConfigFile = Annotated[
    Path | None,
    option("--config", help="TOML file of options.", callback=load_config, is_eager=True),
]
