"""Messages are one line in a log, and on a terminal they are broken at words."""

import os
import sys

from pmrl_cli.cli.messages import broken_at_words
from pmrl_cli.errors import named

TEXT = "error: too few modalities: sample_data/features/left-half-of-the-digit.h5: 1 (left), expected at least 2."


def test_a_message_in_a_log_is_one_line():
    assert broken_at_words(TEXT) == TEXT


def test_a_message_on_a_terminal_is_broken_at_words_alone(monkeypatch):
    leader, follower = os.openpty()
    with os.fdopen(leader), os.fdopen(follower, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        monkeypatch.setenv("COLUMNS", "50")
        lines = broken_at_words(TEXT).splitlines()
    assert len(lines) > 1
    assert " ".join(line.strip() for line in lines) == TEXT
    assert "  sample_data/features/left-half-of-the-digit.h5:" in "\n".join(lines)


def test_ids_in_a_list_are_cut():
    assert named(["short", "x" * 100]) == f"'short', '{'x' * 39}…'"
