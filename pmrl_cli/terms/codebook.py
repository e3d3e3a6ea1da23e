"""What pulls vectors to the codes of a shared codebook, and makes the modalities of an instance agree on them."""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from pmrl_cli.encoders.codebook import Codebook
from pmrl_cli.terms.contrast import masked_mean

__all__ = ["code_agreement", "commitment"]


def commitment(vectors: Tensor, codes: Tensor, present: Tensor) -> Tensor:
    """Return how far vectors are from the codes of their own instance, the mean over (instance, modality).

    2 |z_m - q_m|^2 + mean over other modalities n of |z_m - q_n|^2, times 1/4.

    Args:
        vectors: (b, K, d).
        codes: (b, K, d) code of each vector; no gradient goes to it.
        present: (b, K) bool.

    Source: the cross-modal commitment of FCID (arXiv 2403.05168), there for three modalities.
    """
    codes = codes.detach()
    distances = (vectors[:, :, None] - codes[:, None]).square().sum(-1)
    other = present[:, None, :] & ~torch.eye(present.shape[1], dtype=torch.bool, device=present.device)
    of_others = (distances * other).sum(2) / other.sum(2).clamp_min(1)
    pull = (2 * distances.diagonal(dim1=1, dim2=2) + of_others) / 4
    return masked_mean(pull, present)


def code_agreement(
    vectors: Tensor, present: Tensor, codebook: Codebook, temperature: float = 1.0, same: Tensor | None = None
) -> Tensor:
    """Return cross-modal code matching: a contrast of the distributions over codes of an instance's modalities.

    p_m = softmax over codes of -|z_m - e| / temperature; S_ij = sum p_ai log p_bj + p_bi log p_aj over codes, for
    modalities a and b; the loss is -log softmax of row i at i, mean over pairs of modalities and instances with both.

    Args:
        vectors: (b, K, d), anything finite where absent.
        present: (b, K) bool.
        codebook: gives the codes; no gradient goes to them.
        temperature: divides the distances.
        same: (b, b) of ``matches``: no candidates of each other; None where all instances differ.

    Returns: scalar in nats.

    Source: Liu et al., "Cross-Modal Discrete Representation Learning" (CMCM), ACL 2022, as FCID has it (arXiv
        2403.05168).
    """
    # A tiny constant keeps the gradient of the root finite where a vector is its code.
    logits = -(codebook.squared_distances(vectors) + 1e-12).sqrt() / temperature
    logs = logits.log_softmax(-1)
    losses, both = [], []
    for a, b in combinations(range(present.shape[1]), 2):
        has = present[:, a] & present[:, b]
        scores = logs[:, a].exp() @ logs[:, b].mT + logs[:, b].exp() @ logs[:, a].mT
        # Rows without both are set to anything finite: they are in no mean.
        if same is not None:
            scores = scores.masked_fill(same, -torch.inf)
        scores = scores.masked_fill(~has, -torch.inf).masked_fill(~has[:, None], 0)
        losses.append(scores.logsumexp(1) - scores.diagonal())
        both.append(has)
    return masked_mean(torch.stack(losses), torch.stack(both))
