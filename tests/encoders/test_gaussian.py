"""Gaussian inference: formulas by loops, exact posteriors where they are known, refinement that refines."""

import itertools
import math

import pytest
import torch

from pmrl_cli.encoders.gaussian import (
    Gaussian,
    GaussianDecoder,
    GaussianEncoder,
    Refinement,
    bound_gradient,
    divergence,
    evidence_bound,
    product_of_posteriors,
    refine,
)


def draw_gaussian(rows, dim, seed, most=0.0):
    generator = torch.Generator().manual_seed(seed)
    mean = torch.randn(rows, dim, generator=generator, dtype=torch.float64)
    return Gaussian(mean, most - torch.rand(rows, dim, generator=generator, dtype=torch.float64) * 2)


def test_divergence_is_the_formula_and_that_of_torch():
    first, second = draw_gaussian(5, 3, 0), draw_gaussian(5, 3, 1)
    wanted = []
    for i in range(5):
        total = 0.0
        for d in range(3):
            mean, log = first.mean[i, d].item(), first.log_variance[i, d].item()
            other, other_log = second.mean[i, d].item(), second.log_variance[i, d].item()
            spread = (math.exp(log) + (mean - other) ** 2) / math.exp(other_log)
            total += 0.5 * (other_log - log + spread - 1)
        wanted.append(total)
    torch.testing.assert_close(divergence(first, second), torch.tensor(wanted, dtype=torch.float64))
    normals = [torch.distributions.Normal(g.mean, (g.log_variance / 2).exp()) for g in (first, second)]
    torch.testing.assert_close(divergence(first, second), torch.distributions.kl_divergence(*normals).sum(1))
    assert (divergence(first, first).abs() < 1e-12).all()


def linear_model(seed=0, rows=6, latent=3, widths=(4, 5, 2)):
    """x_m = W_m z + sigma_m noise: loadings with orthogonal columns, so that posteriors are diagonal."""
    generator = torch.Generator().manual_seed(seed)
    loadings = []
    for width in widths:
        q, _ = torch.linalg.qr(torch.randn(max(width, latent), latent, generator=generator, dtype=torch.float64))
        scales = 0.5 + torch.rand(latent, generator=generator, dtype=torch.float64)
        loadings.append((q[:width] if width < latent else q) * scales)
    loadings = [w for w in loadings if len(w) >= latent]
    variances = [0.2 + 0.3 * m for m in range(len(loadings))]
    z = torch.randn(rows, latent, generator=generator, dtype=torch.float64)
    x = [
        z @ w.T + v**0.5 * torch.randn(rows, len(w), generator=generator, dtype=torch.float64)
        for w, v in zip(loadings, variances, strict=True)
    ]
    return loadings, variances, x


def posterior_of(loadings, variances, x):
    """The exact posterior of some modalities, by the normal equations."""
    latent = loadings[0].shape[1]
    precision = torch.eye(latent, dtype=torch.float64) + sum(
        w.T @ w / v for w, v in zip(loadings, variances, strict=True)
    )
    weighted = sum(own @ w / v for own, w, v in zip(x, loadings, variances, strict=True))
    return Gaussian(weighted @ torch.linalg.inv(precision), -precision.diagonal().log().expand(len(x[0]), -1))


def test_the_product_of_exact_posteriors_is_the_exact_posterior_of_any_subset():
    loadings, variances, x = linear_model(widths=(4, 5, 3))
    each = [posterior_of([w], [v], [own]) for w, v, own in zip(loadings, variances, x, strict=True)]
    for subset in ([0], [1, 2], [0, 1, 2]):
        present = torch.zeros(6, 3, dtype=torch.bool)
        present[:, subset] = True
        found = product_of_posteriors(each, present)
        wanted = posterior_of(*([part[m] for m in subset] for part in (loadings, variances, x)))
        torch.testing.assert_close(found.mean, wanted.mean)
        torch.testing.assert_close(found.log_variance, wanted.log_variance)
    nothing = product_of_posteriors(each, torch.zeros(6, 3, dtype=torch.bool))
    assert (nothing.mean == 0).all()
    assert (nothing.log_variance == 0).all()


def test_absent_modalities_neither_are_seen_nor_get_a_gradient():
    each = [draw_gaussian(4, 3, m) for m in range(2)]
    mean = each[1].mean.clone().requires_grad_()
    present = torch.tensor([[True, False]] * 4)
    found = product_of_posteriors([each[0], Gaussian(mean, each[1].log_variance)], present)
    found.mean.sum().backward()
    assert (mean.grad == 0).all()
    torch.testing.assert_close(found.mean, each[0].mean)


def decoders_of(loadings, variances):
    decoders = []
    for w, v in zip(loadings, variances, strict=True):
        decoder = GaussianDecoder(w.T.contiguous(), torch.zeros(len(w)), torch.full((len(w),), v), 4).double()
        decoders.append(decoder)
    return decoders


def test_the_bound_and_its_gradient_are_the_formula():
    loadings, variances, x = linear_model()
    decoders = decoders_of(loadings, variances)
    present = torch.ones(6, len(x), dtype=torch.bool)
    present[:2, 1] = False
    noise = torch.randn(2, 6, 3, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    posterior = draw_gaussian(6, 3, 5)

    def loops(mean, log_variance):
        total = []
        for i in range(6):
            value = 0.0
            for s in range(2):
                z = [mean[i, d] + torch.exp(log_variance[i, d] / 2) * noise[s, i, d] for d in range(3)]
                for m, (w, v) in enumerate(zip(loadings, variances, strict=True)):
                    if not present[i, m]:
                        continue
                    for p in range(len(w)):
                        error = x[m][i, p] - sum(w[p, d] * z[d] for d in range(3))
                        value = value - 0.25 * (error**2 / v + math.log(2 * math.pi * v))
            for d in range(3):
                log = log_variance[i, d]
                value = value - 2.5 * 0.5 * (torch.exp(log) + mean[i, d] ** 2 - 1 - log)
            total.append(value)
        return torch.stack(total)

    leaves = [part.clone().requires_grad_() for part in posterior]
    wanted = loops(*leaves)
    gradients = torch.autograd.grad(wanted.sum(), leaves)
    torch.testing.assert_close(evidence_bound(posterior, decoders, x, present, noise, beta=2.5), wanted.detach())
    found = bound_gradient(posterior, decoders, x, present, noise, beta=2.5)
    torch.testing.assert_close(found.mean, gradients[0])
    torch.testing.assert_close(found.log_variance, gradients[1])
    assert not found.mean.requires_grad
    assert all(parameter.grad is None for decoder in decoders for parameter in decoder.parameters())


def test_refinement_comes_nearer_the_exact_posterior_at_every_step():
    """Before it is trained: a damped natural gradient, of noise in opposite pairs."""
    loadings, variances, x = linear_model(rows=40, widths=(4, 5, 3))
    decoders = decoders_of(loadings, variances)
    present = torch.ones(40, 3, dtype=torch.bool)
    exact = posterior_of(loadings, variances, x)
    start = Gaussian(torch.zeros(40, 3, dtype=torch.float64), torch.zeros(40, 3, dtype=torch.float64))
    refinement = Refinement(3, hidden=8).double()
    torch.manual_seed(0)
    path = refine(start, refinement, decoders, x, present, iterations=8, samples=64)
    gaps = [divergence(step, exact).mean().item() for step in path]
    assert all(after < before for before, after in itertools.pairwise(gaps))
    assert gaps[-1] < 0.5 * gaps[0]


def test_no_gradient_flows_through_the_steps_before_or_through_gradients():
    """Each step betters the bound by itself."""
    loadings, variances, x = linear_model()
    decoders = decoders_of(loadings, variances)
    present = torch.ones(6, len(x), dtype=torch.bool)
    start = Gaussian(*(part.requires_grad_() for part in draw_gaussian(6, 3, 5)))
    refinement = Refinement(3, hidden=8).double()
    last = refine(start, refinement, decoders, x, present, iterations=2, samples=2)[-1]
    last.mean.sum().backward()
    assert start.mean.grad is None
    assert all(parameter.grad is None for decoder in decoders for parameter in decoder.parameters())
    assert refinement.log_step.grad is not None


def test_what_a_modality_says_is_never_less_than_the_prior():
    torch.manual_seed(0)
    encoder = GaussianEncoder(torch.randn(5, 3), hidden=8)
    torch.nn.init.normal_(encoder.leave.weight, std=5)
    posterior = encoder(torch.randn(50, 5) * 10)
    assert (posterior.log_variance <= 0).all()
    assert posterior.log_variance.isfinite().all()


def test_values_are_what_the_public_code_gives():
    # JMVAE.forward (the divergences, by the weights alpha and beta) and stable_poe of MultiVae (A. Senellart) on
    # these, in float64; its product has no prior, which is given to it as one more expert.
    index = torch.arange(10, dtype=torch.float64).reshape(5, 2)
    joint = Gaussian((index * 0.7).sin(), -0.2 - (index * 0.4).cos().abs())
    each = [
        Gaussian((index * 0.3).cos(), -0.1 - (index * 0.9).sin().abs()),
        Gaussian((index * 0.5).sin(), -0.3 - (index * 0.2).sin().abs()),
    ]
    gaps = sum(divergence(joint, own).sum() for own in each) / 5
    assert float(gaps) == pytest.approx(2.0478012282525366, rel=1e-9)
    found = product_of_posteriors(each, torch.ones(5, 2, dtype=torch.bool))
    assert float(found.mean.sum()) == pytest.approx(2.7254964904591326, rel=1e-9)
    assert float(found.log_variance.sum()) == pytest.approx(-13.080947460942191, rel=1e-9)
    decoders = []
    for width, shown in ((3, lambda i: i.sin()), (4, lambda i: i.cos())):
        x = shown(torch.arange(5 * width, dtype=torch.float64).reshape(5, width) * 0.6)
        decoder = GaussianDecoder(torch.zeros(2, width), torch.zeros(width), torch.full((width,), 0.49), 4).double()
        decoder.forward = lambda latent, x=x: 0.5 * x + 0.1
        decoders.append((decoder, x))
    bound = evidence_bound(
        joint,
        [decoder for decoder, _ in decoders],
        [x for _, x in decoders],
        torch.ones(5, 2, dtype=torch.bool),
        torch.zeros(2, 5, 2, dtype=torch.float64),
        beta=2.5,
    )
    assert -float(bound.detach().mean()) == pytest.approx(6.8017332444443, rel=1e-6)
