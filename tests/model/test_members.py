"""Members side by side: one space whose cosines are the means of theirs."""

import numpy as np
import pytest
import torch

from pmrl_cli.closed_form.projection import Kernel, Projection
from pmrl_cli.encoders.residual import Residual
from pmrl_cli.model.members import Member, row_maps, side_by_side, together
from pmrl_cli.model.reduction import reduced


def test_cosines_side_by_side_are_the_means_of_the_members_and_vectors_stay_unit():
    generator = torch.Generator().manual_seed(0)
    members = [
        torch.nn.functional.normalize(torch.randn(6, 3, d, generator=generator, dtype=torch.float64), dim=2)
        for d in (4, 7, 2)
    ]
    together = side_by_side(members)
    assert together.shape == (6, 3, 13)
    torch.testing.assert_close(together.norm(dim=2), torch.ones(6, 3, dtype=torch.float64))
    cosines = torch.einsum("ikd,jld->ijkl", together, together)
    expected = sum(torch.einsum("ikd,jld->ijkl", m, m) for m in members) / 3
    torch.testing.assert_close(cosines, expected)


def test_one_member_is_left_as_it_is():
    embeddings = torch.eye(3)[None]
    assert side_by_side([embeddings]) is embeddings


def member_of(seed, *, kernel, hidden):
    """A member of two modalities of 6 and 4 columns, in 5 dimensions."""
    rng = np.random.default_rng(seed)

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    def projection(width):
        near = Kernel(normal(8, 3), np.array([0.2], np.float32), normal(4), normal(8, 4)) if kernel else None
        return Projection(normal(width), abs(normal(width)), normal(width), normal(width, 3), kernel, near)

    starts = [torch.from_numpy(normal(4 if kernel else 3, 5)) for _ in range(2)]
    return Member((projection(6), projection(4)), Residual(starts, "ab", hidden=hidden, dropout=0.0).eval())


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("axes", [None, np.linalg.qr(np.random.default_rng(0).normal(size=(10, 10)))[0]])
def test_a_few_rows_in_numpy_are_what_the_members_make_of_them(count, axes):
    members = [member_of(0, kernel=True, hidden=3), member_of(1, kernel=False, hidden=0)][:count]
    axes = None if axes is None else axes[: 5 * count, :4].astype(np.float32)
    rng = np.random.default_rng(2)
    features = [rng.normal(size=(3, width)).astype(np.float32) for width in (6, 4)]
    present = torch.ones(3, 2, dtype=torch.bool)
    expected = together([member.embed([0, 1], features, present) for member in members]).vectors.detach()
    if axes is not None:
        expected = reduced(expected, torch.from_numpy(axes))
    for m, vectors in enumerate(row_maps(members, axes)):
        np.testing.assert_allclose(vectors(features[m]), expected[:, m], atol=1e-6)
