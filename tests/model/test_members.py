"""Members side by side: one space whose cosines are the means of theirs."""

import torch

from pmrl_cli.model.members import side_by_side


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
