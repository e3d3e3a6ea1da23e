"""The sample data, or their first instances."""

from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

FOLDER = Path(__file__).parents[1] / "sample_data"


def put_features(folder: Path, count: int) -> list[str]:
    """Write the features of the first instances of ``left`` into a folder; return the paths."""
    folder.mkdir(parents=True)
    features = FOLDER / "features"
    with h5py.File(features / "left.h5") as file:
        kept = file["id"][:count]
    for name in ("left.h5", "right.h5"):
        with h5py.File(features / name) as old, h5py.File(folder / name, "w") as new:
            rows = np.isin(old["id"][:], kept)
            for key, column in old.items():
                new[key] = column[:][rows]
    table = pq.read_table(features / "spectrum.parquet")
    ids = pa.array(kept).cast(table["id"].type)
    pq.write_table(table.filter(pc.is_in(table["id"], ids)), folder / "spectrum.parquet")
    return sorted(map(str, folder.iterdir()))
