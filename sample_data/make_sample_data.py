"""Make the sample data: three modalities of scikit-learn's handwritten digits.

``python sample_data/make_sample_data.py [FOLDER]`` writes ``features/left.h5``, ``features/right.h5``,
``features/spectrum.parquet`` and ``labels.parquet`` into FOLDER (by default the one this script is in). Equal
versions of h5py and pyarrow write equal bytes.
"""

from __future__ import annotations

import sys
from hashlib import blake2b
from pathlib import Path

import h5py
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.datasets import load_digits

Array = npt.NDArray[np.float32]

WITHOUT_RIGHT = 0.05
WITHOUT_SPECTRUM = 0.10

# The 64 magnitudes of a real image's spectrum come in mirrored pairs; these are the 34 frequencies left.
FREQUENCIES = [(u, v) for u in range(8) for v in range(8) if (u, v) <= (-u % 8, -v % 8)]


def hashes(ids: list[str], purpose: str) -> npt.NDArray[np.float64]:
    """Return a number in [0, 1) for each id: (n,), its choice for this purpose, the same on every machine."""
    digests = [blake2b(f"{purpose}:{i}".encode(), digest_size=4).digest() for i in ids]
    return np.array([int.from_bytes(digest, "little") / 2**32 for digest in digests])


def spectrum(images: npt.NDArray[np.float64]) -> Array:
    """Return log(1 + magnitude) of the 2-D Fourier transform of (n, 8, 8) images: (n, 34) float32.

    Three decimals are kept, so that the last bit of a machine's FFT does not reach the file.
    """
    magnitudes = np.abs(np.fft.fft2(images))
    rows, columns = zip(*FREQUENCIES, strict=True)
    return np.log1p(magnitudes[:, rows, columns]).round(3).astype(np.float32)


def write_hdf5(path: Path, ids: list[str], features: Array) -> None:
    """Write datasets ``id`` (n,) and ``features`` (n, d), without times so that equal data is equal bytes."""
    with h5py.File(path, "w", libver="latest") as file:
        text = h5py.string_dtype("utf-8", len(ids[0]))
        file.create_dataset("id", data=np.array([i.encode() for i in ids], dtype=text), track_times=False)
        file.create_dataset("features", data=features, track_times=False)


def write_parquet(path: Path, ids: list[str], features: Array) -> None:
    """Write columns ``id`` and ``features`` (fixed-size list of float32)."""
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(features.ravel()), features.shape[1])
    pq.write_table(pa.table({"id": ids, "features": vectors}), path, compression="none", use_dictionary=False)


def main(folder: Path) -> None:
    """Write the four files into ``folder``."""
    digits = load_digits()
    ids = [f"digit-{number:04d}" for number in range(1, len(digits.images) + 1)]
    (folder / "features").mkdir(parents=True, exist_ok=True)
    halves = digits.images.reshape(-1, 8, 2, 4).astype(np.float32)

    def rows_of(name: str, missing: float) -> npt.NDArray[np.int64]:
        """Return the rows that have a modality, in an order of its own: only the ids say which is which."""
        order = np.argsort(hashes(ids, f"order of {name}"))
        return order[hashes(ids, f"without {name}")[order] >= missing]

    write_hdf5(folder / "features" / "left.h5", ids, halves[:, :, 0].reshape(-1, 32))
    rows = rows_of("right", WITHOUT_RIGHT)
    write_hdf5(folder / "features" / "right.h5", [ids[row] for row in rows], halves[rows, :, 1].reshape(-1, 32))
    rows = rows_of("spectrum", WITHOUT_SPECTRUM)
    write_parquet(folder / "features" / "spectrum.parquet", [ids[row] for row in rows], spectrum(digits.images[rows]))
    labels = pa.table({"id": ids, "label": pa.array(digits.target, pa.int64())})
    pq.write_table(labels, folder / "labels.parquet", compression="none", use_dictionary=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
