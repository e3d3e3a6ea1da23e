"""AdamW by torch's fused kernel, without what its class imports: torch's compiler, two CPU seconds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

__all__ = ["AdamW"]

BETAS, EPSILON = (0.9, 0.999), 1e-8


class AdamW:
    """Loshchilov and Hutter, "Decoupled Weight Decay Regularization", ICLR 2019; as torch's own, fused.

    Args:
        groups: parameters, with the weight decay of each group.
        learning_rate: of all.
        betas: of the moments. Without weight decay this is Adam.
        bad: read by the kernel; 1 leaves parameters and moments as they are.
        capturable: whether steps are captured as a CUDA graph.
    """

    def __init__(
        self,
        groups: Sequence[tuple[Sequence[nn.Parameter], float]],
        *,
        learning_rate: float,
        betas: tuple[float, float] = BETAS,
        bad: Tensor | None = None,
        capturable: bool = False,
    ) -> None:
        self.parameters = [parameter for parameters, _ in groups for parameter in parameters]
        self._groups, self._learning_rate, self._betas = groups, learning_rate, betas
        self._bad, self._capturable = bad, capturable
        self._state: dict[int, dict[str, Tensor]] = {}

    def zero_grad(self) -> None:
        """Drop all gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Change the parameters that have a gradient."""
        index = 0
        for parameters, weight_decay in self._groups:
            moved: list[Tensor] = []
            states: list[dict[str, Tensor]] = []
            for parameter in parameters:
                if parameter.grad is not None:
                    moved.append(parameter)
                    states.append(self._state_of(index, parameter))
                index += 1
            adamw(
                moved,
                [parameter.grad for parameter in moved if parameter.grad is not None],
                [state["exp_avg"] for state in states],
                [state["exp_avg_sq"] for state in states],
                [],
                [state["step"] for state in states],
                fused=True,
                capturable=self._capturable,
                found_inf=self._bad,
                amsgrad=False,
                beta1=self._betas[0],
                beta2=self._betas[1],
                lr=self._learning_rate,
                weight_decay=weight_decay,
                eps=EPSILON,
                maximize=False,
            )

    def _state_of(self, index: int, parameter: nn.Parameter) -> dict[str, Tensor]:
        if index not in self._state:
            self._state[index] = {
                "step": torch.zeros((), dtype=torch.float32, device=parameter.device),
                "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            }
        return self._state[index]

    def state_dict(self) -> dict[str, Any]:
        """Return the moments and steps of each parameter, by its number, as torch's optimisers do."""
        return {"state": self._state, "param_groups": []}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what ``state_dict`` returned."""
        self._state = {
            index: {name: tensor.to(self.parameters[index].device) for name, tensor in of_one.items()}
            for index, of_one in state["state"].items()
        }
