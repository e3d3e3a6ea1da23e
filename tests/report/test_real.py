"""The page and the documentation of a real diagnosis say of its numbers what they are."""

from pathlib import Path

import numpy as np
import pytest

from pmrl_cli.diagnosis import diagnose_state, notes, state_of
from pmrl_cli.report import geometry, render
from tests.simulate import simulate

DOCS = Path(__file__).parents[2] / "docs" / "diagnose.md"


@pytest.fixture(scope="module", params=[40, 120])
def result(request):
    data = simulate(request.param, 2, 8)
    return diagnose_state(state_of(data), data, inputs={"scope": "all"}).result


def test_the_page_counts_the_instances_of_a_similarity_matrix(result, drawn):
    drawn(geometry.similarity)
    (matrix,) = (np.asarray(one) for one in result["plot"]["similarity"].values())
    assert f"Cosines between {len(matrix)} instances" in render(result, notes())


def test_intervals_of_remedies_are_normal_as_documented(result):
    section = DOCS.read_text(encoding="utf-8").split("## What would help (`remedies`)")[1].split("\n## ")[0]
    assert "normal" in section
    assert "bootstrap" not in section
    methods = {one[key]["ci_method"] for one in result["remedies"] for key in ("before", "after", "delta")}
    assert methods == {"normal"}
