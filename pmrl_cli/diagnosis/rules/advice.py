"""The command that a finding leads to: made of the files and options that were given, ready to be copied."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

__all__ = ["command_for"]

_LOOK_AT_FILES = {"NO_PAIRING", "SHIFTED_JOIN", "UNRELATED_PAIR", "ODD_ONE_OUT", "TEMPLATES", "TIES", "N_SMALL"}
_LOOK_AT_SUSPECTS = {"MISPAIRS", "MISPAIRED_ROWS"}
_LOOK_AT_TRAINING = {"WEAK", "COLLAPSE", "DIM_COLLAPSE", "SATURATED", "STARVED", "NEG_TEMPERATURE"}
_MEASURE = {"HEALTHY", "CONE", "ONE_WAY"}


def command_for(code: str, result: Mapping[str, Any]) -> str:
    """Return the command that a finding leads to.

    Files that look wrong are inspected, or diagnosed without the model that hides them; suspects are listed; the
    training of a fit that went wrong is shown; all else is for another fit, or measured where nothing is wrong.

    Args:
        code: of the finding.
        result: the diagnosis less its verdict: its ``inputs`` say what was given. Without files the word FILES
            stands for them.
    """
    inputs = result["inputs"]
    given = inputs.get("command") or {"files": ["FILES"], "options": []}
    model = inputs.get("model") or given.get("model")
    with_model = [] if model is None else ["--model", model]
    shared = inputs["stage"] == "post"

    named = [part for name in ("group", "match") if inputs.get(name) for part in (f"--{name}", inputs[name])]

    def line(verb: str, *options: str) -> str:
        columns = [] if verb == "inspect" else named
        return shlex.join(["pmrl", verb, *given["files"], *given["options"], *columns, *options])

    if code in _LOOK_AT_FILES:
        # With a model the question is whether it is the model or the files: the features are asked alone.
        return line("inspect") if model is None or code != "NO_PAIRING" else line("diagnose")
    if code in _LOOK_AT_SUSPECTS and shared:
        # Those that trained too: a list of unseen instances alone changes no fit.
        everyone = [] if model is None else ["--split", "all"]
        return line("diagnose", *with_model, *everyone, "--suspects", "suspects.csv")
    if code in _LOOK_AT_TRAINING and model is not None:
        return shlex.join(["pmrl", "diagnose", model])
    if code in _MEASURE and shared:
        return line("evaluate", *with_model)
    return line("fit", "-o", "runs/aligned" if model is None else "runs/again")
