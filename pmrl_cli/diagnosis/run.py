"""``diagnose``: from one state to every number beside its chance value, the findings and what to do.

Chance is shuffled pairs: the same vectors, mispaired, so that a gap, a cone or a collapse cannot pass for
alignment. Statistics of instances come from all of them; nulls, pairing statistics, dimensions and retrieval from
the reservoir.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pmrl_cli.data.columns import column_of
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.frames import numbers_frame
from pmrl_cli.data.json_digest import with_digest
from pmrl_cli.data.shards import shard_rows
from pmrl_cli.diagnosis.contribution import contribution_section
from pmrl_cli.diagnosis.evidence import SHUFFLES, Evidence
from pmrl_cli.diagnosis.mispairing import Mispairs
from pmrl_cli.diagnosis.rules.verdict import verdict_of
from pmrl_cli.diagnosis.sections import mispairs_of, sections_of
from pmrl_cli.diagnosis.state.accumulate import MOMENTS, RESERVOIR, State
from pmrl_cli.diagnosis.state.header import Header
from pmrl_cli.diagnosis.state.summaries import BINS
from pmrl_cli.process_group import SINGLE_PROCESS, ProcessGroup, gather_arrays
from pmrl_cli.report.wording import ci_text, main_numbers, number_text
from pmrl_cli.retrieval.batches import check_pairs
from pmrl_cli.retrieval.intervals import DRAWS
from pmrl_cli.stats.statistic import plain

__all__ = ["SCHEMA", "Diagnosis", "Embedded", "StateSampling", "diagnose", "diagnose_state", "state_of"]


SCHEMA = "pmrl.diagnose/2"


@dataclass(frozen=True, repr=False)
class Diagnosis:
    """What ``diagnose`` found.

    Args:
        result: the ``pmrl.diagnose/2`` object of ``docs/diagnose.schema.json``: JSON values only.
        mispairs: says how suspect single instances are; None where the modalities do not share a space.
    """

    result: dict[str, Any]
    mispairs: Mispairs | None

    def as_dict(self) -> dict[str, Any]:
        """Return the result with a digest of itself."""
        return with_digest(self.result)

    def to_frame(self) -> Any:  # noqa: ANN401 - of pandas
        """Return every number as a row of a pandas frame: value, chance, low, high, by its path in ``as_dict``."""
        return numbers_frame(self.result)

    def summary(self) -> str:
        """Return a few lines: the verdict, what to do first, and the numbers that matter beside chance."""
        verdict = self.result["verdict"]
        lines = [f"{verdict['code']} [{verdict['severity']}]: {verdict['text']}"]
        lines += [f"first: {finding['advice']}" for finding in verdict["findings"][:1] if finding["advice"]]
        for _, words, number in main_numbers(self.result):
            value, chance = number_text(number["value"]), number_text(number["chance"])
            lines.append(f"{words}: {value} (chance {chance}, 95% CI {ci_text(number['ci'])})")
        return "\n".join(lines)

    def __repr__(self) -> str:
        inputs, verdict = self.result["inputs"], self.result["verdict"]
        shown = f"{verdict['code']}, {', '.join(inputs['modalities'])}, {inputs['instances']:,} instances"
        return f"Diagnosis({shown})"


@dataclass(frozen=True)
class StateSampling:
    """Which instances a state keeps, and the seed of what follows from them.

    Args:
        reservoir: whose vectors it keeps: for retrieval, nulls and dimensions.
        moments: of which it keeps joint moments, at most.
        seed: of the choice of both, of the shuffles and of the bootstrap.
    """

    reservoir: int = RESERVOIR
    moments: int = MOMENTS
    seed: int = 0


@dataclass(frozen=True)
class Embedded:
    """What a model has embedded.

    Args:
        columns: of each modality in its files.
        model: digest of the model; empty where it does not matter.
    """

    columns: tuple[int, ...]
    model: str = ""


def diagnose(
    dataset: Dataset,
    *,
    target: str | None = None,
    **options: Any,  # noqa: ANN401 - those of state_of
) -> Diagnosis:
    """Say whether the modalities of a data set are aligned, how well, and what is wrong.

    Args:
        dataset: modalities; vectors of any length (they are compared by cosine).
        target: side column of classes: estimates what each modality says of it (``contribution_section``).
        **options: those of ``state_of``.

    Raises: DataError unless an instance has two modalities, or for a target without classes; UsageError for an
        unknown column.
    """
    return diagnose_state(state_of(dataset, **options), dataset, target=target)


def state_of(
    dataset: Dataset,
    *,
    group: str | None = None,
    label: str | None = None,
    match: str | None = None,
    sampling: StateSampling = StateSampling(),
    embedded: Embedded | None = None,
    shard: tuple[int, int] | None = None,
    processes: ProcessGroup = SINGLE_PROCESS,
) -> State:
    """Read a data set once.

    Args:
        dataset: modalities, of one dim if they are to be compared by cosine.
        group: side column of groups: independent units of the intervals, kept together in the reservoir, never
            shuffled into each other.
        label: side column of labels: adds label retrieval.
        match: side column; instances of one value show the same thing: each is right for the others, and without
            groups they are what is independent.
        sampling: which instances it keeps, and the seed.
        embedded: what a model has embedded; None where the vectors are as in their files.
        shard: which of how many shards of the instances these are, from 0 on: perhaps none of them has two
            modalities. None: they are all.
        processes: the processes that read a shard each, of a data set that all of them have. Rank 0 gets the state of
            all; the others that of their shard.

    Raises: DataError unless an instance has two modalities; UsageError for an unknown column.
    """
    if shard is None:
        check_pairs(dataset)
    for name in (group, label, match):
        if name is not None:
            column_of(dataset, name)
    header = Header(
        dataset.names,
        dataset.dims,
        dataset.dims if embedded is None else embedded.columns,
        group,
        label,
        sampling.seed,
        sampling.reservoir,
        sampling.moments,
        "" if embedded is None else embedded.model,
        1 if shard is None else shard[1],
        match,
    )
    own = State.of(dataset.part(shard_rows(len(dataset), processes.rank, processes.size)), header)
    others = gather_arrays(processes, own.arrays()) if processes.size > 1 else []  # at rank 0
    for rank, arrays in enumerate(others):
        if rank:
            own.merge(State.from_arrays(header, arrays), name=f"rank {rank}")
    if shard is not None:
        own.shards = np.array([shard[0]], dtype=np.int64)
    return own


def diagnose_state(
    state: State,
    dataset: Dataset | None = None,
    training: Mapping[str, Any] | None = None,
    *,
    target: str | None = None,
    inputs: Mapping[str, Any] | None = None,
) -> Diagnosis:
    """Say what a state, of one pass or merged from several, has seen.

    Args:
        state: what a pass has seen.
        dataset: from which the state was made, or None; if pairs look unpaired, other orders of its rows are tried.
        training: how the model that made the vectors was trained (``pmrl.training/1``), if one did.
        target: side column of classes of the data set: adds the section ``contribution``.
        inputs: what more is known of them: ``scope``, ``model``, ``command`` (options and files that were given, of
            which advice is made) and ``leaks`` (what they share with those that trained the model).
    """
    header, evidence = state.header, Evidence(state, dataset, training)
    sections: dict[str, Any] = {
        "schema": SCHEMA,
        "inputs": {
            "modalities": header.names,
            "dims": dict(zip(header.names, header.dims, strict=True)),
            "columns": dict(zip(header.names, header.columns, strict=True)),
            "counts": {name: int(state.counts[m, m]) for m, name in enumerate(header.names)},
            "instances": state.instances,
            "groups": state.groups,
            "group": header.group,
            "match": header.match,
            "label": header.label,
            "stage": "post" if header.shared else "pre",
            **(inputs or {}),
        },
        "config": {
            "seed": header.seed,
            "reservoir": len(evidence.sample),
            "moments": state.moments.count,
            "shuffles": SHUFFLES,
            "neighbours": 10,
            "bins": BINS,
            "bootstrap": DRAWS,
            "ties": "expected",
        },
        **sections_of(evidence),
        "compare": None,
        "limits": _limits(state),
    }
    if target is not None and dataset is not None:
        sections["contribution"] = contribution_section(dataset, target, header.group, seed=header.seed)
    result = plain(sections)
    result["verdict"] = plain(verdict_of(result).as_dict())
    return Diagnosis(result, mispairs_of(evidence) if header.shared else None)


def _limits(state: State) -> list[str]:
    """Return what this diagnosis cannot say."""
    limits = ["an instance swapped with a near copy of it is not seen", "nothing is known about data unlike these"]
    if len(state.header.names) == 2:
        limits.insert(0, "with two modalities it is not known which of them is wrong")
        limits.insert(1, "swaps within a class are seen only where partners score clearly above near neighbours")
    if state.header.unit is None:
        limits.append("instances are taken as independent: intervals are too narrow if they are not (--group)")
    if state.moments.projected:
        limits.append("second moments are of random projections: the modalities have too many columns together")
    return limits
