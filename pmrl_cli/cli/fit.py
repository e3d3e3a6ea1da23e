"""``pmrl fit``: feature files in, a model folder out."""

from __future__ import annotations

import math
import os
import platform
import shutil
import signal
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from pmrl_cli.cli import compute, options
from pmrl_cli.cli.options import Join, OnBad, Precision, option
from pmrl_cli.errors import UsageError
from pmrl_cli.objectives import REGISTRY

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


def _settings(pairs: list[str]) -> dict[str, float]:
    settings: dict[str, float] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        try:
            settings[key] = float(value)
        except ValueError:
            settings[key] = math.nan
        if not math.isfinite(settings[key]):
            what = "--set is not KEY=NUMBER"
            raise UsageError(
                what, found=repr(pair), expected="for example temperature=0.1", next_step="Mend that --set."
            )
    return settings


def command(
    files: options.Files,
    output: Annotated[
        Path, option("-o", "--output", help="Model folder; an earlier model there is replaced when done.")
    ] = Path("model"),
    objective: Annotated[
        str, option("--objective", help=f"One of {', '.join(REGISTRY)}, gcca, mcca, auto.")
    ] = "pmrl",
    set: Annotated[
        list[str] | None, option("--set", metavar="KEY=NUMBER", help="A setting of the objective; repeatable.")
    ] = None,
    adapter: Annotated[
        str,
        option(
            "--adapter", help="linear; mlp: with a residual MLP; kernel: the same on nearness to instances; auto."
        ),
    ] = "auto",
    dim: Annotated[
        int | None, option("--dim", help="Dimension of the shared space, then of one member (default: chosen).")
    ] = None,
    steps: Annotated[
        int | None, option("--steps", help="Most training steps; 0 keeps the closed-form start.")
    ] = None,
    batch_size: Annotated[int | None, option("--batch-size", help="Instances a step.")] = None,
    learning_rate: Annotated[float, option("--learning-rate", help="Of AdamW.")] = 5e-4,
    dropout: Annotated[
        float | None, option("--dropout", help="Share of input scores zeroed in training (default: chosen).")
    ] = None,
    mixup: Annotated[
        float, option("--mixup", help="A: mix instances in a proportion drawn from Beta(A, A) (FuseMix); 0: not.")
    ] = 0.0,
    mispaired: Annotated[
        float, option("--mispaired", help="Share known to be mispaired; as many, the most suspect, do not train.")
    ] = 0.0,
    budget: Annotated[
        str | None, option("--budget", metavar="TIME", help="Stop the search after it, as in 90s, 5m, 2h.")
    ] = None,
    patience: Annotated[int, option("--patience", help="Evaluations without gain before stopping.")] = 8,
    refit: Annotated[
        bool | None,
        option("--refit/--no-refit", help="Train again with the validation instances (default: if few)."),
    ] = None,
    validation: Annotated[float, option("--validation", help="Share held out to choose and stop.")] = 0.2,
    test: Annotated[float, option("--test", help="Share kept unseen for evaluate and diagnose.")] = 0.1,
    labels: options.LabelsFile = None,
    group: Annotated[
        str | None, option("--group", help="Side column; a group stays on one side of the split.")
    ] = None,
    split_column: Annotated[
        str | None, option("--split-column", help="Side column that says train, validation or test.")
    ] = None,
    exclude: Annotated[
        Path | None,
        option("--exclude", help="List of ids (and modalities) that neither train nor choose: diagnose --suspects."),
    ] = None,
    join: options.JoinOption = Join.outer,
    on_bad: options.OnBadOption = OnBad.error,
    id_column: options.IdColumn = None,
    feature_column: options.FeatureColumn = None,
    null: options.NullPaths = False,
    seed: options.Seed = 0,
    device: options.Device = "auto",
    precision: options.PrecisionOption = Precision.auto,
    threads: options.Threads = None,
    max_memory: options.MaxMemory = None,
    restart: Annotated[bool, option("--restart", help="Discard an unfinished run of this output.")] = False,
    force: options.Force = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    config: options.ConfigFile = None,
) -> None:
    """Train adapters that align the modalities, and print the model folder.

    Interrupted (Ctrl-C, SIGTERM), it saves its state beside the output and leaves with 130 or 143; the same command
    continues, bit for bit. Several processes fit together: torchrun --nproc-per-node 4 -m pmrl_cli fit ...
    """
    import torch

    from pmrl_cli.aligner import Aligner
    from pmrl_cli.cli.progress import FitProgress
    from pmrl_cli.files.artifacts.model import FORMAT
    from pmrl_cli.files.artifacts.suspects import read_exclusions
    from pmrl_cli.files.durable.atomic import check_replaceable, to_json
    from pmrl_cli.files.durable.locks import held
    from pmrl_cli.files.join.dataset import read_dataset
    from pmrl_cli.files.join.specs import check_not_input
    from pmrl_cli.training.loop import Interrupted
    from pmrl_cli.world import joined

    compute.prepare(threads)
    check_replaceable(output, kind=FORMAT, force=force)
    paths = options.expand_files(files, null=null)
    check_not_input(output, paths)
    unfinished = output.with_name(f"{output.name}.unfinished")
    stop = _StopRequest()
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    started = time.time()
    memory = options.parse_bytes(max_memory)
    try:
        with joined(cuda=device != "cpu" and torch.cuda.is_available()) as world, ExitStack() as stack:
            aligner = Aligner(
                device=device,
                objective=objective,
                objective_settings=_settings(set or []),
                adapter=adapter,
                dim=dim,
                steps=steps,
                batch_size=batch_size,
                learning_rate=learning_rate,
                dropout=dropout,
                mixup=mixup,
                mispaired=mispaired,
                budget=options.parse_seconds(budget),
                patience=patience,
                refit=refit,
                validation=validation,
                test=test,
                group=group,
                split_column=split_column,
                precision=precision.value,
                seed=seed,
            )
            leads = world.rank == 0  # the others hold no file and say nothing
            progress = stack.enter_context(FitProgress(quiet=quiet or not leads, verbose=verbose))
            if leads:
                stack.enter_context(held(unfinished))
            states = [path for path in sorted(unfinished.iterdir()) if path.is_dir()] if leads else []
            if restart:
                for path in states:
                    shutil.rmtree(path)
            elif states:
                progress.note(f"continuing the run in {unfinished}")
            dataset = read_dataset(
                paths,
                join=join.value,
                on_bad=on_bad.value,
                id_column=id_column,
                feature_column=feature_column,
                labels=labels,
                max_memory=memory,
            )
            progress.dataset(dataset)
            excluded = None
            if exclude is not None:
                excluded = read_exclusions(exclude, id_column).mask(dataset)
                instances = int(excluded.any(axis=1).sum())
                progress.note(f"note: {int(excluded.sum()):,} vectors of {instances:,} instances are on {exclude}.")
            if "split" in dataset.columns and split_column is None:
                progress.note("note: the side column 'split' is not followed; --split-column split would do so.")

            def stage(name: str) -> None:
                stop.training = name == "training"
                progress.stage(name)

            aligner.fit(
                dataset,
                max_memory=memory,
                exclude=excluded,
                checkpoint=unfinished,
                stage=stage,
                report=progress.evaluation,
                should_stop=stop.asked,
                world=world,
            )
            stop.training = False
            if bool(world.sum(torch.tensor(float(stop.asked())))):  # during the last step
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
                "processes": world.size,
                "command": sys.argv[1:],
            }
            reading = {
                "join": join.value,
                "on_bad": on_bad.value,
                "id_column": id_column,
                "feature_column": feature_column,
            }
            aligner.save(output, force=force, run=run, reading=reading)
            for path in [path for path in unfinished.iterdir() if path.is_dir()]:
                shutil.rmtree(path, ignore_errors=True)  # the model is whole: what stays, the next fit takes away
    except Interrupted:
        progress.note(f"interrupted: state saved in {unfinished}; the same command continues")
        raise typer.Exit(128 + (stop.signal or signal.SIGINT)) from None
    progress.result(aligner.texts)
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
