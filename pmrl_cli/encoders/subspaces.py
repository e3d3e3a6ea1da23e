"""Updates that leave what was learned before as it was: projection away from earlier inputs and outputs.

A linear layer y = x W, with x in R^p (a bias is its last row, for an input of 1) and W in R^{p x D}, has seen inputs
whose second moment is C = E[x x'], and its outputs are compared with partners whose second moment is C' = E[z z'].
With Q the leading eigenvectors of C and R those of C', an update U of W is replaced by

    U - Q Q' U R R'        ``dual``: inner products of earlier inputs with earlier partners stay, to first order
    U - Q Q' U             ``input``: outputs of earlier inputs stay, exactly
    U - Q Q' U (I - N N')  ``disjoint``: N a block of its own of the complement of R for each modality, so that also
                           the updates of two modalities have inner product 0 on earlier inputs

Source: Liu et al., "Continual Multimodal Contrastive Learning" (DNS), NeurIPS 2025, and its public code, for
    ``dual``; Wang et al., "Training Networks in Null Space of Feature Covariance for Continual Learning"
    (Adam-NSCL), CVPR 2021, for ``input``. Departs: the update of the optimiser is projected, not the gradient, as
    AdamW's scaling and weight decay leave the subspace; the bias is projected with the weights; rank by energy, where
    there an absolute threshold is one for all scales; ``disjoint`` is new here.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["blocks_of", "complement", "leading_basis", "project_update"]


def leading_basis(second: Tensor, lost: float) -> Tensor:
    """Return the fewest leading eigenvectors that leave at most a fraction ``lost`` of the energy.

    Args:
        second: (p, p) symmetric second moment, positive semi-definite; zero gives no vector.
        lost: fraction of the trace, in [0, 1).

    Returns: (p, r) orthonormal columns, in the type and on the device of ``second``.
    """
    values, vectors = torch.linalg.eigh(second.double())
    # Below the rounding of the moment an eigenvector is arbitrary, and protects nothing that was seen.
    floor = values[-1:].abs().sum() * len(second) * torch.finfo(second.dtype).eps
    values = torch.where(values > floor, values, 0.0).flip(0)
    missing = values.sum() - values.cumsum(0) + values  # left out if a vector and those after it are
    rank = int(((missing > lost * values.sum()) & (values > 0)).sum())
    leading: Tensor = vectors.flip(1)[:, :rank]
    return leading.to(second.dtype)


def complement(basis: Tensor) -> Tensor:
    """Return (D, D - r) orthonormal columns orthogonal to the (D, r) of a basis."""
    full: Tensor = torch.linalg.qr(basis.double(), mode="complete").Q
    return full[:, basis.shape[1] :].to(basis.dtype)


def blocks_of(free: Tensor, modalities: int) -> list[Tensor]:
    """Divide (D, f) columns in turn among as many modalities: disjoint blocks, which differ by at most one column."""
    return [free[:, m::modalities] for m in range(modalities)]


def project_update(
    update: Tensor, inputs: Tensor, outputs: Tensor | None = None, free: Tensor | None = None
) -> Tensor:
    """Return an update without what would change earlier results.

    Args:
        update: (p, D) change of a weight that multiplies from the right.
        inputs: (p, r) orthonormal, the span of earlier inputs; no column protects nothing.
        outputs: (D, s) orthonormal, the span of earlier partners (``dual``); None for all outputs (``input``).
        free: (D, f) orthonormal, outputs that may change even for earlier inputs (``disjoint``).
    """
    seen = inputs @ (inputs.mT @ update)
    if outputs is not None:
        seen = (seen @ outputs) @ outputs.mT
    if free is not None:
        seen = seen - (seen @ free) @ free.mT
    return update - seen
