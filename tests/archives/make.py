"""Writes a tiny store, model and export of each format: ``python tests/archives/make.py FOLDER``.

Run once for each format version; what it wrote is kept and read by test_archives.py for ever.
"""

import sys
from pathlib import Path

import numpy as np

from pmrl_cli.cli.main import command_line
from pmrl_cli.files.artifacts.store import ingest_store


def make(folder: Path) -> None:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(60, 3))
    inputs = []
    for name, dim in (("image", 4), ("text", 3)):
        path = folder / f"{name}.npy"
        np.save(path, (latent @ rng.normal(size=(3, dim)) + 0.1 * rng.normal(size=(60, dim))).astype(np.float32))
        inputs.append(str(path))
    ingest_store(inputs, folder / "store")
    for path in inputs:
        Path(path).unlink()
    store, model = str(folder / "store"), str(folder / "model")
    quick = ("--steps", "20", "--dim", "2", "--adapter", "mlp", "--dropout", "0", "--threads", "1", "-q")
    command_line(["fit", store, "-o", model, *quick], standalone_mode=False)
    for kind in ("parquet", "h5", "npy", "arrow"):
        out = str(folder / kind)
        command_line(["export", store, "--model", model, "--format", kind, "-o", out, "-q"], standalone_mode=False)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
    (Path(sys.argv[1]) / "model" / "run.json").unlink()  # it names the machine
