"""A page that several modules read, and pages and files of some figures alone."""

import pytest

from tests.report.sample import sample


@pytest.fixture(scope="session")
def page():
    from pmrl_cli.report import render

    return render(sample())


@pytest.fixture
def drawn(monkeypatch):
    """Have pages and files show some figures alone: drawing them all takes a second or two."""
    from pmrl_cli.report import page as page_module

    return lambda *figures: monkeypatch.setattr(page_module, "_PICTURES", figures)
