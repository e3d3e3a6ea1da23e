import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from pmrl_cli.errors import UsageError
from pmrl_cli.fusion import WEIGHT_TEMPERATURE, fuse, weighted_scores
from pmrl_cli.spectrum import RESULTANT_FLOOR, spectrum
from tests.reference import fusion as reference


def unit(*shape, seed=0):
    """Random unit vectors, float64."""
    generator = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(shape, dtype=torch.float64, generator=generator), dim=-1)


def instances(batch=12, modalities=4, dim=6):
    """Unit vectors, absent ones zero, and which are present: at least one of an instance."""
    vectors = unit(batch, modalities, dim)
    present = torch.rand(batch, modalities, generator=torch.Generator().manual_seed(0)) > 0.3
    present[:, 0] |= ~present.any(1)
    return vectors * present[..., None], present


def scores(vectors, present, candidates):
    return weighted_scores(vectors @ candidates.mT, vectors @ vectors.mT, present)


def test_a_score_is_the_cosine_with_the_consensus_that_the_candidate_weights():
    vectors, present = instances()
    candidates = unit(9, 6, seed=1)
    expected = reference.scores(vectors.numpy(), present.numpy(), candidates.numpy(), WEIGHT_TEMPERATURE)
    np.testing.assert_allclose(scores(vectors, present, candidates).numpy(), expected, atol=1e-12)
    single = scores(vectors.float(), present, candidates.float())
    np.testing.assert_allclose(single.numpy(), expected, atol=5e-7)


def test_one_modality_scores_its_cosine_and_none_scores_zero():
    vectors = unit(5, 3, 6)
    candidates = unit(7, 6, seed=1)
    one = torch.tensor([[False, True, False]]).expand(5, 3)
    vectors = vectors * one[..., None]
    torch.testing.assert_close(scores(vectors, one, candidates), vectors[:, 1] @ candidates.mT)
    assert (scores(torch.zeros_like(vectors), torch.zeros_like(one), candidates) == 0).all()


def test_identical_modalities_score_as_one_of_them_does():
    one = unit(5, 1, 6)
    candidates = unit(7, 6, seed=1)
    copies = one.expand(5, 4, 6)
    torch.testing.assert_close(
        scores(copies, torch.ones(5, 4, dtype=torch.bool), candidates), one[:, 0] @ candidates.mT
    )


def test_a_vector_of_length_zero_weighs_nothing():
    vectors = unit(5, 3, 6)
    candidates = unit(7, 6, seed=1)
    vectors[:, 2] = 0
    everything = torch.ones(5, 3, dtype=torch.bool)
    without = everything.clone()
    without[:, 2] = False
    assert torch.equal(scores(vectors, everything, candidates), scores(vectors, without, candidates))
    torch.testing.assert_close(fuse(vectors, everything, "weighted"), fuse(vectors, without, "weighted"))


def test_modalities_that_cancel_have_score_zero_and_no_score_is_nan():
    z = torch.tensor([1.0, 0.0])
    opposite = torch.stack([z, -z])[None]
    everything = torch.ones(1, 2, dtype=torch.bool)
    angles = torch.cat([torch.tensor([0.0]), torch.logspace(-8, 0, 40)])
    candidates = torch.stack([angles.sin(), angles.cos()], 1)
    found = scores(opposite, everything, candidates)[0]
    assert found[0] == 0
    assert found.isfinite().all()
    # From the floor on the consensus is the one of the two that is nearer: the score is |cos|.
    cosine = candidates[:, 0]
    length = torch.tanh(cosine / WEIGHT_TEMPERATURE)
    clear = length > 3 * RESULTANT_FLOOR
    torch.testing.assert_close(found[clear], cosine[clear], rtol=1e-2, atol=0)
    assert (found <= cosine + 1e-6).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_that_vanish_leave_the_nearer_modality_whatever_the_temperature(dtype, monkeypatch):
    monkeypatch.setattr("pmrl_cli.fusion.WEIGHT_TEMPERATURE", 1e-3)  # weights of e^-1000 and less
    vectors = unit(5, 3, 6).to(dtype)
    candidates = vectors[:, 1]
    everything = torch.ones(5, 3, dtype=torch.bool)
    found = scores(vectors, everything, candidates)
    assert found.isfinite().all()
    torch.testing.assert_close(found.diagonal(), torch.ones(5, dtype=dtype))


def test_order_of_modalities_and_rotation_change_no_score():
    vectors, present = instances()
    candidates = unit(9, 6, seed=1)
    found = scores(vectors, present, candidates)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(scores(vectors[:, order], present[:, order], candidates), found)
    rotation = torch.linalg.qr(unit(6, 6, seed=2))[0]
    torch.testing.assert_close(scores(vectors @ rotation, present, candidates @ rotation), found)


def test_a_weighted_vector_is_the_consensus_that_the_leading_direction_weights():
    vectors, present = instances(30)
    expected = reference.fused(vectors.numpy(), present.numpy(), WEIGHT_TEMPERATURE)
    np.testing.assert_allclose(fuse(vectors, present, "weighted").numpy(), expected, atol=1e-12)


def test_a_weighted_vector_leans_away_from_the_modality_that_disagrees():
    shared = unit(50, 1, 16)
    vectors = normalize(shared + 0.5 * unit(50, 4, 16, seed=1), dim=2)
    vectors[:, 3] = unit(50, 16, seed=2)
    everything = torch.ones(50, 4, dtype=torch.bool)
    towards = {f: (fuse(vectors, everything, f) * vectors[:, 3]).sum(1) for f in ("leading", "weighted")}
    assert (towards["weighted"] < towards["leading"]).all()
    alone = normalize(vectors[:, :3].sum(1), dim=1)
    assert (fuse(vectors, everything, "weighted") * alone).sum(1).median() > 0.99


def test_fused_vectors_at_the_edges():
    z, w = torch.eye(3)[:2]
    vectors = torch.stack([torch.stack(v) for v in ([z, z, z], [z, w, w], [z, -z, 0 * z], [w, z, z], [z, z, z])])
    present = torch.tensor([[1, 1, 1], [0, 1, 1], [1, 1, 1], [1, 0, 0], [0, 0, 0]]).bool()
    vectors = vectors * present[..., None]
    # Identical, identical with one missing, cancelling (the first decides), one alone, none.
    expected = torch.stack([z, w, z, w, 0 * z])
    torch.testing.assert_close(fuse(vectors, present, "weighted"), expected, atol=1e-6, rtol=0)


def test_leading_is_the_sign_aware_leading_direction_and_the_default():
    vectors, present = instances()
    expected = spectrum(vectors, present, sign_aware=True).leading_direction
    assert torch.equal(fuse(vectors, present), expected)
    assert torch.equal(fuse(vectors, present, "leading"), expected)


def test_another_fusion_is_refused_with_the_known_ones():
    vectors, present = instances()
    with pytest.raises(UsageError, match=r"unknown fusion: 'mean', expected one of leading, weighted"):
        fuse(vectors, present, "mean")
