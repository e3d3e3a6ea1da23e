"""How a fit shows where it is: a live bar on a terminal, plain lines elsewhere, nothing when quiet."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from pmrl_cli.cli.messages import broken_at_words, say
from pmrl_cli.cli.time_left import TimeLeft
from pmrl_cli.report.wording import number_text

if TYPE_CHECKING:
    from pmrl_cli.data.dataset import Dataset
    from pmrl_cli.train.progress import Progress as Evaluation
    from pmrl_cli.train.progress import Schedule

__all__ = ["FitProgress"]

PLAIN_SECONDS = 10.0
"""Off a terminal, evaluations are shown at most this often unless --verbose."""


class FitProgress:
    """Progress of one fit on standard error.

    Args:
        quiet: show nothing.
        verbose: off a terminal, show every evaluation.
    """

    def __init__(self, *, quiet: bool, verbose: bool) -> None:
        self._quiet = quiet
        self._verbose = verbose
        self._live = not quiet and sys.stderr.isatty()
        self._last = -math.inf
        self._best = -math.inf
        self._candidate = ""
        self._time = TimeLeft()
        console = Console(stderr=True)
        bar = (BarColumn(bar_width=None),) if console.width >= 100 else ()
        count = (MofNCompleteColumn(), TimeElapsedColumn())
        columns = (SpinnerColumn(), TextColumn("{task.description}"), *bar, *count)
        self._bar = Progress(*columns, console=console, transient=True, disable=not self._live)
        self._task = self._bar.add_task("reading", total=None, visible=self._live)

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def note(self, text: str) -> None:
        """Show one line."""
        if self._quiet:
            return
        if self._live:
            self._bar.console.print(broken_at_words(text), highlight=False, markup=False, soft_wrap=True)
        else:
            say(text)

    def dataset(self, dataset: Dataset) -> None:
        """Show what was read."""
        counts = dataset.present.sum(axis=0)
        each = ", ".join(
            f"{f.name} {f.dim}d x {count:,}" for f, count in zip(dataset.modalities, counts, strict=True)
        )
        self.note(f"{len(dataset):,} instances: {each}")
        for sentence in dataset.notes:
            self.note(f"note: {sentence}")

    def stage(self, name: str) -> None:
        """Show what is being done before training."""
        if self._live:
            self._bar.update(self._task, description=name, refresh=True)
        elif self._verbose:
            self.note(name)

    def candidate(self, number: int, count: int, name: str) -> None:
        """Show which candidate runs."""
        self._time.candidate(number, count)
        self._candidate = f"candidate {number} of {count}: "
        if self._verbose and not self._live:
            self.note(f"{self._candidate}{name}")

    def evaluation(self, line: Evaluation, plan: Schedule) -> None:
        """Show an evaluation."""
        better = line.mrr > self._best
        if better:
            self._best = line.mrr
        loss = "" if math.isnan(line.loss) else f"  loss {line.loss:.3f}"
        # A refit is of what was chosen, and evaluated by nothing.
        text = f"{'' if math.isnan(line.mrr) else self._candidate}{line.stage}{loss}"
        if not math.isnan(line.mrr):
            text += f"  held-out MRR {number_text(line.mrr)}{' *' if better else ''}"
        left = self._time.evaluation(line.step, plan.steps, evaluated=not math.isnan(line.mrr))
        if left is not None:
            text += f"  about {left:.0f} s left"
        if self._live:
            self._bar.update(self._task, description=text, completed=line.step, total=plan.steps, refresh=True)
            return
        now = time.monotonic()
        if self._verbose or now - self._last > PLAIN_SECONDS:
            self._last = now
            self.note(f"step {line.step} of at most {plan.steps}  {text}" if plan.steps else text)

    def result(self, texts: dict[str, str], model: Path) -> None:
        """Show what the fit reached on validation, what was chosen, and what to do next."""
        m = json.loads(texts["metrics.json"])
        counts = " / ".join(f"{m[f'instances.{part}']:,}" for part in ("train", "validation", "test"))
        self.note(f"split {m['split']}: {counts} (train / validation / test)")
        parts = [
            f"held-out MRR {number_text(m['held_out.mrr'])} (chance {number_text(m['held_out.chance'])}, "
            f"{m['held_out.ranked']:,} instances)",
            f"chosen: {m['chosen']}",
            *([m["budget"]] if m["budget"] else []),
            f"next: pmrl diagnose FILES --model {model}",
        ]
        self.note(" · ".join(parts))
