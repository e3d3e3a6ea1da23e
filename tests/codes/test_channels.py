"""Channel selection: the closed form is the definition, and it finds the dimensions that carry the classes."""

import numpy as np
import pytest

from pmrl_cli.codes.channels import channel_criterion, choose_channels
from pmrl_cli.errors import UsageError


def by_definition(codebook, agreement):
    count, dim = codebook.shape
    criterion = np.zeros(dim)
    for d in range(dim):
        total = 0.0
        for i in range(count):
            for j in range(count):
                if i != j:
                    total += codebook[i, d] * codebook[j, d]
        mean = sum(codebook[i, d] for i in range(count)) / count
        variance = sum((codebook[i, d] - mean) ** 2 for i in range(count)) / (count - 1)
        criterion[d] = -agreement * total / (count * (count - 1)) + (1 - agreement) * variance
    return criterion


@pytest.mark.parametrize(("count", "agreement"), [(2, 0.7), (3, 0.0), (17, 1.0), (40, 0.7)])
def test_the_closed_form_is_the_mean_over_pairs_of_codes(count, agreement):
    codebook = np.random.default_rng(count).normal(0.3, 1, size=(count, 9))
    assert np.abs(channel_criterion(codebook, agreement) - by_definition(codebook, agreement)).max() < 1e-12


def test_it_is_what_the_authors_code_gives():
    # From cal_criterion of github.com/haihuangcode/CMG (ave_fc.py), run on this codebook.
    codebook = np.array([[0.9, 0.1, -0.4, 2.0], [-0.8, 0.2, 0.5, 2.1], [0.3, 0.15, -0.6, 1.9]])
    assert channel_criterion(codebook) == pytest.approx([0.384, -0.0144167, 0.1636667, -2.7946663], rel=1e-5)
    assert choose_channels(codebook, 2).tolist() == [0, 2]


def test_informative_dimensions_are_kept_and_common_ones_are_not():
    # 64 dimensions of class means, 64 of a large common offset that also varies, 128 of little energy.
    rng = np.random.default_rng(0)
    means = rng.normal(size=(50, 64))
    common = 6 + 2 * rng.normal(size=(50, 64))
    codebook = np.concatenate([means, common, 0.1 * rng.normal(size=(50, 128))], axis=1)
    kept = choose_channels(codebook, 64)
    assert (kept < 64).mean() >= 0.95
    by_variance = np.argsort(-codebook.var(0))[:64]
    assert (by_variance < 64).mean() <= 0.75


def test_more_channels_than_there_are_is_refused():
    with pytest.raises(UsageError, match="1 to 4"):
        choose_channels(np.eye(4), 5)
