"""A fitted model as ONNX graphs: for each modality one, from its features to its unit vectors.

What ``Member.embed`` does in NumPy and torch is written once more in torch operators, and torch traces it. A modality
is given alone: an encoder that sees several at a time sees the others as missing.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from pmrl_cli.batch import Inputs
from pmrl_cli.closed_form.projection import CLIP, Projection
from pmrl_cli.data.dataset import FloatArray
from pmrl_cli.model.members import Member, side_by_side
from pmrl_cli.model.reduction import reduced

__all__ = ["ModalityGraph", "write_onnx"]

_ROWS = 3  # of the example that is traced; the graph takes any number

OPSET = 18


class _Components(nn.Module):
    """``Projection.scores`` in torch operators."""

    def __init__(self, projection: Projection) -> None:
        super().__init__()
        self._squash = projection.squash
        self._names = tuple(projection.arrays())
        for name, array in projection.arrays().items():
            self.register_buffer(name.replace(".", "_"), torch.from_numpy(array))

    def forward(self, features: Tensor) -> Tensor:
        mean, scale, center, basis, *kernel = (self.get_buffer(name.replace(".", "_")) for name in self._names)
        standard = (features - mean) * scale
        standard = _asinh(standard) if self._squash else standard.clamp(-CLIP, CLIP)
        linear = (standard - center) @ basis
        if not kernel:
            return linear
        landmarks, width, kernel_center, kernel_basis = kernel
        squared = linear.square().sum(1, keepdim=True) + landmarks.square().sum(1) - 2 * (linear @ landmarks.t())
        values = (-width * squared.clamp_min(0)).exp()
        return values @ kernel_basis - kernel_center


def _asinh(values: Tensor) -> Tensor:
    """Return asinh of float32 values, which the exporter has no operator for: sign(x) log(|x| + sqrt(x^2 + 1))."""
    sizes = values.abs()
    return values.sign() * (sizes + (sizes.square() + 1).sqrt()).log()


class ModalityGraph(nn.Module):
    """The map from one modality's (B, d_m) float32 features to (B, d) unit vectors.

    Args:
        members: of the model, on the CPU.
        modality: its place among the modalities of the model.
        axes: (d, r) of a reduced space; None leaves it whole.
    """

    def __init__(self, members: Sequence[Member], modality: int, axes: FloatArray | None = None) -> None:
        super().__init__()
        self.register_buffer("axes", None if axes is None else torch.from_numpy(axes.copy()))
        self._modality = modality
        self._widths = [[p.components for p in member.projections] for member in members]
        self.projections = nn.ModuleList(_Components(member.projections[modality]) for member in members)
        self.encoders = nn.ModuleList(member.encoder for member in members)

    def forward(self, features: Tensor) -> Tensor:
        """Return the vectors."""
        each = []
        for projection, encoder, widths in zip(self.projections, self.encoders, self._widths, strict=True):
            components = [features.new_zeros(1, width).expand(features.shape[0], width) for width in widths]
            components[self._modality] = projection(features)
            present = torch.arange(len(widths)).eq(self._modality).expand(features.shape[0], len(widths))
            each.append(encoder(Inputs(components, present)).vectors[:, self._modality, None])
        vectors = side_by_side(each)[:, 0]
        return reduced(vectors, self.axes) if isinstance(self.axes, Tensor) else vectors


def write_onnx(path: Path, members: Sequence[Member], modality: int, axes: FloatArray | None = None) -> None:
    """Write the graph of one modality: input ``features`` (batch, d_m), output ``vectors`` (batch, d), float32.

    Args:
        path: the file.
        members: of the model, on the CPU.
        modality: its place among the modalities of the model.
        axes: (d, r) of a reduced space; None leaves it whole.

    Raises: ImportError without the package ``onnx``.
    """
    graph = ModalityGraph(members, modality, axes).eval()
    example = torch.zeros(_ROWS, members[0].projections[modality].dim)
    with warnings.catch_warnings(), torch.no_grad():
        # The tracer says that it fixes what does not depend on the features, such as which modality is there.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            graph,
            (example,),
            path,
            input_names=["features"],
            output_names=["vectors"],
            dynamic_axes={"features": {0: "batch"}, "vectors": {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )
