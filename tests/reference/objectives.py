"""The objectives, one instance and one term at a time, in float64."""

import math

import numpy as np

from tests.reference import spectrum as reference_spectrum


def pmrl_paper(embeddings, present, temperature_spectrum, temperature_instance):
    """The published formula, over the present modalities of each instance that has any."""
    sigma, direction, _ = reference_spectrum.spectrum(embeddings, present)
    rows = [i for i in range(len(embeddings)) if present[i].any()]
    total = 0.0
    for i in rows:
        logits = [sigma[i, j] / temperature_spectrum for j in range(int(present[i].sum()))]
        total += math.log(sum(math.exp(logit - logits[0]) for logit in logits))
        total += math.log(
            1 + sum(math.exp((direction[i] @ direction[j] - 1) / temperature_instance) for j in rows if j != i)
        )
    return total / len(rows)


def spectrum_loss(embeddings, present, floor):
    """The chance-corrected spectrum part of pmrl: (B,) losses and (B,) temperatures, nan below two modalities."""
    sigma, _, _ = reference_spectrum.spectrum(embeddings, present, sign_aware=True)
    counts = present.sum(1)
    rows = [i for i in range(len(embeddings)) if counts[i] >= 2]
    gap = np.mean([(sigma[i, 0] - sigma[i, 1]) / math.sqrt(counts[i]) for i in rows])
    losses, temperatures = np.full(len(embeddings), np.nan), np.full(len(embeddings), np.nan)
    for i in rows:
        k = int(counts[i])
        temperature = max(gap / math.log(9 * (k - 1)), floor)

        def minus_log_share(spectrum, temperature=temperature, k=k):
            levels = [value / math.sqrt(k) / temperature for value in spectrum]
            return math.log(sum(math.exp(level - levels[0]) for level in levels))

        aligned = minus_log_share([math.sqrt(k)] + [0.0] * (k - 1))
        orthogonal = minus_log_share([math.sqrt((k + 1) / 2)] + [math.sqrt(1 / 2)] * (k - 1))
        losses[i] = (minus_log_share(sigma[i, :k]) - aligned) / (orthogonal - aligned)
        temperatures[i] = temperature
    return losses, temperatures


def symmetric_info_nce(first, second, present, temperature):
    """(B,) InfoNCE both ways, 0 where an instance lacks either vector."""
    losses = np.zeros(len(first))
    for i in range(len(first)):
        if not present[i].all():
            continue
        for queries, gallery, has in ((first, second, present[:, 1]), (second, first, present[:, 0])):
            scores = {j: queries[i] @ gallery[j] / temperature for j in range(len(first)) if has[j]}
            losses[i] += math.log(sum(math.exp(score - scores[i]) for score in scores.values())) / 2
    return losses


def pairwise_contrast(embeddings, present, temperature):
    """Mean of InfoNCE over all (pair of modalities, instance that has both)."""
    terms = []
    for m in range(embeddings.shape[1]):
        for n in range(m + 1, embeddings.shape[1]):
            has = present[:, [m, n]]
            losses = symmetric_info_nce(embeddings[:, m], embeddings[:, n], has, temperature)
            terms += list(losses[has.all(1)])
    return np.mean(terms)
