"""Small fits: nonlinear data, one recipe, and whether two have the same weights."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from pmrl_cli.data.dataset import Dataset, Features
from pmrl_cli.fit.context import Hooks
from pmrl_cli.fit.fit import fit
from pmrl_cli.train.loop import Interrupted
from pmrl_cli.train.settings import FitSettings


def simulate(n=300, seed=0, missing=0.2, noise=0.5, dims=(12, 10, 8)):
    """Nonlinear readings of one latent: linear adapters cannot take all of it."""
    rng = np.random.default_rng(seed)
    latent = rng.normal(size=(n, 6))
    present = np.ones((n, len(dims)), dtype=bool)
    present[rng.random(n) < missing, -1] = False
    features = []
    for m, d in enumerate(dims):
        x = np.tanh(latent @ rng.normal(size=(6, d))) + noise * rng.normal(size=(n, d))
        features.append(Features(f"m{m}", (x * present[:, [m]]).astype(np.float32), digest=f"digest {m}"))
    ids = pa.array([f"i{i}" for i in range(n)], pa.large_string())
    return Dataset(ids, tuple(features), present)


def settings_for(**changes):
    """One recipe of one kind and no refit, unless a test is about them."""
    return FitSettings(**{"adapter": "mlp", "dropout": 0.0, "refit": False, "test": 0.0} | changes)


def weights(fitted):
    return {
        f"{i}.{name}": tensor.clone()
        for i, member in enumerate(fitted.members)
        for name, tensor in member.encoder.state_dict().items()
    }


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def interrupt(settings, checkpoint, after):
    """Start a fit that is asked to stop after so many steps, and leaves its state in a folder."""
    calls = iter(range(10**6))
    with pytest.raises(Interrupted):
        fit(simulate(), settings, checkpoint=checkpoint, hooks=Hooks(should_stop=lambda: next(calls) == after))
