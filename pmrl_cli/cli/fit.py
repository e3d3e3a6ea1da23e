"""``pmrl fit``: feature files in, a model folder out."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pmrl_cli.cli import compute, options
from pmrl_cli.cli.messages import say
from pmrl_cli.cli.options import flattened, option, switch
from pmrl_cli.data.read_options import ReadOptions
from pmrl_cli.train.settings import FitSettings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from pmrl_cli.cli.progress import FitProgress
    from pmrl_cli.data.dataset import Dataset
    from pmrl_cli.train.progress import Progress, Schedule

__all__ = ["command"]


class _StopRequest:
    """Turns SIGINT and SIGTERM into a question the training loop asks; a second signal ends at once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self.training = False

    def __call__(self, number: int, _frame: object) -> None:
        if not self.training or self.signal is not None:
            raise SystemExit(128 + number)
        self.signal = number

    def asked(self) -> bool:
        return self.signal is not None


@flattened
def command(
    files: options.Files,
    output: Annotated[
        Path, option("-o", "--output", help="Model folder; an earlier model there is replaced when done.")
    ] = Path("model"),
    *,
    settings: FitSettings,
    exclude: Annotated[
        Path | None,
        option("--exclude", help="List of ids (and modalities) that neither train nor choose: diagnose --suspects."),
    ] = None,
    reading: ReadOptions,
    computing: compute.ComputeOptions,
    log: Annotated[
        Path | None, option("--log", help="Add each evaluation to this file as it comes, as JSON lines.")
    ] = None,
    tensorboard: Annotated[
        Path | None, option("--tensorboard", help="Folder of events for TensorBoard (the extra 'tensorboard').")
    ] = None,
    null: options.NullPaths = False,
    restart: Annotated[bool, switch("--restart", help="Discard an unfinished run of this output.")] = False,
    force: options.Force = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    config: options.ConfigFile = None,
) -> None:
    """Train adapters that align the modalities, and print the model folder.

    Interrupted (Ctrl-C, SIGTERM), it saves its state beside the output and leaves with 130 or 143; the same command
    continues, bit for bit. Several processes fit together: torchrun --nproc-per-node 4 -m pmrl_cli fit ...

    Example: pmrl fit features/*.h5 --test 0.2 -o runs/a
    """
    # Of the process: all that it has done is to import.
    began, started = time.monotonic() - time.process_time(), time.time()
    paths = options.expand_files(files, null=null)
    options.check_inputs(paths)
    import torch

    from pmrl_cli.aligner import Aligner
    from pmrl_cli.cli.fit_log import FitLog
    from pmrl_cli.cli.progress import FitProgress
    from pmrl_cli.files.artifacts.model import FORMAT
    from pmrl_cli.files.durable.locks import held
    from pmrl_cli.files.durable.outputs import check_replaceable
    from pmrl_cli.files.join.items import check_not_input
    from pmrl_cli.fit.context import Hooks
    from pmrl_cli.process_group import process_group
    from pmrl_cli.train.loop import Interrupted

    compute.prepare(computing.threads)
    check_replaceable(output, kind=FORMAT, force=force)
    check_not_input(output, paths)
    unfinished = output.with_name(f"{output.name}.unfinished")
    stop = _StopRequest()
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    try:
        with (
            process_group(cuda=computing.device != "cpu" and torch.cuda.is_available()) as processes,
            ExitStack() as stack,
        ):
            aligner = Aligner(device=computing.device, **vars(settings))
            leads = processes.rank == 0  # the others hold no file and print nothing
            progress = stack.enter_context(FitProgress(quiet=quiet or not leads, verbose=verbose))
            written = stack.enter_context(FitLog(log, tensorboard) if leads else FitLog(None, None))
            if leads:
                stack.enter_context(held(unfinished))
                _clear_or_continue(unfinished, progress, restart=restart)
            dataset, excluded = _read(paths, reading, settings, exclude, progress)

            def stage(name: str) -> None:
                stop.training = name == "training"
                progress.stage(name)

            def report(line: Progress, plan: Schedule) -> None:
                progress.evaluation(line, plan)
                written.evaluation(line)

            aligner.fit(
                dataset,
                max_memory=reading.max_memory,
                exclude=excluded,
                checkpoint=unfinished,
                hooks=Hooks(stage, report, stop.asked, progress.candidate, began),
                processes=processes,
            )
            stop.training = False
            if bool(processes.all_reduce(torch.tensor(float(stop.asked())))):  # during the last step
                raise Interrupted
            if not leads:
                return
            run = _run_facts(started, processes.size)
            aligner.save(output, force=force, run=run, reading=reading.as_settings())
            for path in _states(unfinished):
                shutil.rmtree(path, ignore_errors=True)  # the model is whole: the next fit removes what stays
    except SystemExit:
        saved = any(path.is_dir() for path in unfinished.iterdir()) if unfinished.is_dir() else False
        kept = f"what was saved is in {unfinished}; the same command continues" if saved else "nothing was saved yet"
        say(f"interrupted: {kept}")
        raise
    except Interrupted:
        progress.note(f"interrupted: state saved in {unfinished}; the same command continues")
        raise typer.Exit(128 + (stop.signal or signal.SIGINT)) from None
    for note in aligner.notes:
        progress.note(f"note: {note}")
    progress.result(aligner.texts, output)
    _print_result(aligner.texts, output, as_json=json)


def _states(unfinished: Path) -> list[Path]:
    """Return the folders of the resumable state of an unfinished run."""
    return [path for path in sorted(unfinished.iterdir()) if path.is_dir()]


def _clear_or_continue(unfinished: Path, progress: FitProgress, *, restart: bool) -> None:
    states = _states(unfinished)
    if restart:
        for path in states:
            shutil.rmtree(path)
    elif states:
        progress.note(f"continuing the run in {unfinished}")


def _read(
    paths: list[str], reading: ReadOptions, settings: FitSettings, exclude: Path | None, progress: FitProgress
) -> tuple[Dataset, npt.NDArray[np.bool_] | None]:
    """Return the data set and which of its vectors are excluded, and print notes on both."""
    from pmrl_cli.data.links import sentences_of
    from pmrl_cli.data.repeats import with_hashes
    from pmrl_cli.files.artifacts.suspects import read_exclusions
    from pmrl_cli.files.join.dataset import read_dataset
    from pmrl_cli.train.objectives import needs_of

    # Of one modality, instances train where the objective takes them alone.
    alone = "unpaired" in needs_of(settings)
    dataset = with_hashes(read_dataset(paths, replace(reading, min_modalities=1) if alone else reading))
    progress.dataset(dataset)
    for sentence in sentences_of(dataset, match=settings.match, group=settings.group):
        progress.note(f"note: {sentence}")
    excluded = None
    if exclude is not None:
        excluded = read_exclusions(exclude, reading.id_column).mask(dataset)
        instances = int(excluded.any(axis=1).sum())
        progress.note(f"note: {int(excluded.sum()):,} vectors of {instances:,} instances are on {exclude}.")
    if "split" in dataset.columns and settings.split_column is None:
        progress.note("note: the side column 'split' is not followed; --split-column split would do so.")
    return dataset, excluded


def _run_facts(started: float, processes: int) -> dict[str, object]:
    """Return times, host and versions, for ``run.json``."""
    import torch

    return {
        "seconds": round(time.time() - started, 3),
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        "host": platform.node(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "processes": processes,
        "command": sys.argv[1:],
    }


def _print_result(texts: Mapping[str, str], output: Path, *, as_json: bool) -> None:
    if not as_json:
        typer.echo(str(output))
        return
    import json

    from pmrl_cli.files.durable.atomic import to_json

    metrics = json.loads(texts["metrics.json"])
    typer.echo(to_json({"schema": "pmrl.fit/1", "model": str(output), **metrics}), nl=False)
