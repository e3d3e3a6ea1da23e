"""The kernel against SVDs in float64, at its extremes, and where the SVD's own gradient is NaN."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

from pmrl_cli import eigen
from pmrl_cli.spectrum import GAP_WIDTH, leave_one_out_directions, spectrum, subset_spectra
from tests.reference import spectrum as reference

BOTH_SPECTRA = pytest.mark.parametrize("aware", [False, True], ids=["plain", "sign_aware"])


def draw(batch, modalities, dim, *, shared=1.0, seed=0, dtype=torch.float64):
    """Vectors of assorted lengths with something in common, and a mask with at least one modality each."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(batch, modalities, dim, generator=generator, dtype=torch.float64)
    vectors += shared * torch.randn(batch, 1, dim, generator=generator, dtype=torch.float64)
    vectors *= 10 ** (2 * torch.rand(batch, modalities, 1, generator=generator, dtype=torch.float64) - 1)
    present = torch.rand(batch, modalities, generator=generator) < 0.7
    present[torch.arange(batch), torch.randint(modalities, (batch,), generator=generator)] = True
    return vectors.to(dtype), present


def gradient(vectors, present=None, *, sign_aware=False, seed=1):
    """Gradient of a fixed random linear function of all outputs."""
    vectors = vectors.detach().requires_grad_()
    outputs = spectrum(vectors, present, sign_aware=sign_aware)
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.randn(output.shape, generator=generator, dtype=torch.float64) for output in outputs]
    value = sum((output * weight).sum() for output, weight in zip(outputs, weights, strict=True))
    return torch.autograd.grad(value, vectors)[0]


@BOTH_SPECTRA
@pytest.mark.parametrize(("modalities", "dim"), [(1, 3), (2, 2), (3, 1024), (4, 64), (5, 5), (8, 32), (8, 4)])
def test_values_are_those_of_the_svd_of_the_present_columns(modalities, dim, aware):
    vectors, present = draw(40, modalities, dim)
    expected = reference.spectrum(vectors.numpy(), present.numpy(), sign_aware=aware)
    for found, wanted in zip(spectrum(vectors, present, sign_aware=aware), expected, strict=True):
        np.testing.assert_allclose(found, wanted, atol=1e-7)


@BOTH_SPECTRA
@pytest.mark.parametrize(
    ("modalities", "dim"), [(2, 2), (2, 1024), (3, 3), (3, 17), (4, 8), (5, 9), (6, 6), (7, 9), (8, 12)]
)
def test_gradient_is_that_of_finite_differences(modalities, dim, aware):
    vectors, present = draw(2, modalities, dim, seed=modalities)
    vectors = normalize(vectors, dim=-1) * (1 + torch.rand(2, modalities, 1))
    present[0] = True
    vectors.requires_grad_()
    # The regularised gap leaves out (GAP_WIDTH / gap)^2 of the gradient: below rtol at gaps above .03.
    assert torch.autograd.gradcheck(
        lambda v: tuple(spectrum(v, present, sign_aware=aware)),
        vectors,
        rtol=2e-3,
        atol=1e-6,
        fast_mode=dim > 100,
    )


@pytest.mark.parametrize("modalities", [2, 3, 4, 8])
def test_gradient_is_that_of_the_svd_where_that_has_one(modalities):
    vectors, _ = draw(16, modalities, 24, shared=2.0)
    vectors.requires_grad_()
    towards = torch.randn(16, 24, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    columns = normalize(vectors, dim=-1).mT
    u, sigma, _ = torch.linalg.svd(columns, full_matrices=False)  # noqa: TID251 - the independent computation
    sign = (u[..., 0] * columns.sum(-1)).sum(-1, keepdim=True).sign()
    wanted = torch.autograd.grad(
        sigma.square()[:, 1:].sum() + sigma[:, 0].sum() + (sign * u[..., 0] * towards).sum(), vectors
    )
    ours = spectrum(vectors)
    values = ours.singular_values
    found = torch.autograd.grad(
        values.square()[:, 1:].sum() + values[:, 0].sum() + (ours.leading_direction * towards).sum(), vectors
    )
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


@BOTH_SPECTRA
@pytest.mark.parametrize("garbage", [0.0, 1e30, torch.nan, torch.inf])
@pytest.mark.parametrize("modalities", [3, 5])
def test_a_missing_modality_is_a_dropped_column(garbage, modalities, aware):
    vectors, _ = draw(6, modalities, 7)
    present = torch.ones(6, modalities, dtype=torch.bool)
    present[:, 1] = False
    kept = vectors[:, present[0]]
    vectors[:, 1] = garbage
    whole, dropped = spectrum(vectors, present, sign_aware=aware), spectrum(kept, sign_aware=aware)
    torch.testing.assert_close(whole.singular_values[:, :-1], dropped.singular_values, rtol=0, atol=1e-12)
    assert (whole.singular_values[:, -1] == 0).all()
    torch.testing.assert_close(whole.leading_direction, dropped.leading_direction, rtol=0, atol=1e-12)
    torch.testing.assert_close(whole.loadings[:, present[0]], dropped.loadings, rtol=0, atol=1e-12)

    def value(these, mask=None):
        out = spectrum(these, mask, sign_aware=aware)
        return (out.singular_values[:, :2].exp() * torch.tensor([1.0, -2.0])).sum() + out.leading_direction[
            :, 0
        ].sum()

    vectors.requires_grad_()
    kept.requires_grad_()
    (with_mask,) = torch.autograd.grad(value(vectors, present), vectors)
    (without,) = torch.autograd.grad(value(kept), kept)
    torch.testing.assert_close(with_mask[:, present[0]], without, rtol=1e-10, atol=1e-12)
    assert (with_mask[:, 1] == 0).all()


def degenerate(case, modalities, dim=12):
    """(1, K, d) unit vectors at which the spectrum has ties or zeros."""
    basis = torch.eye(dim, dtype=torch.float64)[:modalities]
    one = normalize(torch.arange(1.0, dim + 1, dtype=torch.float64), dim=0)
    vectors = {
        "identical": one.expand(modalities, dim),
        "orthonormal": basis,
        "equicorrelated": normalize(basis + 0.4, dim=-1),
        "duplicate": torch.cat([basis[:1], basis[: modalities - 1]]),
        "opposite": torch.cat([-one[None], one.expand(modalities - 1, dim)]),
        "one zero": torch.cat([torch.zeros(1, dim, dtype=torch.float64), basis[1:] + 0.1]),
        "one left": torch.cat([torch.zeros(modalities - 1, dim, dtype=torch.float64), one[None]]),
        "all zero": torch.zeros(modalities, dim, dtype=torch.float64),
        "almost identical": one + 1e-9 * basis,
        "almost orthonormal": basis + 1e-9 * basis.roll(1, 0),
        "cancelling": torch.cat([basis[:1], -basis[:1], torch.zeros(modalities - 2, dim, dtype=torch.float64)]),
    }[case]
    return vectors[None].clone()


CASES = [
    "identical",
    "orthonormal",
    "equicorrelated",
    "duplicate",
    "opposite",
    "one zero",
    "one left",
    "all zero",
    "almost identical",
    "almost orthonormal",
    "cancelling",
]


@BOTH_SPECTRA
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("modalities", [2, 3, 4, 8])
def test_degenerate_instances_have_finite_gradients_and_unit_directions(case, modalities, dtype, aware):
    vectors = degenerate(case, modalities).to(dtype)
    out = spectrum(vectors, sign_aware=aware)
    length = float(case != "all zero")
    torch.testing.assert_close(out.leading_direction.norm(), torch.tensor(length, dtype=dtype), rtol=1e-5, atol=0)
    present = (vectors[0].norm(dim=-1) > 0).sum()
    torch.testing.assert_close(out.singular_values.square().sum(), present.to(dtype), rtol=1e-5, atol=1e-9)
    found = gradient(vectors, sign_aware=aware)
    # Each output's Jacobian has norm below 1 / SIGMA_FLOOR or 1 / (2 GAP_WIDTH); a NaN or an explosion fails.
    assert found.norm() < 10 * modalities / GAP_WIDTH
    assert (found[vectors.norm(dim=-1) == 0] == 0).all()


@BOTH_SPECTRA
def test_present_vector_of_length_zero_behaves_as_absent(aware):
    vectors, _ = draw(5, 4, 9)
    vectors[:, 2] = 0
    present = torch.ones(5, 4, dtype=torch.bool)
    present[:, 2] = False
    for found, wanted in zip(
        spectrum(vectors, sign_aware=aware), spectrum(vectors, present, sign_aware=aware), strict=True
    ):
        torch.testing.assert_close(found, wanted, rtol=0, atol=1e-14)


@pytest.mark.parametrize("modalities", [2, 3, 4, 8])
def test_known_spectra(modalities):
    identical = spectrum(degenerate("identical", modalities))
    one = degenerate("identical", modalities)[:, 0]
    wanted = torch.zeros(1, modalities, dtype=torch.float64)
    wanted[0, 0] = modalities**0.5
    torch.testing.assert_close(identical.singular_values, wanted, atol=1e-7, rtol=0)
    torch.testing.assert_close(identical.leading_direction, one)
    orthonormal = spectrum(degenerate("orthonormal", modalities)).singular_values
    torch.testing.assert_close(orthonormal, torch.ones_like(wanted))
    vectors = degenerate("equicorrelated", modalities)
    c = (vectors[0, 0] @ vectors[0, 1]).item()
    equicorrelated = spectrum(vectors).singular_values[0]
    wanted = torch.full_like(equicorrelated, (1 - c) ** 0.5)
    wanted[0] = (1 + (modalities - 1) * c) ** 0.5
    torch.testing.assert_close(equicorrelated, wanted)


def test_the_sign_aware_spectrum_distinguishes_an_opposite_modality_and_the_plain_one_does_not():
    agree, oppose = degenerate("identical", 3), degenerate("opposite", 3)
    plain = [spectrum(vectors).singular_values[0, 0].item() for vectors in (agree, oppose)]
    sign_aware = [spectrum(vectors, sign_aware=True).singular_values[0, 0].item() for vectors in (agree, oppose)]
    assert plain == pytest.approx([3**0.5, 3**0.5])
    assert sign_aware == pytest.approx([3**0.5, 2**0.5])  # R splits into the two that agree and the one that does not


def test_one_modality_is_its_own_direction_and_none_is_zero():
    vectors, _ = draw(2, 3, 5)
    present = torch.tensor([[False, True, False], [False, False, False]])
    out = spectrum(vectors, present)
    assert out.singular_values.tolist() == [[pytest.approx(1.0), 0.0, 0.0], [0.0, 0.0, 0.0]]
    torch.testing.assert_close(out.leading_direction[0], normalize(vectors[0, 1], dim=0))
    assert (out.leading_direction[1] == 0).all()
    assert out.loadings.tolist() == [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]]


@BOTH_SPECTRA
def test_rotation_and_length_change_nothing_and_orders_are_kept(aware):
    vectors, present = draw(7, 4, 10)
    out = spectrum(vectors, present, sign_aware=aware)
    q, _ = torch.linalg.qr(torch.randn(10, 10, generator=torch.Generator().manual_seed(3), dtype=torch.float64))
    turned = spectrum(vectors @ q, present, sign_aware=aware)
    torch.testing.assert_close(turned.singular_values, out.singular_values, atol=1e-7, rtol=0)
    torch.testing.assert_close(turned.leading_direction, out.leading_direction @ q)
    longer = spectrum(vectors * torch.rand(7, 4, 1).double().add(0.1), present, sign_aware=aware)
    torch.testing.assert_close(longer.leading_direction, out.leading_direction)
    modality_order, instance_order = torch.tensor([2, 0, 3, 1]), torch.randperm(7)
    moved = spectrum(
        vectors[instance_order][:, modality_order], present[instance_order][:, modality_order], sign_aware=aware
    )
    torch.testing.assert_close(moved.singular_values, out.singular_values[instance_order], atol=1e-7, rtol=0)
    torch.testing.assert_close(moved.leading_direction, out.leading_direction[instance_order])
    torch.testing.assert_close(moved.loadings, out.loadings[instance_order][:, modality_order])


@BOTH_SPECTRA
@pytest.mark.parametrize("modalities", [2, 3, 5])
@pytest.mark.parametrize("shared", [0.0, 1.0])
def test_direction_points_towards_the_sum_of_the_unit_vectors(modalities, shared, aware):
    vectors, present = draw(300, modalities, 6, shared=shared)
    total = (normalize(vectors, dim=-1) * present[..., None]).sum(1)
    towards = (spectrum(vectors, present, sign_aware=aware).leading_direction * total).sum(1)
    # With two modalities at a negative cosine the plain direction is orthogonal to the sum: 0 up to rounding.
    assert (towards > -1e-12).all()


def test_orientation_is_fixed_where_the_sum_decides_nothing():
    vectors = torch.tensor([[[1.0, 0.0], [-1.0, 0.0]], [[-0.8, 0.6], [0.8, 0.6]]], dtype=torch.float64)
    expected = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(spectrum(vectors).leading_direction, expected)
    for tiny in (1e-9, -1e-9):
        torch.testing.assert_close(spectrum(vectors + tiny).leading_direction, expected, atol=1e-7, rtol=0)


@BOTH_SPECTRA
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 1e-5), (torch.float16, 1e-5)]
)
def test_short_floats_are_accumulated_in_float32(dtype, tolerance, aware):
    vectors, present = draw(64, 3, 512, dtype=dtype)
    found, exact = (spectrum(v, present, sign_aware=aware) for v in (vectors, vectors.double()))
    for one, other in zip(found, exact, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one.double(), other, rtol=0, atol=tolerance)
    step = gradient(vectors, present, sign_aware=aware).double()
    wanted = gradient(vectors.double(), present, sign_aware=aware)
    assert (step - wanted).norm() < (1e-4 if dtype == torch.float32 else 5e-3) * wanted.norm()


def test_autocast_does_not_lower_the_precision():
    vectors, present = draw(32, 3, 128, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside, inside_gradient = spectrum(vectors, present), gradient(vectors, present)
    for one, other in zip(inside, spectrum(vectors, present), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    torch.testing.assert_close(inside_gradient, gradient(vectors, present), rtol=0, atol=0)


@pytest.mark.parametrize("length", [1e-42, 1e-25, 1e25])
def test_lengths_whose_squares_float32_cannot_hold(length):
    vectors, _ = draw(8, 3, 16, dtype=torch.float32)
    scaled = vectors.clone()
    scaled[:, 1] = (normalize(vectors[:, 1], dim=-1).double() * length).float()
    # A subnormal holds few digits.
    torch.testing.assert_close(
        spectrum(scaled).leading_direction,
        spectrum(vectors).leading_direction,
        rtol=0,
        atol=1e-5 if length > 1e-38 else 1e-2,
    )


@pytest.mark.parametrize("modalities", [2, 3])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_bad_row_spoils_its_own_instance_only(bad, modalities):
    vectors, _ = draw(3, modalities, 6)
    clean = spectrum(vectors)
    vectors[1, 0, 2] = bad
    for found, wanted in zip(spectrum(vectors), clean, strict=True):
        torch.testing.assert_close(found[::2], wanted[::2], rtol=0, atol=1e-12)
    assert spectrum(vectors).singular_values[1].isnan().all()
    assert spectrum(vectors).leading_direction[1].isnan().all()


@BOTH_SPECTRA
@pytest.mark.parametrize("modalities", [2, 3])
def test_an_empty_batch_keeps_its_graph(modalities, aware):
    vectors = torch.zeros(0, modalities, 5, requires_grad=True)
    out = spectrum(vectors, sign_aware=aware)
    sum(part.sum() for part in out).backward()
    assert vectors.grad is not None
    assert out.leading_direction.shape == (0, 5)


@BOTH_SPECTRA
def test_subsets_are_spectra_of_their_own(aware):
    vectors, _ = draw(5, 4, 8)
    subsets = torch.rand(5, 6, 4, generator=torch.Generator().manual_seed(4)) < 0.5
    together = subset_spectra(vectors, subsets, sign_aware=aware)
    for q in range(6):
        alone = spectrum(vectors, subsets[:, q], sign_aware=aware)
        for found, wanted in zip(together, alone, strict=True):
            torch.testing.assert_close(found[:, q], wanted)


def test_leave_one_out_directions_are_sign_aware_directions_of_the_others():
    vectors, present = draw(9, 4, 6)
    found = leave_one_out_directions(vectors, present)
    for m in range(4):
        others = present.numpy() & (np.arange(4) != m)
        np.testing.assert_allclose(
            found[:, m], reference.spectrum(vectors.numpy(), others, sign_aware=True)[1], atol=1e-9, err_msg=str(m)
        )
    vectors.requires_grad_()
    assert torch.autograd.gradcheck(lambda v: leave_one_out_directions(v, present), vectors, rtol=2e-3, atol=1e-6)


WAITS = {
    "_local_scalar_dense",
    "is_nonzero",
    "equal",
    "nonzero",
    "masked_select",
    "index",
    "index_put_",
    "_linalg_eigh",
    "_linalg_svd",
}


class NeverWaits(TorchDispatchMode):
    """Fails on what makes the host wait for a device: its values, shapes that depend on them, LAPACK, copies."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        on_cpu = all(one.device.type == "cpu" for one in args if isinstance(one, torch.Tensor))
        assert on_cpu or name not in WAITS, f"{name} waits for the device"
        result = func(*args, **(kwargs or {}))
        if name in {"_to_copy", "copy_"}:
            assert {one.device for one in args if isinstance(one, torch.Tensor)} == {result.device}
        return result


@BOTH_SPECTRA
@pytest.mark.parametrize("modalities", [1, 2, 3, 5])
def test_off_the_cpu_nothing_waits_for_the_device(modalities, aware, monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # it does not know the device of no values
    vectors = torch.empty(6, modalities, 9, device="meta", requires_grad=True)
    present = torch.empty(6, modalities, dtype=torch.bool, device="meta")
    with NeverWaits():
        for out in (spectrum(vectors, sign_aware=aware), spectrum(vectors, present, sign_aware=aware)):
            sum(part.sum() for part in out).backward()
        leave_one_out_directions(vectors, present).sum().backward()
    assert vectors.grad is not None


@BOTH_SPECTRA
@pytest.mark.parametrize("modalities", [2, 3, 4, 7])
def test_what_runs_off_the_cpu_gives_the_same(modalities, aware, monkeypatch):
    vectors, present = draw(30, modalities, 12)
    wanted = [*spectrum(vectors, present, sign_aware=aware), gradient(vectors, present, sign_aware=aware)]
    monkeypatch.setattr("pmrl_cli.spectrum._due", lambda condition: True)
    monkeypatch.setattr(eigen, "_lapack", eigen._jacobi)
    with NeverWaits():
        found = [
            *spectrum(vectors, present, sign_aware=aware),
            gradient(vectors, present, sign_aware=aware),
        ]
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-7)
