from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pmrl_cli.data.dataset import BLOCK_BYTES, Dataset, Features


def resident(path):
    """Bytes of memory that mappings of a file hold in this process."""
    held, mine = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if line.split()[0].count("-") == 1 and not line.split()[0].endswith(":"):
            mine = line.endswith(str(path))
        elif mine and line.startswith("Rss:"):
            held += int(line.split()[1]) * 1024
    return held


@pytest.fixture
def mapped(tmp_path):
    """48 MB of one modality in a memory-mapped file."""
    path = tmp_path / "features.npy"
    np.save(path, np.arange(12 * 2**20, dtype=np.float32).reshape(-1, 512))
    array = np.load(path, mmap_mode="r")
    ids = pa.array([str(i) for i in range(len(array))], pa.large_string())
    return path, Dataset(ids, (Features("a", array),), np.ones((len(array), 1), dtype=bool))


def test_a_pass_over_a_memory_map_holds_a_block_of_it_at_a_time(mapped):
    path, data = mapped
    most, total = 0, 0.0
    for rows in data.blocks():
        total += data.modalities[0].read(rows).sum(dtype=np.float64)
        most = max(most, resident(path))
    assert total == pytest.approx(np.arange(12 * 2**20, dtype=np.float64).sum())
    assert 0 < most <= BLOCK_BYTES + 2**21  # the kernel maps some pages around those that are read
    assert resident(path) == 0


def test_letting_go_keeps_the_changes_of_a_private_map(mapped):
    path, _ = mapped
    private = np.load(path, mmap_mode="c")
    private[3, 4] = -1
    features = Features("a", private)
    features.release()
    assert features.read(slice(3, 4))[0, 4] == -1
