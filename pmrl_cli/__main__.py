"""``python -m pmrl_cli`` is ``pmrl``."""

from pmrl_cli.cli.main import run

run()
