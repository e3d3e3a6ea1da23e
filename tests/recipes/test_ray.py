"""docs/recipes.md tells the truth: what it runs inside Ray Data is what one process returns."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pmrl_cli import Aligner

ROOT = Path(__file__).parents[2]
RECIPE = re.compile(r"(?<=<!-- ray -->\n```python\n).*?(?=```)", re.DOTALL)
DIMS = {"image": 6, "sound": 4, "text": 5}


@pytest.fixture
def instances():
    """120 instances of three modalities, a quarter of each missing; the last instance has none at all."""
    rng = np.random.default_rng(0)
    latent = rng.normal(size=(120, 3))
    features = {name: (latent @ rng.normal(size=(3, dim))).astype(np.float32) for name, dim in DIMS.items()}
    for vectors in features.values():
        vectors[rng.random(120) < 0.25] = np.nan
        vectors[-1] = np.nan
    return features


def test_ray_writes_what_one_process_returns(instances, tmp_path):
    pytest.importorskip("ray")
    aligner = Aligner(seed=0, steps=5, adapter="linear", device="cpu").fit(instances)
    aligner.save(tmp_path / "model")
    ids = [f"i{row}" for row in range(120)]
    columns = {name: [None if np.isnan(x[0]) else x for x in vectors] for name, vectors in instances.items()}
    types = {name: pa.list_(pa.float32(), dim) for name, dim in DIMS.items()}
    table = pa.table({"id": ids} | {name: pa.array(columns[name], types[name]) for name in DIMS})
    (tmp_path / "instances").mkdir()
    for part in range(2):
        pq.write_table(table.slice(part * 60, 60), tmp_path / "instances" / f"{part}.parquet")

    script = RECIPE.search((ROOT / "docs" / "recipes.md").read_text(encoding="utf-8"))[0]
    # Ray puts sockets, whose paths may have 107 bytes, into the one folder and a token into the other.
    with tempfile.TemporaryDirectory(prefix="ray") as short:
        settings = {"RAY_TMPDIR": short, "HOME": short, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)}
        ran = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env={**os.environ, **settings},
            capture_output=True,
            text=True,
            check=False,
        )
    assert ran.returncode == 0, ran.stderr

    written = pq.read_table(tmp_path / "aligned")
    order = np.argsort([ids.index(i) for i in written["id"].to_pylist()])
    assert written["id"].take(order).to_pylist() == ids
    expected = aligner.transform(instances) | {"fused": aligner.fuse(instances)}
    expected["fused"][np.all([np.isnan(vectors[:, 0]) for vectors in instances.values()], axis=0)] = np.nan
    for name, vectors in expected.items():
        found = np.full_like(vectors, np.nan)
        column = written[name].take(order)
        found[column.is_valid().to_numpy()] = np.stack([x for x in column.to_pylist() if x is not None])
        np.testing.assert_allclose(found, vectors, atol=1e-6, err_msg=name)
