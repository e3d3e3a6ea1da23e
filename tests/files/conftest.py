"""Small feature files in every format."""

import json
import struct
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest


class Maker:
    """Writes feature files into one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def h5(self, name, arrays, **options):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(path, "w") as file:
            for key, values in arrays.items():
                text = isinstance(values, list) and values and isinstance(values[0], str | bytes)
                if text:
                    file.create_dataset(key, data=values, dtype=h5py.string_dtype())
                else:
                    file.create_dataset(key, data=values, **(options if np.ndim(values) == 2 else {}))
        return str(path)

    def parquet(self, name, columns, **options):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), path, **options)
        return str(path)

    def bfloat16(self, name, bits):
        path = self.folder / name
        entry = {"dtype": "BF16", "shape": list(bits.shape), "data_offsets": [0, bits.nbytes]}
        header = json.dumps({"emb": entry}).encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header + bits.tobytes())
        return str(path)

    def two(self, n=4, ids=None):
        """Two modalities, image (n, 3) and text (n, 2), of the same ids."""
        ids = ids if ids is not None else [f"i{row}" for row in range(n)]
        return [
            self.h5("image.h5", {"features": vectors(n, 3), "ids": ids}),
            self.h5("text.h5", {"features": vectors(n, 2, start=100), "ids": ids}),
        ]


def vectors(rows, dim, start=1, dtype=np.float32):
    """Rows of distinct finite non-zero numbers, exact in float16."""
    return np.arange(start, start + rows * dim, dtype=dtype).reshape(rows, dim)


@pytest.fixture
def make(tmp_path):
    return Maker(tmp_path)
