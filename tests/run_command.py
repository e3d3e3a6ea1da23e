"""Runs a command of pmrl in this process on a data set instead of files."""

from __future__ import annotations

import sys
import types

from pmrl_cli.cli.main import command_line


class CommandRunner:
    """Calls ``pmrl COMMAND`` with a stand-in for reading and, if given, for the model.

    ``asked`` holds what the command asked of ``read_dataset`` last.
    """

    def __init__(self, monkeypatch, capsys):
        self._monkeypatch, self._capsys = monkeypatch, capsys
        self.asked = {}

    def __call__(self, command, dataset, *arguments, model=None):
        """Return exit code, standard output and standard error."""

        def read_dataset(files, options):
            self.asked = {"files": files, **vars(options)}
            return dataset

        self._monkeypatch.setattr("pmrl_cli.cli.options.check_inputs", lambda files, model=None: None)
        reading = types.ModuleType("pmrl_cli.files.join.dataset")
        reading.read_dataset = read_dataset
        self._monkeypatch.setitem(sys.modules, "pmrl_cli.files.join.dataset", reading)
        aligner = types.ModuleType("pmrl_cli.aligner")
        aligner.Aligner = model
        self._monkeypatch.setitem(sys.modules, "pmrl_cli.aligner", aligner)
        code = command_line([command, "a.h5", "b.h5", *arguments], standalone_mode=False) or 0
        captured = self._capsys.readouterr()
        return code, captured.out, captured.err
