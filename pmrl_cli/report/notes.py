"""The page's account of its numbers: name, formula, chance. ``docs/diagnose.md`` says more."""

from __future__ import annotations

__all__ = ["NOTES"]

NOTES = (
    (
        "rho",
        "sigma_1² / k of the d x k matrix of an instance's unit vectors, mean over instances. 1: all on one line; "
        "1/k: orthogonal.",
        "the same over shuffled pairs: each modality permuted on its own, groups never into themselves",
    ),
    (
        "A, adjusted alignment",
        "mean of (rho_i - rho_0) / (1 - rho_0), rho_0 the shuffled mean for the instance's number of modalities",
        "0",
    ),
    (
        "signed",
        "squared length of the mean of an instance's unit vectors. Below rho where modalities point opposite ways.",
        "shuffled pairs",
    ),
    ("cos, adj", "mean cosine c of partners; (c - c_0) / (1 - c_0)", "c_0 = mu_a · mu_b, exact"),
    (
        "z",
        "(mean cosine - c_0) over its permutation deviation, √(tr(S_aa S_bb)) / (n √(n - 1)); S centred scatter",
        "N(0, 1)",
    ),
    (
        "R@K, MRR, AUC",
        "rank of the partner among the candidates, ties in random order; AUC = 1 - (rank - 1) / (N - 1)",
        "K / N, H_N / N, 1/2",
    ),
    (
        "R@1 at a standard gallery",
        "hypergeometric: the chance that none of those ranked above falls into a random gallery of that size",
        "1 / gallery",
    ),
    (
        "gap share",
        "|mu_a - mu_b|² over the mean |x - y|² of partners: the part of their distance that is a constant offset",
        "about 1/n",
    ),
    ("cov_gap", "Bures distance of the two covariances over the sum of their traces", "about d / 4n"),
    ("mixed-gallery penalty", "R@1 lost when the gallery holds both modalities, the query itself left out", "0"),
    ("meancos (cone)", "mean cosine between different instances of a modality", "0"),
    (
        "pr_deb",
        "(tr C)² / |C|² with |C|² estimated without bias: dimensions of equal variance the cloud is worth",
        "d where isotropic",
    ),
    ("loo_auc", "P(own vector agrees better with the consensus of the other modalities than a mispaired one)", "1/2"),
    ("mispair", "share of the observed agreement scores below the 25 % quantile of mispaired ones, over 1/4", "0"),
    ("grad_share", "mean of |v_m| √(1 - sigma_1² v_m²), over the sum of all modalities", "1 / k"),
    ("hubness", "skewness of how often a candidate is among the ten nearest", "1 / √10 = .32 (Poisson)"),
    (
        "probe",
        "ridge-CCA fitted on one half, measured on the other, and back; shared dims = Σ h²; bits = -½ Σ log2(1 - h²)",
        "1 / gallery",
    ),
    ("cka_adj", "(CKA - E_0) / (1 - E_0), E_0 = √(PR_a PR_b) / (n - 1) its exact permutation mean", "0"),
    ("mknn_adj", "shared 10 nearest neighbours, (m - 10/(n - 1)) / (1 - 10/(n - 1))", "0"),
    (
        "counterfactuals",
        "fitted on half the instances, measured on the other, and back; paired differences, bootstrap over groups",
        "0",
    ),
)
"""Name, formula and chance."""
