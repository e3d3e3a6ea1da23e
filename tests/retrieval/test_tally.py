"""Scores beyond those of right answers, against a count written as loops over float64 values."""

import numpy as np
import pytest
import torch

from pmrl_cli.retrieval.tally import TIE_BAND, Tally


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (7, 5), (300, 9), (3, 2050), (256, 16)])
@pytest.mark.parametrize("by", [0, 1])
def test_a_tally_counts_what_is_greater_and_what_ties(rows: int, columns: int, by: int) -> None:
    """Of several shapes, either way round."""
    generator = np.random.default_rng(rows + columns)
    scores = generator.integers(-3, 3, (rows, columns)).astype(np.float32)
    own = generator.integers(-3, 3, (rows, columns)[1 - by]).astype(np.float32)
    own[:1] = -5  # all are greater
    tally = Tally(torch.from_numpy(own))
    tally.add(torch.from_numpy(scores), by=by)
    greater, tied = tally.greater_and_tied()
    for i, one in enumerate(own):
        line = scores[i] if by == 1 else scores[:, i]
        assert greater[i] == sum(float(value) > float(one) + TIE_BAND for value in line)
        assert tied[i] == sum(abs(float(value) - float(one)) <= TIE_BAND for value in line)


def test_tiles_add_up() -> None:
    """Whatever tiles a matrix is cut into, in any order and of any size, and for slices of the queries."""
    generator = np.random.default_rng(0)
    scores, own = torch.from_numpy(generator.normal(size=(40, 30)).astype(np.float32)), torch.zeros(40)
    whole, parts = Tally(own), Tally(own)
    whole.add(scores, by=1)
    for row in (slice(25, 40), slice(25)):
        for column in (slice(11), slice(11, 30)):
            parts.add(scores[row, column], row, by=1)
    assert torch.equal(whole.counts, parts.counts)
