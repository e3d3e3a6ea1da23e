"""What ``Aligner.transform`` costs: one row and a thousand, of all modalities of a model and of its first.

    python benchmarks/serving.py MODEL

Milliseconds of CPU time a call on one thread: the least of ten means over 50 calls (5 of a thousand rows). The
products are those of the members alone, in their shapes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pmrl_cli import Aligner
from pmrl_cli.encoders.residual import Residual


def milliseconds(call: Callable[[], object], count: int) -> float:
    """Return the CPU time of a call."""
    means = []
    for _ in range(10):
        began = time.process_time()
        for _ in range(count):
            call()
        means.append((time.process_time() - began) / count)
    return 1e3 * min(means)


def products(aligner: Aligner, rows: int, modalities: int) -> Callable[[], None]:
    """Return what multiplies matrices as embedding so many rows of the first modalities does."""
    pairs = []
    for member in aligner.model.members:
        assert isinstance(member.encoder, Residual)
        for projection, adapter in zip(member.projections[:modalities], member.encoder.each, strict=False):
            kernel = projection.kernel
            shapes = [projection.basis.shape]
            if kernel is not None:
                shapes += [kernel.landmarks.T.shape, kernel.basis.shape]
            shapes += [tuple(weight.shape) for weight in adapter.state_dict().values() if weight.ndim == 2][1:]
            for first, last in shapes:
                pairs.append((np.ones((rows, first), np.float32), np.ones((first, last), np.float32)))

    def multiply() -> None:
        for rows_of, factor in pairs:
            rows_of @ factor

    return multiply


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    torch.set_num_threads(1)
    aligner = Aligner.load(parser.parse_args().model, device="cpu")
    members = ", ".join("kernel" if m.projections[0].kernel else "linear" for m in aligner.model.members)
    print(f"{len(aligner.names)} modalities, members: {members}; {aligner.dim} dimensions")
    print("| rows | modalities | ms | products | ratio |\n|--:|--:|--:|--:|--:|")
    rng = np.random.default_rng(0)
    for rows, count in ((1, 50), (1000, 5)):
        for modalities in (len(aligner.names), 1):
            named = list(zip(aligner.names, aligner.widths, strict=True))[:modalities]
            features = {name: rng.standard_normal((rows, width)).astype(np.float32) for name, width in named}
            ours = milliseconds(lambda features=features: aligner.transform(features), count)
            floor = milliseconds(products(aligner, rows, modalities), count)
            print(f"| {rows:,} | {modalities} | {ours:.2f} | {floor:.2f} | {ours / floor:.1f} |", flush=True)


if __name__ == "__main__":
    main()
