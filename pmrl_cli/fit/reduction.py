"""The principal axes of the space that a fit makes, by which it can be had in fewer dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from pmrl_cli.closed_form.projected import ProjectedData
from pmrl_cli.encoders.protocol import Encoder
from pmrl_cli.fit.context import FitContext
from pmrl_cli.methods import REGISTRY, method_class
from pmrl_cli.methods.protocol import Method
from pmrl_cli.model.members import side_by_side
from pmrl_cli.model.reduction import principal_axes
from pmrl_cli.process_group import broadcast_arrays
from pmrl_cli.train.objectives import closed_form_stands_in, objectives_of
from pmrl_cli.train.run import embed
from pmrl_cli.train.settings import FitSettings

__all__ = ["DIMS", "axes_of", "can_reduce"]

DIMS = (64, 128, 256)
"""Dimensions of which a fit says what they cost."""

AXES_ROWS = 4096
"""Training instances, evenly spaced, on whose vectors the axes are found."""

_BLOCK = 2048


def can_reduce(settings: FitSettings) -> bool:
    """Return whether a dimension asked for may be had along axes: not of encoders that make more than vectors."""
    objectives = [name for name in objectives_of(settings) if name in REGISTRY]
    own = all(method_class(name).encoder is Method.encoder for name in objectives)
    return own and closed_form_stands_in(replace(settings, trained=False))


def axes_of(
    ctx: FitContext, members: Sequence[tuple[Encoder, ProjectedData]], train: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Return the (d, d) principal axes of the vectors of training instances; the same in every process.

    Args:
        ctx: of the fit.
        members: encoder, on the CPU, and whitened components of each.
        train: (n_train,) row numbers of the instances that trained.
    """
    local = ctx.run.local(train[:: -(-len(train) // AXES_ROWS)])
    moment = torch.zeros(0)
    for first in range(0, max(1, len(local)), _BLOCK):
        some = local[first : first + _BLOCK]
        vectors = side_by_side([embed(encoder, data, some) for encoder, data in members])
        vectors = vectors[torch.from_numpy(ctx.dataset.present[some])]
        product = (vectors.T @ vectors).double()
        moment = moment + product if len(moment) else product
    moment = ctx.processes.all_reduce(moment)
    return broadcast_arrays(ctx.processes, {"axes": principal_axes(moment)})["axes"]
