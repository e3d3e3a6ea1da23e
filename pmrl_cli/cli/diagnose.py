"""``pmrl diagnose``: is it aligned beyond chance, how well, and what is wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pmrl_cli.cli import compute, diagnose_screen, instances, options, reports, space, states, training_screen
from pmrl_cli.cli.messages import say
from pmrl_cli.cli.options import flattened, option
from pmrl_cli.data.read_options import ReadOptions
from pmrl_cli.errors import UsageError

if TYPE_CHECKING:
    from pmrl_cli.diagnosis import Diagnosis, State
    from pmrl_cli.process_group import ProcessGroup

__all__ = ["command", "conclude", "unmet_conditions"]

SHORT = {
    "A": "alignment.A",
    "rho": "alignment.rho",
    "signed": "alignment.signed",
    "AUC": "retrieval.pairwise.AUC",
    "R@1": "retrieval.pairwise.R@1",
    "R@1_standard": "retrieval.pairwise.R@1_standard",
    "MRR": "retrieval.pairwise.MRR",
    "fused.MRR": "retrieval.fused.MRR",
    "label_mAP": "retrieval.pairwise.label_mAP",
}


@flattened
def command(
    files: options.Files,
    asked: space.SpaceOptions,
    *,
    target: Annotated[
        str | None,
        option(
            "--target",
            metavar="COLUMN",
            help="Side column of classes: estimate each modality's information on it.",
        ),
    ] = None,
    partial: Annotated[
        Path | None,
        option("--partial", metavar="STATE", help="Write the state of these instances, for pmrl merge; no report."),
    ] = None,
    shard: options.Shard = None,
    per_instance: Annotated[
        Path | None,
        option("--per-instance", metavar="PARQUET", help="Write one row an instance: rho, agreement, suspicion."),
    ] = None,
    suspects: Annotated[
        Path | None,
        option("--suspects", metavar="CSV", help="Write the instances that look mispaired, for fit --exclude."),
    ] = None,
    drawn: reports.Drawn,
    compare: reports.Compare = None,
    full: reports.Full = False,
    fail_under: space.FailUnder = None,
    fail_on: space.FailOnOption = None,
    reading: ReadOptions,
    computing: compute.ComputeOptions,
    null: options.NullPaths = False,
    seed: options.Seed = 0,
    force: options.Force = False,
    json: options.Json = False,
    quiet: options.Quiet = False,
    config: options.ConfigFile = None,
) -> None:
    """Say whether the modalities are aligned beyond chance, how well, and what is wrong if they are not.

    Chance is what the same vectors give when their pairs are shuffled. A is 0 for shuffled pairs and 1 where all
    modalities of every instance coincide. Given a model alone, show how its fit went.

    Example: pmrl diagnose features/*.h5 --model runs/a --report page.html
    """
    part = _part(shard, partial)
    paths = options.expand_files(files, null=null)
    of_instances: dict[str, object] = {
        "--fail-under": fail_under,
        "--fail-on": fail_on,
        "--per-instance": per_instance,
        "--suspects": suspects,
        "--compare": compare,
    }
    if asked.model is None and space.is_model(paths):
        others = of_instances | {"--partial": partial, "--shard": shard, "--target": target}
        training_screen.run(Path(paths[0]), drawn, others, as_json=json, force=force)
        return
    gates = space.parse_gates(fail_under)
    if partial is not None:
        states.check(
            partial,
            of_instances | {"--report": drawn.report, "--figures": drawn.figures, "--target": target},
            force=force,
        )
    instances.check_outputs(per_instance, suspects, force=force)
    baseline = reports.check(drawn, compare, force=force)
    options.check_inputs(paths, asked.model)
    from pmrl_cli.process_group import process_group

    with process_group() as processes:
        found = space.read_space(paths, reading, asked, computing, quiet=quiet, processes=processes, shard=part)
        digest = _weights_digest(asked.model) if partial is not None else ""
        state = _state_of(found, digest, seed=seed, part=part, processes=processes)
    if processes.rank:
        return
    if partial is not None:
        states.write(state, partial, as_json=json)
        return
    diagnosis = _diagnosis_of(state, found, asked.model, target, {"files": paths, "options": _options_of(reading)})
    result = diagnosis.result
    reports.add_comparison(result, baseline, compare)
    unmet = unmet_conditions(result, gates, fail_on)
    if per_instance is not None or suspects is not None:
        listed = instances.write_tables(found.dataset, diagnosis.mispairs, per_instance, suspects)
        if suspects is not None and not quiet:
            say(f"note: {space.count_text(listed, 'suspect')} in {suspects}")
    reports.write(result, drawn, force=force)
    conclude(result, unmet, as_json=json, full=full)


def _part(shard: str | None, partial: Path | None) -> tuple[int, int] | None:
    part = options.parse_shard(shard)
    if part is not None and partial is None:
        raise UsageError(
            what="--shard without --partial",
            found=f"--shard {shard}",
            expected="a state to write: one shard has no diagnosis",
            next_step=f"Pass --partial {part[0] + 1}.state too, and then type: pmrl merge *.state",
        )
    return part


def _weights_digest(model: Path | None) -> str:
    """Return the digest of a model's weights, by which states of different models do not merge."""
    if model is None:
        return ""
    from pmrl_cli.files.artifacts.model import WEIGHTS
    from pmrl_cli.files.durable.checksums import sha256_of

    return sha256_of(model / WEIGHTS)


def _state_of(
    found: space.Space, digest: str, *, seed: int, part: tuple[int, int] | None, processes: ProcessGroup
) -> State:
    from pmrl_cli.diagnosis import Embedded, StateSampling, state_of

    return state_of(
        found.dataset,
        label=found.label,
        group=found.group,
        match=found.match,
        sampling=StateSampling(seed=seed),
        embedded=Embedded(found.columns, digest),
        shard=part,
        processes=processes,
    )


def _diagnosis_of(
    state: State, found: space.Space, model: Path | None, target: str | None, command: dict[str, list[str]]
) -> Diagnosis:
    """Return the diagnosis of a state, with how the fit of the model went; ``command`` is what read the files."""
    from pmrl_cli.diagnosis import diagnose_state

    training = None
    if model is not None:
        from pmrl_cli.train.history import read_training

        training = read_training(model)
    inputs = {
        "scope": found.instances,
        "model": None if model is None else str(model),
        "leaks": None if found.leaks is None else found.leaks.as_dict(),
        "command": command,
    }
    return diagnose_state(state, found.dataset, training, target=target, inputs=inputs)


def _options_of(reading: ReadOptions) -> list[str]:
    """Return how the files were asked to be read, as options that every command that reads them has."""
    found: list[str] = []
    for name in (
        "join",
        "labels",
        "ids",
        "by_row",
        "on_bad",
        "on_repeat",
        "feature_column",
        "pool",
        "components",
        "id_column",
        "id_pattern",
    ):
        value = getattr(reading, name)
        if value not in (None, False, (), getattr(ReadOptions(), name)):
            flag = f"--{name.replace('_', '-')}"
            values = value if isinstance(value, tuple) else (value,)
            found += [flag] if value is True else [part for one in values for part in (flag, str(one))]
    return found


def unmet_conditions(
    result: Mapping[str, Any], gates: Sequence[space.Gate], fail_on: space.FailOn | None
) -> list[str]:
    """Return a sentence for each gate that is not met, the verdict's severity among them."""
    unmet = space.unmet_gates(result, gates, SHORT)
    verdict = result["verdict"]
    if fail_on is not None and verdict["severity"] in ("fail", fail_on.value):
        unmet.append(f"not met: the verdict is {verdict['code']} [{verdict['severity']}]")
    return unmet


def conclude(result: Mapping[str, Any], unmet: Sequence[str], *, as_json: bool, full: bool) -> None:
    """Print a diagnosis and leave, with 1 if something is not met."""
    if as_json:
        from pmrl_cli.data.json_digest import with_digest

        space.print_json(with_digest(result))
    else:
        diagnose_screen.show(result, full=full)
    space.exit_if_unmet(unmet)
