"""What a fit writes beside the model while it runs: a log of JSON lines, and events for TensorBoard."""

from __future__ import annotations

import json
import math
import time
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from pmrl_cli.errors import Place, UsageError

if TYPE_CHECKING:
    from pmrl_cli.train.progress import Progress

__all__ = ["FitLog"]


class FitLog:
    """Writes each evaluation as it comes; a context manager.

    Args:
        path: file that JSON lines are added to: time (UTC), candidate, step, mrr, r1, share, loss, those that
            there are.
        tensorboard: folder of event files, a chart for each number and a run for each candidate.

    Raises: UsageError for a path that cannot be written, or if the package tensorboard is not installed.
    """

    def __init__(self, path: Path | None, tensorboard: Path | None) -> None:
        if tensorboard is not None and find_spec("tensorboard") is None:
            raise UsageError(
                what="--tensorboard needs more than is installed",
                found="no tensorboard",
                expected="the extra 'tensorboard'",
                next_step="Install it with: pip install 'pmrl-cli[tensorboard]'.",
            )
        self._path, self._folder = path, tensorboard
        self._open = ExitStack()
        self._file: TextIO | None = None
        self._writers: dict[str, Any] = {}

    def __enter__(self) -> Self:
        if self._path is not None:
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._open.enter_context(self._path.open("a", encoding="utf-8"))
            except OSError as error:
                raise UsageError(
                    what="--log cannot be written",
                    at=Place(str(self._path)),
                    found=error.strerror or "an I/O error",
                    expected="a file that can be added to",
                    next_step="Name another file after --log.",
                ) from None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def evaluation(self, line: Progress) -> None:
        """Write one evaluation."""
        numbers = {"mrr": line.mrr, "r1": line.r1, "share": line.share, "loss": line.loss}
        if self._file is not None:
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            known = {name: value for name, value in numbers.items() if not math.isnan(value)}
            said = {"time": now, "candidate": line.stage, "step": line.step, **known}
            print(json.dumps(said, allow_nan=False), file=self._file, flush=True)
        if self._folder is not None:
            writer = self._writer(line.stage)
            for name, value in numbers.items():
                if not math.isnan(value):
                    writer.add_scalar(name, value, line.step)
            writer.flush()

    def _writer(self, stage: str) -> Any:  # noqa: ANN401 - of torch, imported when it is used
        if stage not in self._writers:
            from torch.utils.tensorboard import SummaryWriter

            assert self._folder is not None
            writer = SummaryWriter(str(self._folder / stage.replace(" ", "-").replace("/", "-")))
            self._open.callback(writer.close)
            self._writers[stage] = writer
        return self._writers[stage]
