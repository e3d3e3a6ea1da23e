"""docs/recipes.md shows a grid search that runs as it is written."""

import re
from pathlib import Path

import pytest

RECIPE = re.compile(r"(?<=<!-- sklearn -->\n```python\n).*?(?=```)", re.DOTALL)


def test_the_grid_search_of_the_page_runs_and_prefers_the_dimension_of_the_data(capsys):
    pytest.importorskip("sklearn")
    text = (Path(__file__).parents[2] / "docs" / "recipes.md").read_text(encoding="utf-8")
    exec(compile(RECIPE.search(text)[0], "docs/recipes.md", "exec"), {"__name__": "recipe"})
    assert capsys.readouterr().out.startswith("{'dim': 4} ")
