"""The ``pmrl`` command: the only place that turns errors into lines and exit codes."""

from __future__ import annotations

import gc
import json
import os
import re
import signal
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import suppress
from importlib import import_module
from inspect import cleandoc
from types import FrameType
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from pmrl_cli import __version__
from pmrl_cli.cli.messages import say
from pmrl_cli.cli.options import switch
from pmrl_cli.errors import PeerError, PmrlError, UsageError, is_out_of_memory

__all__ = ["app", "command_line", "run"]

# Read by OpenMP and OpenBLAS when torch and NumPy are loaded, later: threads that spin for the next piece of work
# make a training step on a machine with other work many times slower (docs/speed.md); sleeping costs a tenth on an
# idle one.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")  # 2^4 cycles, the least; 2^26 by default
# Read by torch: pages of 2 MB for tensors that large, or new memory takes as long as what is written to it.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

_COMMANDS = (
    "inspect",
    "ingest",
    "fit",
    "diagnose",
    "merge",
    "evaluate",
    "compare",
    "export",
    "export-onnx",
    "search",
)
"""In the order of the help; the function ``command`` of the module ``pmrl_cli.cli.NAME`` is what runs."""


class _Modules(Mapping[str, Any]):
    """The commands by name, each imported and built when it is asked for: the one that runs, or all for the help."""

    def __init__(self) -> None:
        self._built: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - a command of typer, whatever it is based on
        if name not in _COMMANDS:
            raise KeyError(name)
        if name not in self._built:
            command = import_module(f"pmrl_cli.cli.{name.replace('-', '_')}").command
            alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
            alone.command(name, help=_flowed(command.__doc__))(command)
            self._built[name] = typer.main.get_command(alone)
        return self._built[name]

    def __iter__(self) -> Iterator[str]:
        return iter(_COMMANDS)

    def __len__(self) -> int:
        return len(_COMMANDS)


class _Commands(TyperGroup):
    """The group of all commands."""

    def __init__(self, **given: Any) -> None:  # noqa: ANN401 - those of typer
        super().__init__(**given)
        self.commands: Any = _Modules()

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ANN401 - a context of typer
        """Return their names."""
        return list(_COMMANDS)


app = typer.Typer(
    name="pmrl",
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "auto_envvar_prefix": "PMRL"},
    rich_markup_mode="rich",
)


def _flowed(text: str) -> str:
    """Join the lines of each paragraph, or the help breaks where the docstring does."""
    return re.sub(r"(?<!\n)\n(?!\n)", " ", cleandoc(text))


_HELP = """Align precomputed embeddings of k modalities in one space, and diagnose how well.

Exit codes: 0 done, 1 --fail-under not met, 2 command line, 3 data, 4 refused by policy, 5 memory, disk or
device, 6 diverged, 7 state mismatch, 70 a bug of pmrl, 130/143 interrupted.
"""


def _version(value: bool) -> None:
    if value:
        typer.echo(f"pmrl {__version__}")
        raise typer.Exit


_ALONE = ("inspect", "ingest", "merge", "compare", "export-onnx", "search")


def _check_processes(name: str | None) -> None:
    """Refuse to run what one process does in each of several: they would all read and write the same."""
    size = os.environ.get("WORLD_SIZE", "1")
    if name in _ALONE and size != "1":
        raise UsageError(
            what=f"pmrl {name} runs in one process",
            found=f"WORLD_SIZE={size}, as a launcher sets it",
            expected="no launcher, or fit, diagnose, evaluate or export",
            next_step=f"Type pmrl {name} without torchrun.",
        )


@app.callback(help=_flowed(_HELP))
def pmrl(
    context: typer.Context,
    version: Annotated[bool, switch("--version", help="Show the version.", callback=_version, is_eager=True)] = False,
    debug: Annotated[bool, switch("--debug", help="Show the trace of an error.")] = False,
) -> None:
    """Take the options of all commands; its help is ``_HELP``."""
    _check_processes(context.invoked_subcommand)


command_line = typer.main.get_command(app)
"""``app`` built: calling ``app`` builds every command and option anew each time."""


def _terminate(_signal: int, _frame: object) -> NoReturn:
    # As an exception, so that temporaries are removed on the way out.
    raise SystemExit(128 + signal.SIGTERM)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, but end at once where a module is being imported.

    Half a module is no state to go on from, and NumPy's import even swallows the exception.
    """
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        frame = frame.f_back
    raise KeyboardInterrupt


def _usage_message(error: TyperException) -> str:
    message = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    if not message or context is None:
        return message
    return f"{message.rstrip('.')}{'' if message.endswith('?') else '.'} See {context.command_path} --help."


def _fail(error: BaseException, message: str, code: int, details: dict[str, object]) -> int:
    if "--debug" in sys.argv:
        traceback.print_exception(error)
    reported = isinstance(error, PeerError) and error.explained  # by the process it names
    if "--json" in sys.argv and not reported:
        with suppress(OSError):  # what cannot be written may be standard output itself
            typer.echo(json.dumps(details, ensure_ascii=False))
    if message:  # empty where typer has shown the help instead
        say(f"error: {message}")
    for more in error.more if isinstance(error, PmrlError) else ():
        say(f"error: {more}")
    return code


def _fail_unexpected(error: Exception) -> int:
    """Print what a library raised: short of memory or disk, or a bug of pmrl."""
    code, kind = 5, "resource"
    if is_out_of_memory(error):
        from pmrl_cli.files.durable.scratch import available_memory

        found = " ".join(str(error).split())[:160] or "an allocation failed"
        free = f"{available_memory() / 2**20:.0f}M"
        message = f"not enough memory: {found}, with {free} available. Pass a --max-memory well below, or free some."
    elif isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        message = (
            f"cannot read or write: {where}{error.strerror or error}, expected a disk and permissions that allow it. "
            "Check the path, its permissions and the room on the disk."
        )
    else:
        code, kind = 70, "internal"
        message = f"internal error: {type(error).__name__}: {error}. Please report it (--debug shows the trace)."
    return _fail(error, message, code, {"error": code, "kind": kind, "message": message})


def run() -> NoReturn:
    """Run the command line and leave with its exit code."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `pmrl ... | head` ends as any filter does
    signal.signal(signal.SIGTERM, _terminate)
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:  # file names need not be UTF-8, and JSON writes such bytes as escapes too
        reconfigure(errors="backslashreplace")
    try:
        signal.signal(signal.SIGINT, _interrupt)
        code = command_line(standalone_mode=False) or 0
        sys.stdout.flush()
    except KeyboardInterrupt:  # typer turns most of them into this code
        code = 128 + signal.SIGINT
    except PmrlError as error:
        code = _fail(error, str(error), error.exit_code, error.as_dict())
    except TyperException as error:
        message = _usage_message(error)
        code = _fail(error, message, 2, {"error": 2, "kind": "usage", "message": message})
    except Exception as error:  # noqa: BLE001 - the one boundary
        code = _fail_unexpected(error)
    try:
        sys.stdout.flush()
    except OSError:  # printed already; the interpreter would try once more as it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # nothing is left to be put away
    gc.freeze()  # the interpreter would look through all that libraries hold before it ends: .3 s
    sys.exit(code if isinstance(code, int) else os.EX_OK)
