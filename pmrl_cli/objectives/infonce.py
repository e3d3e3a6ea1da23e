"""InfoNCE over all pairs of modalities: the baseline to beat."""

from __future__ import annotations

from torch import Tensor, nn

from pmrl_cli.objectives import Loss
from pmrl_cli.objectives.contrast import LearnedTemperature, pairwise_contrast
from pmrl_cli.objectives.peers import ALONE, Peers

__all__ = ["InfoNce"]


class InfoNce(nn.Module):
    """Symmetric InfoNCE of every two modalities, over the whole batch.

    The mean over (pair, instance that has both). The negatives of an instance are all others that have the modality
    searched for, complete or not.

    Args:
        temperature: divides the cosines at first, in [0.015, 1]; it is learned.

    Source: Tian, Krishnan, Isola, "Contrastive Multiview Coding", ECCV 2020 (full graph), with the symmetric loss of
        Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021; departs:
        starts at temperature .1 (there .07) and is masked.
    """

    shares = on_device = True

    def __init__(self, *, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = LearnedTemperature(temperature)

    def forward(self, embeddings: Tensor, present: Tensor, peers: Peers = ALONE) -> Loss:
        """Return the loss of a batch.

        Args:
            embeddings: (b, K, d), unit length where present, anything finite elsewhere.
            present: (b, K) bool.
            peers: the processes that share the batch.
        """
        temperature = self.temperature()
        value = pairwise_contrast(embeddings, present, temperature, peers=peers) + 0 * temperature
        return Loss(value, {"temperature": temperature.detach() / peers.size})
