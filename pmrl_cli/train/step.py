"""One step of training: the loss of a batch that processes may share, its gradient, and AdamW."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pmrl_cli.adamw import AdamW
from pmrl_cli.batch import Inputs, Loss
from pmrl_cli.encoders.protocol import Encoder
from pmrl_cli.methods.protocol import Update
from pmrl_cli.process_group import SINGLE_PROCESS, ProcessGroup
from pmrl_cli.terms.weighted import WeightedTerms
from pmrl_cli.train.draws import seed_torch
from pmrl_cli.train.loader import Batch, map_inputs, tensors_of

__all__ = ["Step", "StepOptions", "Totals", "mix"]

WEIGHT_DECAY = 0.1
"""On the departure from the closed form and on the residual branch; temperatures are not decayed."""


def mix(inputs: Inputs, concentration: float) -> Inputs:
    """Mix each instance of a batch with another one, in the same proportion in all its modalities.

    Args:
        inputs: the batch.
        concentration: a of the Beta(a, a) that one proportion for the batch is drawn from, > 0.

    Returns: the mixed components, the modalities that both have, and the label that both have.

    Source: Vouitsis et al., "Data-Efficient Multimodal Fusion on a Single GPU" (FuseMix), CVPR 2024; departs: the
        other instance is drawn by permutation, where there two batches are mixed.
    """
    weight = float(torch.distributions.Beta(concentration, concentration).sample())
    other = torch.randperm(len(inputs.present)).to(inputs.present.device)
    labels = inputs.labels
    return inputs._replace(
        components=[weight * c + (1 - weight) * c[other] for c in inputs.components],
        present=inputs.present & inputs.present[other],
        labels=None if labels is None else labels.masked_fill(labels != labels[other], -1),
    )


@dataclass(frozen=True)
class StepOptions:
    """How a step is taken.

    Args:
        learning_rate: of AdamW.
        mixup: concentration of ``mix``; 0 mixes nothing.
        seed: of what is drawn in a step.
        bf16: whether the encoder's products run in bfloat16.
    """

    learning_rate: float
    mixup: float = 0.0
    seed: int = 0
    bf16: bool = False


class Totals:
    """What a step found, of all processes; on the device, until it is asked for.

    Args:
        names: ``loss`` and the parts of the terms.
        numbers: (len(names) + 2,): those, how many processes ask to stop, and the norm of the gradient.
    """

    def __init__(self, names: tuple[str, ...], numbers: Tensor) -> None:
        self.names = names
        self._numbers = numbers

    def read(self) -> tuple[dict[str, float], float, bool]:
        """Return loss and parts by name, the norm of the gradient, and whether a process is asked to stop."""
        *parts, stop, norm = self._numbers.tolist()
        return dict(zip(self.names, parts, strict=True)), norm, stop > 0


class Step:
    """Changes the encoder and the terms by one step a call.

    A loss or gradient that is not finite changes nothing, nor does any later step: the optimiser reads it on the
    device, without a wait for the host.

    On a GPU a step is some hundred small kernels, which take longer to launch than to run. Where nothing in it is
    drawn or decided by the host, the first call captures it as a CUDA graph, which every call then replays.

    Args:
        encoder: to be trained, on the device.
        terms: the loss, there too.
        options: how a step is taken.
        update: what follows the optimiser; None for nothing.
        processes: the processes that share each batch.
    """

    def __init__(
        self,
        encoder: Encoder,
        terms: WeightedTerms,
        options: StepOptions,
        update: Update | None = None,
        processes: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self._encoder, self._terms, self._update, self._processes = encoder, terms, update, processes
        self._options = options
        self.parameters = [*encoder.parameters(), *terms.parameters()]
        for parameter in self.parameters:
            # The fused optimiser pairs a parameter with its moments by their places in memory, and moments that are
            # read from a checkpoint lie row after row.
            parameter.data = parameter.data.contiguous()
        groups = [(list(encoder.parameters()), WEIGHT_DECAY), (list(terms.parameters()), 0.0)]
        device = self.parameters[0].device
        # Mixing draws its proportion on the host, and processes exchange through it.
        without_host = processes.size == 1 and not options.mixup and encoder.on_device and terms.on_device
        self._captures = device.type == "cuda" and without_host and (update is None or update.on_device)
        # Read by the fused kernel: 1 leaves parameters and moments as they are.
        self._bad = torch.zeros((), device=device)
        self.optimiser = AdamW(
            [group for group in groups if group[0]],
            learning_rate=options.learning_rate,
            bad=self._bad,
            capturable=self._captures,
        )
        self._stop = torch.zeros((), device=device)
        self._captured: _Captured | None = None

    def differentiate(self, step: int | None, batch: Batch) -> Loss:
        """Return this process's part of the loss, its gradients left in the parameters.

        Args:
            step: its number, from 1; None draws from torch's generators as they are.
            batch: the instances.
        """
        # Dropout and mixing are drawn by each process for its instances, what the terms draw by all alike.
        if step is not None:
            seed_torch(self._options.seed, "instances", step, self._processes.rank)
        inputs = mix(batch.inputs, self._options.mixup) if self._options.mixup else batch.inputs
        with torch.autocast(inputs.present.device.type, dtype=torch.bfloat16, enabled=self._options.bf16):
            encoded = self._encoder(inputs)
        if step is not None:
            seed_torch(self._options.seed, "objective", step)
        loss: Loss = self._terms(encoded, inputs, self._processes.batch_group(batch.counts))
        self.optimiser.zero_grad()
        loss.value.backward()  # type: ignore[no-untyped-call]
        return loss

    def __call__(self, step: int, batch: Batch, *, stop: bool = False) -> Totals:
        """Take a step.

        Args:
            step: its number, from 1.
            batch: the instances.
            stop: whether this process asks all to stop.
        """
        self._stop.fill_(stop)
        if not self._captures:
            return Totals(*self._change(step, batch))
        if self._captured is None:
            self._captured = self._capture(batch)
        seed_torch(self._options.seed, "instances", step, self._processes.rank)
        return self._captured.replay(batch)

    def _change(self, step: int | None, batch: Batch) -> tuple[tuple[str, ...], Tensor]:
        """Take a step, and return what ``Totals`` takes."""
        loss = self.differentiate(step, batch)
        numbers = torch.stack(
            [part.detach().to(torch.float32) for part in (loss.value, *loss.parts.values(), self._stop)]
        )
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        if self._processes.size > 1:
            whole = self._processes.all_reduce(torch.cat([*(g.flatten() for g in gradients), numbers]))
            *summed, numbers = torch.split_with_sizes(whole, [*(g.numel() for g in gradients), len(numbers)])
            torch._foreach_copy_(gradients, [s.view_as(g) for s, g in zip(summed, gradients, strict=True)])
        norm = nn.utils.get_total_norm(gradients)
        self._bad.clamp_min_((~torch.isfinite(numbers[0] + norm)).to(torch.float32))
        self._optimise()
        return ("loss", *loss.parts), torch.cat([numbers, norm[None].to(torch.float32)])

    def _optimise(self) -> None:
        if self._update is None:
            self.optimiser.step()
            return
        with torch.no_grad():
            before = {name: parameter.clone() for name, parameter in self._encoder.named_parameters()}
            self.optimiser.step()
            self._update(before, dict(self._encoder.named_parameters()))

    def _capture(self, batch: Batch) -> _Captured:
        batch = replace(batch, inputs=map_inputs(batch.inputs, torch.clone))
        self._bad.fill_(1)  # nothing is to change before the first replay
        with torch.cuda.device(batch.inputs.present.device):
            aside, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()  # type: ignore[no-untyped-call]
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                for _ in range(3):  # what libraries set up at their first use cannot be captured
                    self._change(None, batch)
            torch.cuda.current_stream().wait_stream(aside)
            # The thread that reads ahead goes on meanwhile.
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                names, numbers = self._change(None, batch)
        self._bad.fill_(0)
        return _Captured(graph, batch, names, numbers)


@dataclass(frozen=True)
class _Captured:
    """A step as a CUDA graph: what it reads, and what it leaves."""

    graph: torch.cuda.CUDAGraph
    batch: Batch
    names: tuple[str, ...]
    numbers: Tensor

    def replay(self, batch: Batch) -> Totals:
        """Take the step on a batch."""
        for held, new in zip(tensors_of(self.batch.inputs), tensors_of(batch.inputs), strict=True):
            held.copy_(new)
        self.graph.replay()
        return Totals(self.names, self.numbers.clone())
