"""Commands run in this process."""

import pytest

from pmrl_cli.cli.main import command_line


@pytest.fixture
def run(capsys):
    """Run a command; return its exit code, standard output and standard error."""

    def call(*arguments):
        code = command_line([str(one) for one in arguments], standalone_mode=False) or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
