"""The resumable state of a training run: weights, optimiser, history, best weights.

A checkpoint belongs to one (data, settings, start): its fingerprint names them, and another is refused with the
difference named. Written atomically; safetensors and JSON only. Random
numbers need no state: see ``pmrl_cli.train.draws``. Of several processes rank 0 alone reads and writes it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor, nn

from pmrl_cli.errors import Place, StateError
from pmrl_cli.files.artifacts.tensors import read_tensors, write_tensors
from pmrl_cli.files.durable.atomic import atomic_file, remove
from pmrl_cli.files.durable.checksums import check_bytes, check_own_digest, sha256_of, write_with_digest
from pmrl_cli.process_group import SINGLE_PROCESS, ProcessGroup

__all__ = ["Checkpoint", "Saved"]

STATE = "checkpoint.json"


class Optimiser(Protocol):
    """What has a state as torch's optimisers have it."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state."""
        ...

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state."""
        ...


_KEPT = ("fingerprint", "tensors", "step", "since", "sums", "history")
"""What a checkpoint says beside its tensors."""


@dataclass(frozen=True)
class Saved:
    """What a checkpoint held beside the weights: see ``train``."""

    step: int
    since: int
    sums: dict[str, float]
    history: list[dict[str, Any]]
    best: dict[str, Tensor]


class Checkpoint:
    """One file of state in a folder.

    Args:
        folder: where it lives; None keeps no checkpoint.
        fingerprint: what the run depends on, by name; a saved state with another one is refused.
    """

    def __init__(self, folder: Path | None, fingerprint: dict[str, str]) -> None:
        self._folder = folder
        self._fingerprint = fingerprint

    def save(
        self,
        encoder: nn.Module,
        terms: nn.Module,
        optimiser: Optimiser,
        *,
        step: int,
        since: int,
        sums: dict[str, float],
        history: list[dict[str, Any]],
        best: dict[str, Tensor],
    ) -> None:
        """Write the state; an earlier one is replaced only by a complete one."""
        if self._folder is None:
            return
        tensors: dict[str, Tensor] = {}
        for prefix, state in (
            ("encoder", encoder.state_dict()),
            ("terms", terms.state_dict()),
            ("best", best),
        ):
            tensors |= {f"{prefix}.{name}": tensor for name, tensor in state.items()}
        for index, state in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": tensor for name, tensor in state.items()}
        state_file = f"state-{step}.safetensors"
        with atomic_file(self._folder / state_file) as temporary:
            write_tensors(temporary, tensors)
            digest = sha256_of(temporary)
        # The JSON names the tensors it goes with: whichever of the two a crash interrupts, the pair stays whole.
        content = {
            "fingerprint": self._fingerprint,
            "tensors": {"file": state_file, "sha256": digest},
            "step": step,
            "since": since,
            "sums": sums,
            "history": [{k: None if v != v else v for k, v in line.items()} for line in history],
        }
        with atomic_file(self._folder / STATE) as temporary:
            write_with_digest(temporary, content)
        for old in self._folder.iterdir():  # earlier states, and what a killed process left
            if old.name not in (state_file, STATE):
                remove(old)

    def load(
        self, encoder: nn.Module, terms: nn.Module, optimiser: Optimiser, processes: ProcessGroup = SINGLE_PROCESS
    ) -> Saved | None:
        """Restore a saved state into the three and return the rest; None if there is none.

        Raises: StateError if it was saved for other data, settings or start, by another version, or has changed since
            it was saved.
        """
        found = self._read() if processes.rank == 0 else None
        text = processes.broadcast_bytes(
            None if processes.rank else b"" if found is None else json.dumps(found[0]).encode()
        )
        if not text:
            return None
        content = json.loads(text)
        tensors = read_tensors(processes.broadcast_bytes(None if found is None else found[1]), self._folder or Path())

        def under(prefix: str) -> dict[str, Tensor]:
            return {name[len(prefix) + 1 :]: t for name, t in tensors.items() if name.startswith(prefix + ".")}

        try:
            encoder.load_state_dict(under("encoder"))
        except RuntimeError:  # other names, or other sizes
            raise self._of_another_version("tensors of another encoder") from None
        terms.load_state_dict(under("terms"))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in under("optimiser").items():
            index, _, key = name.partition(".")
            state.setdefault(int(index), {})[key] = tensor
        optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
        history = [{k: float("nan") if v is None else v for k, v in line.items()} for line in content["history"]]
        return Saved(content["step"], content["since"], content["sums"], history, under("best"))

    def _of_another_version(self, found: str) -> StateError:
        return StateError(
            what="unfinished run of another version of pmrl",
            at=Place(str(self._folder)),
            found=found,
            expected="one that this version saved",
            next_step="Start again with --restart, or choose another -o.",
        )

    def _read(self) -> tuple[dict[str, Any], bytes] | None:
        """Return what the two files hold, checked."""
        if self._folder is None or not (self._folder / STATE).exists():
            return None
        content = check_own_digest((self._folder / STATE).read_bytes(), self._folder / STATE)
        missing = [name for name in _KEPT if name not in content]
        if missing:
            raise self._of_another_version(f"a checkpoint without {', '.join(missing)}")
        tensor_file = self._folder / content["tensors"]["file"]
        if not tensor_file.exists():  # a removal that was cut short
            return None
        differing = sorted(
            name
            for name in content["fingerprint"].keys() | self._fingerprint.keys()
            if content["fingerprint"].get(name) != self._fingerprint.get(name)
        )
        if differing:
            raise StateError(
                what="unfinished run of another fit",
                at=Place(str(self._folder)),
                found=f"a checkpoint whose {', '.join(differing)} differ",
                expected="the same data and settings",
                next_step="Start again with --restart, or choose another -o.",
            )
        return content, check_bytes(tensor_file, content["tensors"]["sha256"])
