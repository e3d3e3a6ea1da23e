"""Data sets with a known defect each, and the codes that should be said of them: no fewer and no more."""

from __future__ import annotations

from functools import cache

import numpy as np

from pmrl_cli.data.dataset import Dataset
from tests.simulate import dataset_of


class _Maker:
    """Draws everything from one seed.

    Args:
        seed: of the whole set of scenarios.
        n: instances, a multiple of 20.
        d: columns, 40 or more.
    """

    def __init__(self, seed: int, n: int, d: int) -> None:
        self.n, self.d = n, d
        self._seed = seed

    def gaussian(self, *shape, seed=0):
        return np.random.default_rng([self._seed, seed]).normal(size=shape)

    def noise(self, seed=0):
        return self.gaussian(self.n, self.d, seed=seed)

    def aligned(self, modalities=3, noise=0.5, n=None):
        """Isotropic vectors with one latent direction each and as much noise as asked in every modality."""
        n = n or self.n
        latent = self.gaussian(n, self.d, seed=100)
        noises = np.broadcast_to(noise, modalities)
        return {f"m{m}": latent + noises[m] * self.gaussian(n, self.d, seed=m) for m in range(modalities)}

    def turn(self):
        return np.linalg.qr(self.gaussian(self.d, self.d, seed=50))[0]

    def axis(self, size, at=0):
        away = np.zeros(self.d)
        away[at] = size
        return away

    def offset(self, arrays, size):
        """Move every modality its own way."""
        return {name: x + self.axis(size, at=m) for m, (name, x) in enumerate(arrays.items())}

    def shuffled(self, arrays):
        return {
            name: np.random.default_rng([self._seed, 60 + m]).permutation(x)
            for m, (name, x) in enumerate(arrays.items())
        }

    def swapped(self, arrays, rate):
        """One modality of a share of the instances goes to another of them, each modality in turn."""
        bad = np.random.default_rng([self._seed, 70]).permutation(self.n)[: round(rate * self.n)]
        moved = {}
        for m, (name, x) in enumerate(arrays.items()):
            rows = bad[m :: len(arrays)]
            moved[name] = x.copy()
            moved[name][rows] = x[np.roll(rows, 1)]
        return moved

    def unlike_shapes(self):
        """Two clouds that share a fifth of the columns and fill another two fifths each: partners are found."""
        fifth = self.d // 5
        shared, own = np.arange(self.d) < fifth, np.arange(self.d) < 3 * fifth
        latent = self.gaussian(self.n, self.d, seed=80) * shared
        scales = (0.9 * (own & ~shared), 0.9 * ~own)
        return {f"m{m}": latent + self.noise(81 + m) * scales[m] for m in range(2)}

    def hubs(self):
        """Four clusters in 128 columns, and some members near the middle, where all of the cluster find them."""
        middle = self.gaussian(4, 128, seed=90).repeat(self.n // 4, axis=0)
        middle *= (1 + 2 * (np.arange(self.n) % 20 == 0))[:, None]
        latent = self.gaussian(self.n, 128, seed=91)
        return {f"m{m}": latent + 1.2 * self.gaussian(self.n, 128, seed=92 + m) + middle for m in range(2)}

    def copies(self):
        arrays = self.aligned(2)
        quarter = self.n // 4
        for x in arrays.values():
            x[:quarter] = x[quarter : 2 * quarter]
        return arrays

    def missing(self, share):
        present = np.random.default_rng([self._seed, 95]).random((self.n, 4)) > share
        present[present.sum(1) < 2] = True
        return dataset_of(self.aligned(4), present=present)


@cache
def scenarios(seed: int = 0, n: int = 500, d: int = 64) -> dict[str, tuple[Dataset, set[str]]]:
    """Return (data set, expected codes) by name."""
    make = _Maker(seed, n, d)
    two, three = make.aligned(2), make.aligned(3)
    point = {f"m{m}": make.axis(30) + 0.05 * make.noise(96 + m) for m in range(2)}
    low = np.arange(d) < 2
    flat = {f"m{m}": low * make.aligned(2, 0.1)[f"m{m}"] + ~low * 0.02 * make.noise(98 + m) for m in range(2)}
    found = {
        "two modalities, aligned": (two, {"HEALTHY"}),
        "three modalities, aligned": (three, {"HEALTHY"}),
        "four modalities, a fifth missing": (make.missing(0.2), {"HEALTHY"}),
        "identical": (dict.fromkeys("abc", make.noise()), {"HEALTHY"}),
        "noisy, still distinguishable": (make.aligned(3, 1.2), {"HEALTHY"}),
        "barely aligned": (make.aligned(3, 3.0), {"WEAK"}),
        "few instances": (make.aligned(3, n=80), {"HEALTHY", "N_SMALL"}),
        "shuffled": (make.shuffled(three), {"NO_PAIRING"}),
        "shuffled, with an offset": (make.offset(make.shuffled(two), 9), {"NO_PAIRING"}),
        "one of three unrelated": (three | {"m2": make.noise(40)}, {"UNRELATED_PAIR", "ODD_ONE_OUT"}),
        "one of four noisy": (make.aligned(4, [0.5, 0.5, 2.0, 0.5]), {"ODD_ONE_OUT"}),
        "opposed": (two | {"m1": -two["m1"]}, {"ANTI_ALIGNED", "NOT_ALIGNED_BUT_ALIGNABLE"}),
        "one of three opposed": (
            three | {"m2": -three["m2"]},
            {"ANTI_ALIGNED", "NOT_ALIGNED_BUT_ALIGNABLE", "ODD_ONE_OUT"},
        ),
        "rotated": (two | {"m1": two["m1"] @ make.turn()}, {"NOT_ALIGNED_BUT_ALIGNABLE"}),
        "other columns, alignable": (
            two | {"m1": two["m1"] @ make.turn()[:, : d - 20]},
            {"NOT_ALIGNED_BUT_ALIGNABLE"},
        ),
        "other columns, unrelated": (two | {"m1": make.noise(40)[:, : d - 20]}, {"NO_PAIRING"}),
        "offset": (make.offset(make.aligned(2, 0.8), 20), {"MODALITY_GAP", "CONE"}),
        "unlike shapes": (make.unlike_shapes(), {"COV_GAP"}),
        "hubs": (make.hubs(), {"HUBNESS"}),
        "one point": (point, {"COLLAPSE", "NO_PAIRING"}),
        "cone": ({name: x + make.axis(14) for name, x in three.items()}, {"CONE", "HEALTHY"}),
        "two dimensions of many": (flat, {"DIM_COLLAPSE"}),
        "three modalities, a tenth mispaired": (make.swapped(three, 0.1), {"MISPAIRS"}),
        "two modalities, a tenth mispaired": (make.swapped(two, 0.1), {"MISPAIRS"}),
        "off by one row": (two | {"m1": np.roll(two["m1"], 1, axis=0)}, {"NO_PAIRING", "SHIFTED_JOIN"}),
        "reversed": (two | {"m1": two["m1"][::-1]}, {"NO_PAIRING", "SHIFTED_JOIN"}),
        "a quarter are copies": (make.copies(), {"TIES", "HEALTHY"}),
    }
    return {
        name: (data if isinstance(data, Dataset) else dataset_of(data), codes)
        for name, (data, codes) in found.items()
    }
