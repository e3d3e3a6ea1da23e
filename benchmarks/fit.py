"""A default fit beside what one would write instead: one linear InfoNCE training, and one closed-form GCCA.

    python benchmarks/fit.py SET [SET ...] [--seed 0] [--set KEY=VALUE ...]

A SET is a folder of feature files, with a labels.parquet where rows must not be parted (see ``quality.GROUPS``).
Validation .2, test .2, by hash. All three are fitted on the training instances and, as ``pmrl fit`` does where
instances are few, on the validation instances too; MRR is the mean over ordered pairs of modalities on the test
instances. CPU seconds are of this process, imports left out; wall time of a busy machine says little. All three
multiply and keep memory as the command does.

The InfoNCE script is plain: standardised features, one linear layer a modality to 64 dimensions, every pair of
modalities in the loss at temperature .1, AdamW at 1e-3, batches of 256, ranked every 5 epochs on validation until 50
epochs were no better; then as many epochs as were best, on the validation instances too. GCCA is plain too:
ridge-whitened principal components of standardised features, relative ridge .1, 64 dimensions.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from quality import GROUPS
from torch import Tensor
from torch.nn import functional

from pmrl_cli import Aligner, read_dataset
from pmrl_cli.closed_form.columns import ProjectionFitter
from pmrl_cli.closed_form.init import GccaConfig, solve_gcca_init
from pmrl_cli.closed_form.projected import project
from pmrl_cli.closed_form.projection import FeatureMap
from pmrl_cli.data.dataset import Dataset
from pmrl_cli.data.split import TEST, TRAIN, VALIDATION, SplitRule, split_instances
from pmrl_cli.files.durable.scratch import Scratch
from pmrl_cli.train.devices import choose_matmul, tune_malloc
from pmrl_cli.train.heldout import held_out_retrieval

Rows = np.ndarray[Any, Any]

DIM, TEMPERATURE, BATCH = 64, 0.1, 256
PATIENCE, EPOCHS = 50, 2000


def mrr(vectors: Tensor, present: np.ndarray[Any, Any]) -> float:
    """Return the mean reciprocal rank of (n, K, d) unit vectors."""
    return held_out_retrieval(vectors, torch.from_numpy(present)).mrr


def infonce(data: Dataset, parts: np.ndarray[Any, Any], seed: int) -> float:
    """Return the test MRR of the plain script."""
    torch.manual_seed(seed)
    fits = np.flatnonzero(parts == TRAIN)
    columns = []
    for features in data.modalities:
        x = torch.from_numpy(features.read(slice(0, len(data))))
        columns.append((x - x[fits].mean(0)) / x[fits].std(0).clamp_min(1e-6))
    present = torch.from_numpy(data.present)

    def train(rows: Tensor, epochs: int, held: Tensor | None) -> tuple[list[torch.nn.Linear], int]:
        layers = [torch.nn.Linear(c.shape[1], DIM) for c in columns]
        optimiser = torch.optim.AdamW([p for layer in layers for p in layer.parameters()], lr=1e-3)
        best, best_epoch = -1.0, epochs
        for epoch in range(1, epochs + 1):
            for batch in rows[torch.randperm(len(rows))].split(BATCH):
                z = [functional.normalize(layer(c[batch]), dim=1) for layer, c in zip(layers, columns, strict=True)]
                losses = []
                for a in range(len(z)):
                    for b in range(a):
                        both = present[batch, a] & present[batch, b]
                        logits = z[a][both] @ z[b][both].T / TEMPERATURE
                        own = torch.arange(len(logits))
                        if len(own) > 1:
                            losses.append(
                                functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)
                            )
                if losses:
                    optimiser.zero_grad()
                    torch.stack(losses).mean().backward()
                    optimiser.step()
            if held is not None and epoch % 5 == 0:
                found = mrr(embed(layers, held), data.present[held.numpy()])
                if found > best:
                    best, best_epoch = found, epoch
                elif epoch - best_epoch >= PATIENCE:
                    break
        return layers, best_epoch

    def embed(layers: list[torch.nn.Linear], rows: Tensor) -> Tensor:
        with torch.no_grad():
            z = [functional.normalize(layer(c[rows]), dim=1) for layer, c in zip(layers, columns, strict=True)]
        return torch.stack(z, 1)

    rows = {part: torch.from_numpy(np.flatnonzero(parts == part)) for part in (TRAIN, VALIDATION, TEST)}
    _, epochs = train(rows[TRAIN], EPOCHS, rows[VALIDATION])
    layers, _ = train(torch.cat([rows[TRAIN], rows[VALIDATION]]), epochs, None)
    return mrr(embed(layers, rows[TEST]), data.present[rows[TEST].numpy()])


def gcca(data: Dataset, parts: np.ndarray[Any, Any], seed: int) -> float:
    """Return the test MRR of one closed form."""
    fits, test = np.flatnonzero(parts != TEST), np.flatnonzero(parts == TEST)
    features = FeatureMap("linear", squash=False)
    projections = ProjectionFitter(data, fits, seed=seed).fit(features)
    found = project(data, np.arange(len(data)), fits, projections, cross=True, scratch=Scratch())
    init = solve_gcca_init(found, GccaConfig(features, 0.1, 1.0, min(DIM, sum(found.cross.dims))), "gcca")
    z = [
        torch.from_numpy(c[test] * whiten @ maps)
        for c, whiten, maps in zip(found.components, init.whiten, init.maps, strict=True)
    ]
    return mrr(functional.normalize(torch.stack(z, 1), dim=2), data.present[test])


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="+", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of Aligner, as JSON"
    )
    arguments = parser.parse_args()
    settings = {key: json.loads(value) for key, _, value in (pair.partition("=") for pair in arguments.set)}
    torch.set_num_threads(1)
    choose_matmul()
    tune_malloc()
    print("| set | fit MRR | InfoNCE | GCCA | fit CPU | InfoNCE | GCCA | fit / InfoNCE, MRR | CPU | fit wall |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for folder in arguments.sets:
        data = read_dataset([str(folder)])
        group = GROUPS.get(folder.name)
        parts = split_instances(data, SplitRule(arguments.seed, 0.2, 0.2, group))
        test = np.flatnonzero(parts == TEST)

        def ours(data: Dataset = data, group: str | None = group, test: Rows = test) -> float:
            aligner = Aligner(seed=arguments.seed, validation=0.2, test=0.2, group=group, device="cpu", **settings)
            embedded = aligner.fit(data).embed_dataset(data, test)
            vectors = torch.from_numpy(np.stack([f.read(slice(0, len(test))) for f in embedded.modalities], 1))
            return mrr(vectors, data.present[test])

        figures: list[tuple[float, float, float]] = []
        for run in (
            ours,
            lambda data=data, parts=parts: infonce(data, parts, arguments.seed),
            lambda data=data, parts=parts: gcca(data, parts, arguments.seed),
        ):
            cpu, wall = time.process_time(), time.perf_counter()
            figures.append((run(), time.process_time() - cpu, time.perf_counter() - wall))
        (fit, script, form) = figures
        print(
            f"| {folder.name} | {fit[0]:.4f} | {script[0]:.4f} | {form[0]:.4f} | {fit[1]:.1f} s "
            f"| {script[1]:.1f} s | {form[1]:.1f} s "
            f"| {fit[0] / script[0]:.2f} | {fit[1] / script[1]:.2f} | {fit[2]:.0f} s |",
            flush=True,
        )


if __name__ == "__main__":
    main()
