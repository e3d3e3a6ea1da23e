"""``pmrl fit``: feature files in, a model folder out."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import sys
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from pmrl_cli.cli import compute, options
from pmrl_cli.cli.options import flattened, option, switch
from pmrl_cli.data.read_options import ReadOptions
from pmrl_cli.train.settings import FitSettings

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
    began = time.monotonic()
    import torch

    from pmrl_cli.aligner import Aligner
    from pmrl_cli.cli.progress import FitProgress
    from pmrl_cli.data.links import sentences_of
    from pmrl_cli.data.repeats import with_hashes
    from pmrl_cli.files.artifacts.model import FORMAT
    from pmrl_cli.files.artifacts.suspects import read_exclusions
    from pmrl_cli.files.durable.atomic import check_replaceable, to_json
    from pmrl_cli.files.durable.locks import held
    from pmrl_cli.files.join.dataset import read_dataset
    from pmrl_cli.files.join.specs import check_not_input
    from pmrl_cli.fit.context import Hooks
    from pmrl_cli.process_group import process_group
    from pmrl_cli.train.loop import Interrupted
    from pmrl_cli.train.run import needs_of

    compute.prepare(computing.threads)
    check_replaceable(output, kind=FORMAT, force=force)
    paths = options.expand_files(files, null=null)
    check_not_input(output, paths)
    unfinished = output.with_name(f"{output.name}.unfinished")
    stop = _StopRequest()
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    started = time.time()
    try:
        with (
            process_group(cuda=computing.device != "cpu" and torch.cuda.is_available()) as processes,
            ExitStack() as stack,
        ):
            aligner = Aligner(device=computing.device, **vars(settings))
            leads = processes.rank == 0  # the others hold no file and say nothing
            progress = stack.enter_context(FitProgress(quiet=quiet or not leads, verbose=verbose))
            if leads:
                stack.enter_context(held(unfinished))
            states = [path for path in sorted(unfinished.iterdir()) if path.is_dir()] if leads else []
            if restart:
                for path in states:
                    shutil.rmtree(path)
            elif states:
                progress.note(f"continuing the run in {unfinished}")
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

            def stage(name: str) -> None:
                stop.training = name == "training"
                progress.stage(name)

            aligner.fit(
                dataset,
                max_memory=reading.max_memory,
                exclude=excluded,
                checkpoint=unfinished,
                hooks=Hooks(stage, progress.evaluation, stop.asked, progress.candidate, began),
                processes=processes,
            )
            stop.training = False
            if bool(processes.all_reduce(torch.tensor(float(stop.asked())))):  # during the last step
                raise Interrupted
            if not leads:
                return
            run = {
                "seconds": round(time.time() - started, 3),
                "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
                "host": platform.node(),
                "python": platform.python_version(),
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
                "cores": os.cpu_count(),
                "processes": processes.size,
                "command": sys.argv[1:],
            }
            aligner.save(output, force=force, run=run, reading=reading.as_settings())
            for path in [path for path in unfinished.iterdir() if path.is_dir()]:
                shutil.rmtree(path, ignore_errors=True)  # the model is whole: what stays, the next fit takes away
    except Interrupted:
        progress.note(f"interrupted: state saved in {unfinished}; the same command continues")
        raise typer.Exit(128 + (stop.signal or signal.SIGINT)) from None
    for note in aligner.notes:
        progress.note(f"note: {note}")
    progress.result(aligner.texts, output)
    if json:
        import json as json_module

        typer.echo(
            to_json(
                {"schema": "pmrl.fit/1", "model": str(output), **json_module.loads(aligner.texts["metrics.json"])}
            ),
            nl=False,
        )
    else:
        typer.echo(str(output))
