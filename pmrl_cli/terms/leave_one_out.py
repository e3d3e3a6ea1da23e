"""Leading-direction contrast: every modality against what the others of an instance share."""

from __future__ import annotations

from pmrl_cli.batch import SINGLE, BatchGroup, Encoded, Inputs, Loss
from pmrl_cli.spectrum import leave_one_out_directions
from pmrl_cli.terms.contrast import LearnedTemperature, info_nce, masked_mean, matches, zero_where_absent
from pmrl_cli.terms.protocol import Term

__all__ = ["LeaveOneOutContrast"]


class LeaveOneOutContrast(Term):
    """Symmetric InfoNCE of each embedding with the leading direction of the instance's other modalities.

    The mean over (modality, instance that has it and another one); its negatives are the same modality's
    leave-one-out directions of the whole batch. With two modalities the other's leading direction is the other, and
    this is ``PairwiseContrast``.

    Args:
        temperature: divides the cosines at first, in [0.015, 1]; it is learned.
    """

    local = on_device = True

    def __init__(self, *, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = LearnedTemperature(temperature)

    def forward(self, encoded: Encoded, inputs: Inputs, group: BatchGroup = SINGLE) -> Loss:
        """Return the local loss of a batch."""
        embeddings, present = encoded.vectors, encoded.present
        temperature = self.temperature()
        whole = group.gather(present)
        scaled = zero_where_absent(embeddings, present) / temperature
        others = group.gather(leave_one_out_directions(embeddings, present))
        has_others = whole.sum(1, keepdim=True) > whole.int()
        pairs = [(m, m) for m in range(present.shape[1])]
        first, second, has_first, has_second = (
            side.transpose(0, 1) for side in (scaled, others, present, has_others)
        )
        losses = info_nce(first, second, has_first, has_second, pairs, group, matches(inputs, group)).mT
        contrast = masked_mean(losses, present & group.local(has_others), whole & has_others)
        value = embeddings[:0].sum() + 0 * temperature + contrast
        return Loss(value, {"temperature": temperature.detach() / group.size, "contrast": contrast.detach()})
