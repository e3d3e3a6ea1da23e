"""``pmrl compare``: several objectives on the same data, one table."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pmrl_cli.cli import compute, options
from pmrl_cli.cli.messages import say
from pmrl_cli.cli.options import flattened, option, without
from pmrl_cli.data.read_options import ReadOptions
from pmrl_cli.errors import Place, UsageError
from pmrl_cli.train.settings import FitSettings

if TYPE_CHECKING:
    from pmrl_cli.aligner import Aligner
    from pmrl_cli.data.dataset import Dataset

__all__ = ["command"]

RUNS = "runs"


@flattened
def command(
    files: options.Files,
    output: Annotated[Path, option("-o", "--output", help="Folder of the table and the runs; runs there are kept.")],
    *,
    objective: Annotated[
        str, option("--objective", metavar="A,B,...", help="Objectives; others are tested against the first.")
    ] = "pmrl,infonce,gcca",
    seeds: Annotated[
        int, option("--seeds", metavar="N", min=1, help="Fits of each objective, each with a split of its own.")
    ] = 5,
    settings: Annotated[FitSettings, without("objective", "seed", "objective_settings")],
    reading: ReadOptions,
    computing: compute.ComputeOptions,
    null: options.NullPaths = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    config: options.ConfigFile = None,
) -> None:
    """Fit several objectives on the same splits, and print one table of what they reach on unseen instances.

    Mean and standard deviation over seeds, and for every objective but the first the difference in mean reciprocal
    rank, paired over instances and seeds. The table is written as table.md, table.csv and table.tex. A run that is in
    the folder already, of the same data and settings, is not made again: interrupted, the same command continues.

    Example: pmrl compare features/*.h5 --objective pmrl,infonce,gcca --seeds 3 -o compared
    """
    names = [name.strip() for name in objective.split(",") if name.strip()]
    if len(set(names)) < 2 or len(set(names)) < len(names):
        raise UsageError(
            what="nothing to compare",
            found=f"--objective {objective}",
            expected="two objectives or more, each once",
            next_step="Name them as in --objective pmrl,infonce.",
        )
    paths = options.expand_files(files, null=null)
    options.check_inputs(paths)
    from pmrl_cli.aligner import Aligner
    from pmrl_cli.comparison import compared, to_csv, to_latex, to_markdown
    from pmrl_cli.files.durable.atomic import to_json
    from pmrl_cli.files.join.dataset import read_dataset
    from pmrl_cli.files.join.items import check_not_input

    compute.prepare(computing.threads)
    check_not_input(output, paths)
    _check_folder(output)
    asked = [replace(settings, objective=name, seed=seed) for name in names for seed in range(seeds)]
    aligners = [Aligner(device=computing.device, **vars(one)) for one in asked]  # refused before anything is read
    dataset = read_dataset(paths, reading)
    runs = [_kept_or_made(aligner, dataset, output / RUNS, quiet=quiet) for aligner in aligners]
    rows = compared(runs, names)
    for name, text in (("table.md", to_markdown(rows)), ("table.csv", to_csv(rows)), ("table.tex", to_latex(rows))):
        (output / name).write_text(text, encoding="utf-8")
    if json:
        typer.echo(to_json({"schema": "pmrl.compare/1", "output": str(output), "objectives": rows}), nl=False)
    else:
        typer.echo(to_markdown(rows), nl=False)


def _check_folder(output: Path) -> None:
    if output.exists() and not (output.is_dir() and (not any(output.iterdir()) or (output / RUNS).is_dir())):
        raise UsageError(
            what="output is not of compare",
            at=Place(str(output)),
            found="something else",
            expected="no such folder, an empty one, or one that compare wrote",
            next_step="Name another with -o.",
        )


def _kept_or_made(aligner: Aligner, dataset: Dataset, folder: Path, *, quiet: bool) -> dict[str, Any]:
    """Return a run: the one that is kept, if it was made of the same, else one made now and kept."""
    import json

    from pmrl_cli import __version__
    from pmrl_cli.comparison import fingerprint, run_of
    from pmrl_cli.files.durable.atomic import atomic_file, to_json

    settings = aligner.settings
    of = fingerprint(settings.as_dict(), dataset, __version__)
    path = folder / f"{settings.objective}-{settings.seed}.json"
    if path.is_file():
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            if kept["of"] == of:
                return dict(kept["run"])
        except (ValueError, KeyError, TypeError):
            pass  # cut short or not written by pmrl: made again
    made = run_of(aligner, dataset)
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as temporary:
        temporary.write_text(to_json({"of": of, "run": made}), encoding="utf-8")
    if not quiet:
        say(f"{settings.objective} seed {settings.seed}: MRR {made['MRR']:.3f}")
    return made
