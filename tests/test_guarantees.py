"""The documentation names tests that there are, in the files that hold them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = {path.relative_to(ROOT / "tests").as_posix(): path.read_text("utf-8") for path in ROOT.glob("tests/**/*.py")}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def holding(name):
    """The texts of the files of this name, in whatever folder."""
    return [text for path, text in FILES.items() if f"/{path}".endswith(f"/{name.removeprefix('tests/')}")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_test_that_a_page_names_is_there(page):
    text = page.read_text(encoding="utf-8")
    modules = {Path(path).stem for path in FILES}  # ``python -m tests.test_readme``
    named = set(re.findall(r"\btest_\w+\b(?!\.py|\w)", text))
    assert {name for name in named if not any(f"def {name}(" in one for one in FILES.values())} <= modules
    assert {name for name in re.findall(r"(?:\w+/)*test_\w+\.py", text) if not holding(name)} == set()
    for name, tests in re.findall(r"((?:\w+/)*test_\w+\.py)`?: `?(test_\w+(?:`?, `?test_\w+\b(?!\.py))*)", text):
        for one in re.findall(r"test_\w+", tests):
            assert any(f"def {one}(" in held for held in holding(name)), f"{name}: {one}"
