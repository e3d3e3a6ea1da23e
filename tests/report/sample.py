"""A diagnosis made by hand that holds every section, in the shape of docs/diagnose.schema.json."""

from __future__ import annotations

import numpy as np


def statistic(value, chance=0.0, spread=0.02, **fields):
    """A statistic with an interval of ``spread`` to both sides."""
    ci = None if spread is None or value is None else [value - spread, value + spread]
    found = {"value": value, "chance": chance, "ci": ci, "ci_method": "normal" if ci else None, "se": None, "p": None}
    return {**found, "n": 5000, "null": "shuffled", "status": "ok" if value is not None else "n_too_small", **fields}


def histogram(generator, observed, shuffled, low=0.0, high=1.0):
    edges = np.linspace(low, high, 257)
    counts = [np.histogram(generator.normal(m, 0.07, 5000), edges)[0].tolist() for m in (observed, shuffled)]
    return {"edges": edges.tolist(), "observed": counts[0], "shuffled": counts[1]}


def sample(names=("text", "video", "audio")):
    """Return a diagnosis of modalities of these names with every section filled."""
    generator = np.random.default_rng(0)
    k = len(names)
    pairs = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    points = {m: generator.normal(size=(200, 2)) + 3 * index for index, m in enumerate(names)}

    def hubness():
        counts = np.bincount(np.minimum(generator.negative_binomial(3, 3 / 13, 4096), 50), minlength=51)
        return {
            "skewness": statistic(1.2, 0.316, None),
            "robin_hood": statistic(0.3, 0.125, None),
            "antihubs": statistic(0.05, 4.5e-5, None),
            "counts": counts.tolist(),
        }

    def direction(value):
        metrics = {m: statistic(value, 0.001) for m in ("R@1", "R@5", "R@10", "MRR", "AUC", "R@1_standard")}
        return {"gallery": 4096, "tie_spread": 0.0, **metrics, "hubness": hubness()}

    pair = {
        f"{a}|{b}": {
            "cosine": statistic(0.6, 0.2),
            "cosine_adjusted": statistic(0.5 - 0.1 * index),
            "z": statistic(120.0, spread=None),
            "cka_adjusted": statistic(0.4, p=1e-9),
            "cka_z": statistic(80.0, spread=None),
            "neighbours_adjusted": statistic(0.2),
            "probe": {
                "R@1": statistic(0.6, 0.005),
                "MRR": statistic(0.7, 0.03),
                "gallery": 200,
                "shared_dimensions": statistic(14.2),
                "information_bits": statistic(20.1),
                "correlations": np.linspace(0.9, -0.02, 60).tolist(),
                "correlations_fitted": np.linspace(0.95, 0.3, 60).tolist(),
            },
            "retrieval": {f"{a}->{b}": direction(0.41), f"{b}->{a}": direction(0.38)},
            "gap": {key: statistic(0.3) for key in ("centroid", "gap_share", "covariance_gap", "mixed_penalty")},
        }
        for index, (a, b) in enumerate(pairs)
    }
    modality = {
        m: {
            "consensus_auc": statistic(0.99 - 0.03 * index, 0.5, 0.005),
            "loading": statistic(1.1 - 0.15 * index, 0.95),
            "mean_cosine": statistic(0.3),
            "participation_ratio": statistic(150.0 / (index + 1), 512.0, None),
            "uniformity": statistic(-3.2, -4.0),
            "mispair_rate": statistic(0.03, ci=[0.02, 0.04]),
            "gradient_share": statistic(1 / k, 1 / k),
            "eigenvalues": (1 / np.arange(1, 257) ** (1 + 0.3 * index)).tolist(),
            "suspect_histogram": histogram(generator, 0.3, -0.2, -1, 1),
        }
        for index, m in enumerate(names)
    }
    history = [
        {
            "stage": stage,
            "step": step,
            "epoch": step / 20,
            "loss": None if step == 0 else 1.5 - step / 200,
            "share": 0.5 + step / 500,
            "mrr": 0.3 + step / 600,
            "r1": 0.2 + step / 600,
            "A": 0.2 + step / 500,
            "signed": 0.4 + step / 500,
            **{f"gradient_share.{m}": (index + 1) / sum(range(k + 1)) for index, m in enumerate(names)},
            **{f"participation_ratio.{m}": 60 - step / 10 + index for index, m in enumerate(names)},
        }
        for stage in ("dropout 0", "dropout 0.5")
        for step in range(0, 120, 15)
    ]
    finding = {
        "code": "ODD_ONE_OUT",
        "severity": "warn",
        "subject": [names[-1]],
        "evidence": [f"modality.{names[-1]}.consensus_auc"],
        "text": f"{names[-1]} deviates: adjusted cosine 0.21 with the others, 0.58 among them",
        "advice": "check its files and encoder",
        "command": "pmrl fit FILES -o runs/aligned",
    }
    return {
        "schema": "pmrl.diagnose/2",
        "inputs": {
            "modalities": list(names),
            "dims": dict.fromkeys(names, 512),
            "counts": dict.fromkeys(names, 5000),
            "instances": 5000,
            "groups": 1000,
            "group": "image",
            "label": "scene",
            "stage": "post",
            "scope": "5,000 of 50,000 instances: instances that fit never saw",
            "model": "model",
        },
        "config": {
            "seed": 0,
            "reservoir": 4096,
            "moments": 5000,
            "shuffles": 8,
            "neighbours": 10,
            "bins": 256,
            "bootstrap": 500,
            "ties": "expected",
        },
        "verdict": {
            "code": "ODD_ONE_OUT",
            "severity": "warn",
            "text": finding["text"],
            "findings": [finding],
            "not_fired": [{"code": "COLLAPSE", "evidence": []}, {"code": "NO_PAIRING", "evidence": []}],
        },
        "alignment": {
            "A": statistic(0.41),
            "rho": statistic(0.62, 0.36),
            "signed": statistic(0.61, 0.3),
            "mixed_sign": statistic(0.02, 0.4),
            "quantiles": {"rho": [[0.05, 0.5], [0.5, 0.62], [0.95, 0.7]]},
            "rho_by_modalities": {str(k): statistic(0.62, 0.36)},
            "singular_values": [
                {"q05": 1.2 / (j + 1), "q50": 1.36 / (j + 1), "q95": 1.5 / (j + 1)} for j in range(k)
            ],
            "histogram": histogram(generator, 0.62, 0.36, 1 / k, 1),
        },
        "pair": pair,
        "modality": modality,
        "retrieval": {
            "standard_gallery": 1000,
            "tie_spread": 0.0,
            "pairwise": {
                m: one for m, one in direction(0.4).items() if m not in ("gallery", "tie_spread", "hubness")
            },
            "fused": {"R@1": statistic(0.5, 0.001), "MRR": statistic(0.6, 0.002)},
            "curve": [
                {"gallery": int(g), "R@1": statistic(float(g**-0.1), 1 / g)}
                for g in (2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 4096)
            ],
        },
        "suspects": {
            "instances": 5000,
            "flagged": 150,
            "top": [
                {
                    "id": f"clip-{i:05}",
                    "score": 0.9 - i / 100,
                    "suspect_modality": names[-1],
                    "probability": 0.99 - i / 60,
                }
                for i in range(50)
            ],
        },
        "remedies": [
            {
                "action": action,
                "subject": subject,
                "metric": "R@1_standard",
                "before": statistic(0.4),
                "after": statistic(0.4 + gain),
                "delta": statistic(gain, spread=0.01),
                "fit": "cross_fit_2",
            }
            for action, subject, gain in (
                ("linear", [f"{pairs[0][0]}|{pairs[0][1]}"], 0.13),
                ("centre", [], 0.09),
                ("csls", [], 0.02),
                ("drop_modality", [names[-1]], 0.004),
                ("drop_suspects", [], -0.001),
            )
        ],
        "training": {
            "temperature": 0.05,
            "saturation": statistic(0.004, (k - 1) / k),
            "temperature_suggested": 0.22,
            "negatives_effective": statistic(120.0),
            "positive_probability": statistic(0.3),
            "kept": [{"stage": "dropout 0", "step": 90, "epoch": 4.5}],
            "refitted": False,
            "history": history,
        },
        "compare": None,
        "limits": ["near-duplicate mispairs cannot be seen"],
        "plot": {
            "pca": {
                "before": {m: cloud.round(3).tolist() for m, cloud in points.items()},
                "centred": {m: (cloud - cloud.mean(0)).round(3).tolist() for m, cloud in points.items()},
                "labels": [f"scene {index % 7}" for index in range(200)],
            },
            "similarity": {
                f"{a}|{b}": (0.1 * generator.normal(size=(64, 64)) + 0.6 * np.eye(64)).round(3).tolist()
                for a, b in pairs
            },
        },
    }
