"""Initialization: the closed-form map that training starts from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from pmrl_cli.closed_form.arithmetic import arithmetic_of
from pmrl_cli.closed_form.gcca import Gcca, gcca
from pmrl_cli.closed_form.projected import ProjectedData
from pmrl_cli.closed_form.projection import FeatureMap
from pmrl_cli.process_group import SINGLE_PROCESS, ProcessGroup, broadcast_arrays

__all__ = [
    "GccaConfig",
    "Initialization",
    "from_nothing",
    "power_weights",
    "scaled_init",
    "solve_gcca_init",
    "whiten",
]

_ROWS = 65536  # whitened at once


@dataclass(frozen=True)
class GccaConfig:
    """A closed form.

    Args:
        features: what its components are.
        ridge: relative ridge of the whitening; 0 for features as given, as is the power.
        power: exponent q of the correlations that weight the directions.
        dim: dimension d of the shared space.
    """

    features: FeatureMap
    ridge: float
    power: float
    dim: int


@dataclass(frozen=True)
class Initialization:
    """A closed-form solution as training starts from it.

    Args:
        whiten: per modality (p_m,) factors on the components.
        maps: per modality (p_m, d) from whitened components to outputs of mean squared length d.
    """

    whiten: tuple[npt.NDArray[np.float32], ...]
    maps: tuple[npt.NDArray[np.float32], ...]


def power_weights(correlations: npt.NDArray[np.float64], power: float) -> npt.NDArray[np.float64]:
    """Return the weights of the directions: their correlations to a power."""
    # Where nothing correlates, all directions are as good: weighting them by 0 would map everything to the origin.
    return correlations**power if correlations.any() else np.ones_like(correlations)


def solve_gcca_init(
    data: ProjectedData, config: GccaConfig, solver: str, processes: ProcessGroup = SINGLE_PROCESS
) -> Initialization:
    """Solve a closed form."""
    solution = None
    if config.features.kind != "given":
        solution = gcca(data.cross, data.variances, ridge=config.ridge, dim=config.dim, solver=solver)
    return scaled_init(data, config, solution, processes)


def scaled_init(
    data: ProjectedData, config: GccaConfig, solution: Gcca | None, processes: ProcessGroup = SINGLE_PROCESS
) -> Initialization:
    """Return a solution as training starts from it.

    The maps are scaled to outputs of root mean square 1 per dimension, so that the residual branch, whose weights
    start at ordinary sizes, has a comparable scale; cosines are unaffected.

    Args:
        data: that was solved for.
        config: of the closed form.
        solution: of its ridge, with as many directions or more; None for features as they are.
        processes: the processes that agree on it.
    """
    if solution is None:
        identity = tuple(np.eye(config.dim, dtype=np.float32) for _ in data.projections)
        return Initialization(tuple(np.ones(config.dim, dtype=np.float32) for _ in data.projections), identity)
    weight = power_weights(solution.correlations, config.power)[: config.dim]
    maps = []
    for factors, variance, directions in zip(solution.whiten, data.variances, solution.maps, strict=True):
        weighted = directions[:, : config.dim] * weight
        power = float(np.sum((variance * factors**2)[:, None] * weighted**2))
        maps.append((weighted * np.sqrt(config.dim / power) if power > 0 else weighted).astype(np.float32))
    arrays = {f"whiten{m}": factors.astype(np.float32) for m, factors in enumerate(solution.whiten)}
    arrays |= {f"map{m}": directions for m, directions in enumerate(maps)}
    agreed = broadcast_arrays(processes, arrays)  # an eigenvector may have the other sign elsewhere
    return Initialization(*(tuple(agreed[f"{name}{m}"] for m in range(len(maps))) for name in ("whiten", "map")))


def from_nothing(start: Initialization, dim: int) -> Initialization:
    """Return the start with maps of zeros to ``dim`` outputs: what is added to them starts alone."""
    return replace(start, maps=tuple(np.zeros((len(m), dim), dtype=np.float32) for m in start.maps))


def whiten(data: ProjectedData, init: Initialization) -> ProjectedData:
    """Return the data with the components that an encoder of this initialization takes."""
    # In place: the arrays were made here, and a second copy of it would double the largest thing in memory.
    for components, factors in zip(data.components, init.whiten, strict=True):
        factors_there = arithmetic_of(components).send(factors)
        for first in range(0, len(components), _ROWS):
            components[first : first + _ROWS] *= factors_there
    times = (projection.times(factors) for projection, factors in zip(data.projections, init.whiten, strict=True))
    return replace(data, projections=tuple(times))
