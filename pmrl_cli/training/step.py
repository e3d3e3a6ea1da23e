"""One step of training: the loss of a batch that processes may share, its gradient, and AdamW."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pmrl_cli.adapters import Adapters
from pmrl_cli.objectives import Loss, share_of_loss
from pmrl_cli.training.draws import seed_torch
from pmrl_cli.training.feed import Batch
from pmrl_cli.world import ALONE, World

__all__ = ["Step", "Totals", "mix"]

WEIGHT_DECAY = 0.1
"""On the departure from the closed form and on the residual branch; temperatures are not decayed."""


def mix(scores: Sequence[Tensor], present: Tensor, concentration: float) -> tuple[list[Tensor], Tensor]:
    """Mix each instance of a batch with another one, in the same proportion in all its modalities.

    Args:
        scores: per modality (B, p_m).
        present: (B, K) bool.
        concentration: a of the Beta(a, a) that one proportion for the batch is drawn from, > 0.

    Returns: the mixed scores, and which modalities both have.

    Source: Vouitsis et al., "Data-Efficient Multimodal Fusion on a Single GPU" (FuseMix), CVPR 2024; departs: the
        other instance is drawn by permutation, where there two batches are mixed.
    """
    share = float(torch.distributions.Beta(concentration, concentration).sample())
    other = torch.randperm(len(present)).to(present.device)
    return [share * s + (1 - share) * s[other] for s in scores], present & present[other]


class Totals:
    """What a step found, of all processes; on the device, until it is asked for.

    Args:
        names: ``loss`` and the objective's parts.
        numbers: (len(names) + 2,): those, how many processes ask to stop, and the norm of the gradient.
    """

    def __init__(self, names: tuple[str, ...], numbers: Tensor) -> None:
        self.names = names
        self._numbers = numbers

    def read(self) -> tuple[dict[str, float], float, bool]:
        """Return loss and parts by name, the norm of the gradient, and whether anybody asks to stop."""
        *parts, stop, norm = self._numbers.tolist()
        return dict(zip(self.names, parts, strict=True)), norm, stop > 0


class Step:
    """Changes adapters and objective by one step a call.

    A loss or gradient that is not finite changes nothing, nor does any later step: the optimiser is told on the
    device, which nobody has to wait for.

    Args:
        adapters: to be trained, on the device.
        objective: the loss, there too.
        learning_rate: of AdamW.
        mixup: concentration of ``mix``; 0 mixes nothing.
        seed: of what is drawn in a step.
        bf16: whether the adapters' products run in bfloat16.
        world: the processes that share each batch.
    """

    def __init__(
        self,
        adapters: Adapters,
        objective: nn.Module,
        *,
        learning_rate: float,
        mixup: float = 0.0,
        seed: int = 0,
        bf16: bool = False,
        world: World = ALONE,
    ) -> None:
        self._adapters, self._objective = adapters, objective
        self._mixup, self._seed, self._bf16, self._world = mixup, seed, bf16, world
        self.parameters = [*adapters.parameters(), *objective.parameters()]
        groups = [
            {"params": list(adapters.parameters()), "weight_decay": WEIGHT_DECAY},
            {"params": list(objective.parameters()), "weight_decay": 0.0},
        ]
        self.optimiser = torch.optim.AdamW([g for g in groups if g["params"]], lr=learning_rate, fused=True)
        # Read by the fused kernel: 1 leaves parameters and moments as they are.
        self._bad = torch.zeros((), device=self.parameters[0].device)
        self.optimiser.found_inf = self._bad  # type: ignore[attr-defined]

    def differentiate(self, step: int, batch: Batch) -> Loss:
        """Return this process's share of the loss, its gradients left in the parameters.

        Args:
            step: its number, from 1.
            batch: the instances.
        """
        # Dropout and mixing are drawn by each process for its instances, what the objective draws by all alike.
        seed_torch(self._seed, "instances", step, self._world.rank)
        scores, present = batch.scores, batch.present
        if self._mixup:
            scores, present = mix(scores, present, self._mixup)
        with torch.autocast(present.device.type, dtype=torch.bfloat16, enabled=self._bf16):
            embeddings = self._adapters(scores)
        seed_torch(self._seed, "objective", step)
        loss = share_of_loss(self._objective, embeddings, present, self._world.peers(batch.counts))
        self.optimiser.zero_grad(set_to_none=True)
        loss.value.backward()  # type: ignore[no-untyped-call]
        return loss

    def __call__(self, step: int, batch: Batch, *, stop: bool = False) -> Totals:
        """Take a step.

        Args:
            step: its number, from 1.
            batch: the instances.
            stop: whether this process asks all to stop.
        """
        loss = self.differentiate(step, batch)
        shares = [loss.value.detach(), *loss.parts.values(), loss.value.new_full((), float(stop))]
        numbers = torch.stack([share.to(torch.float32) for share in shares])
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if self._world.size > 1:
            whole = self._world.sum(torch.cat([*(g.flatten() for g in gradients), numbers]))
            *summed, numbers = torch.split_with_sizes(whole, [*(g.numel() for g in gradients), len(numbers)])
            torch._foreach_copy_(gradients, [s.view_as(g) for s, g in zip(summed, gradients, strict=True)])
        norm = nn.utils.get_total_norm(gradients)
        self._bad.clamp_min_((~torch.isfinite(numbers[0] + norm)).to(torch.float32))
        self.optimiser.step()
        return Totals(("loss", *loss.parts), torch.cat([numbers, norm[None].to(torch.float32)]))
