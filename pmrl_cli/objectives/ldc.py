"""Leading-direction contrast: every modality against what the others of an instance share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pmrl_cli.objectives import Loss
from pmrl_cli.objectives.contrast import LearnedTemperature, Pair, info_nce, masked_mean, zero_where_absent
from pmrl_cli.objectives.peers import ALONE, Peers
from pmrl_cli.objectives.pmrl import spectrum_loss
from pmrl_cli.spectrum import leave_one_out_directions, spectrum

__all__ = ["Ldc"]


class Ldc(nn.Module):
    """Symmetric InfoNCE of each embedding with the leading direction of the instance's other modalities.

    The leave-one-out part is the mean over (modality, instance that has it and another one); its negatives are the
    same modality's leave-one-out directions of the whole batch. Added is the spectrum part of ``pmrl``. With two
    modalities the other's leading direction is the other, and the first part is ``infonce``.

    Args:
        spectrum_weight: of the spectrum part.
        temperature: divides the cosines at first, in [0.015, 1]; it is learned.

    Source: this project, after Liu, Xia, Ng, Chua, "Principled Multimodal Representation Learning", 2025 (arXiv
        2507.17343). Contrast with a consensus that holds the query itself leaks the answer; leaving one out does not.
    """

    shares = on_device = True

    def __init__(self, *, spectrum_weight: float = 0.3, temperature: float = 0.1) -> None:
        super().__init__()
        self.spectrum_weight = spectrum_weight
        self.temperature = LearnedTemperature(temperature)

    def forward(self, embeddings: Tensor, present: Tensor, peers: Peers = ALONE) -> Loss:
        """Return the loss of a batch.

        Args:
            embeddings: (b, K, d), unit length where present, anything finite elsewhere.
            present: (b, K) bool.
            peers: the processes that share the batch.
        """
        temperature = self.temperature()
        whole = peers.gather(present)
        scaled = zero_where_absent(embeddings, present) / temperature
        others = peers.gather(leave_one_out_directions(embeddings, present))
        has_others = whole.sum(1, keepdim=True) > whole.int()
        pairs = [Pair(scaled[:, m], present[:, m], others[:, m], has_others[:, m]) for m in range(present.shape[1])]
        losses = torch.stack(info_nce(pairs, peers), 1)
        contrast = masked_mean(losses, present & peers.own(has_others), whole & has_others)
        value = embeddings[:0].sum() + 0 * temperature + contrast
        parts = {"temperature": temperature.detach() / peers.size, "contrast": contrast.detach()}
        if self.spectrum_weight and present.shape[1] > 1:
            spectral, _ = spectrum_loss(spectrum(embeddings, present, lifted=True), present, peers)
            part = masked_mean(spectral, present.sum(1) > 1, whole.sum(1) > 1)
            value = value + self.spectrum_weight * part
            parts["spectrum"] = part.detach()
        return Loss(value, parts)
