"""Several processes that write one export write the bytes that one writes."""

import numpy as np
import pytest

from pmrl_cli.aligner import Aligner
from pmrl_cli.files.artifacts.writer_parts import FUSED, part_of_rank
from tests.distributed.test_fit import ended, launch
from tests.train.fits import simulate


@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("rows_per_file", [1, 10, 1000])
def test_every_part_of_every_table_is_written_by_one(size, rows_per_file):
    present = np.random.default_rng(0).random((57, 2)) < 0.6
    present[40:, 1] = False
    tables = {"a": present[:, 0], "b": present[:, 1], FUSED: present.any(axis=1)}
    for name, has in tables.items():
        stop, covered = 0, []
        for rank in range(size):
            rows, written = part_of_rank(("a", "b"), present, rank, size, rows_per_file)
            part = written.parts[name]
            held = np.flatnonzero(has[rows]) + rows.start
            assert part.held == len(held)
            assert part.first == stop  # files are numbered through
            stop = part.stop
            covered += held[part.skip : part.skip + part.rows].tolist()
        assert stop == part.of == max(1, -(-int(has.sum()) // rows_per_file))
        assert covered == np.flatnonzero(has).tolist()


@pytest.fixture(scope="module")
def model_and_features(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    data = simulate(n=203, missing=0.4)
    Aligner(adapter="linear", steps=0, seed=0).fit(data).save(folder / "model")
    for m, features in enumerate(data.modalities):
        has = data.present[:, m]
        ids = np.array(data.ids.to_pylist())[has]
        np.savez(folder / f"{features.name}.npz", ids=ids, features=features.array[has])
    return folder / "model", sorted(folder.glob("*.npz"))


@pytest.mark.parametrize("size", [2, 3])
def test_the_bytes_are_those_of_one_process(tmp_path, model_and_features, size):
    model, files = model_and_features
    typed = ["export", *files, "--model", model, "--rows-per-file", "20", "--quiet", "-o"]
    codes, outputs, said = ended(launch(size, [*typed, tmp_path / "many"]))
    assert codes == [0] * size, said
    assert outputs == [f"{tmp_path / 'many'}\n", *[""] * (size - 1)]
    assert ended(launch(1, [*typed, tmp_path / "one"]))[0] == [0]
    one, many = (
        {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
        for out in (tmp_path / "one", tmp_path / "many")
    )
    assert len(one) > 30
    assert many == one


@pytest.mark.parametrize("refused", [["--format", "h5"], ["--shard", "1/2"]])
def test_what_several_processes_cannot_write_together_is_refused(tmp_path, model_and_features, refused):
    model, files = model_and_features
    typed = ["export", *files, "--model", model, *refused, "-o", tmp_path / "out"]
    codes, _, said = ended(launch(2, typed))
    assert codes == [2, 2]
    assert all("several processes write one export" in line for line in said)


def test_what_goes_wrong_in_one_process_ends_all(tmp_path, model_and_features):
    # Rank 1 has no such model: it ends before it has anything to write.
    model, files = model_and_features
    (tmp_path / "rank0").mkdir()
    (tmp_path / "rank0" / "model").symlink_to(model)
    (tmp_path / "rank1").mkdir()
    typed = ["export", *files, "--model", "model", "-o", tmp_path / "out"]
    codes, _, said = ended(launch(2, typed, lambda rank: tmp_path / f"rank{rank}"))
    assert codes[0] == codes[1] != 0
    assert "rank 1 reported: " in said[0]
    assert not (tmp_path / "out").exists()
