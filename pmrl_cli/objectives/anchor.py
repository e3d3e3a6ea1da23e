"""InfoNCE of one fixed modality with each of the others."""

from __future__ import annotations

from torch import Tensor, nn

from pmrl_cli.objectives import Loss
from pmrl_cli.objectives.contrast import LearnedTemperature, pairwise_contrast, part_anchor
from pmrl_cli.objectives.peers import ALONE, Peers

__all__ = ["Anchor"]


class Anchor(nn.Module):
    """Symmetric InfoNCE of the anchor with every other modality, over the whole batch.

    The mean over (other modality, instance that has it and the anchor). An instance without the anchor is no
    positive; it is a negative where its modality is searched. Two modalities without the anchor are never compared:
    they agree only as far as both agree with it.

    Args:
        anchor: index of the modality, in the order of the modalities' names (that of ``pmrl inspect``).
        temperature: divides the cosines at first, in [0.015, 1]; it is learned.

    Source: Girdhar et al., "ImageBind: One Embedding Space To Bind Them All", CVPR 2023; departs: the anchor's
        adapter is trained too (there its encoder is frozen), both directions weigh the same, masked.
    """

    shares = on_device = True

    def __init__(self, *, anchor: int = 0, temperature: float = 0.1) -> None:
        super().__init__()
        self.anchor = anchor
        self.temperature = LearnedTemperature(temperature)

    def forward(self, embeddings: Tensor, present: Tensor, peers: Peers = ALONE) -> Loss:
        """Return the loss of a batch.

        Args:
            embeddings: (b, K, d), unit length where present, anything finite elsewhere.
            present: (b, K) bool.
            peers: the processes that share the batch.

        Raises: UsageError if there is no such anchor.
        """
        pairs = [(self.anchor, m) for m in part_anchor(present.shape[1], self.anchor)]
        temperature = self.temperature()
        value = pairwise_contrast(embeddings, present, temperature, pairs, peers) + 0 * temperature
        return Loss(value, {"temperature": temperature.detach() / peers.size})
