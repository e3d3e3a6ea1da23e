"""Held-out retrieval by classes, where no instance has a partner."""

import math

import numpy as np
import torch
from torch.nn.functional import normalize

from pmrl_cli.train.heldout import held_out_retrieval


def test_classes_answer_where_instances_have_no_partners():
    generator = torch.Generator().manual_seed(0)
    vectors = normalize(torch.randn(40, 2, 5, generator=generator), dim=2)
    present = torch.stack([torch.arange(40) % 2 == 0, torch.arange(40) % 2 == 1], 1)
    labels = np.arange(40) // 4 % 3
    labels[:5] = -1
    reciprocal, first = [], []
    for m, n in ((0, 1), (1, 0)):
        ranks = []
        for i in range(40):
            if not present[i, m] or labels[i] < 0:
                continue
            found = [j for j in range(40) if present[j, n] and labels[j] >= 0]
            cosine = {j: float(vectors[i, m] @ vectors[j, n]) for j in found}
            best = max(cosine[j] for j in found if labels[j] == labels[i])
            ranks.append(1 + sum(cosine[j] >= best for j in found if labels[j] != labels[i]))
        reciprocal.append(sum(1 / r for r in ranks) / len(ranks))
        first.append(sum(r == 1 for r in ranks) / len(ranks))
    found = held_out_retrieval(vectors, present, labels)
    np.testing.assert_allclose([found.mrr, found.r1], [sum(reciprocal) / 2, sum(first) / 2], rtol=1e-6)


def test_without_classes_there_is_nothing_to_say():
    vectors, present = torch.ones(4, 2, 3), torch.ones(4, 2, dtype=torch.bool)
    assert math.isnan(held_out_retrieval(vectors, present, np.full(4, -1)).mrr)
