"""The slice of the mutation fuzzer that every run of the tests takes; ``fuzz.py --minutes`` goes deeper."""

from pathlib import Path

import fuzz
import pytest

from pmrl_cli.files.formats import sandbox_client


def test_mutated_files_are_read_right_or_refused_by_name(monkeypatch):
    monkeypatch.setattr(sandbox_client, "SECONDS", 2.0)
    tally = fuzz.run(seed=0, inputs=100)
    assert not tally.failures, tally
    assert tally.outcomes["refused: file cannot be read"] > 25
    assert tally.outcomes["read as before"] > 4


@pytest.mark.parametrize("name", ["plain.h5", "checked.h5", "plain.parquet", "checked.parquet"])
def test_files_cut_short_anywhere_are_refused(tmp_path, name):
    """Of all prefixes, each 97th and the last twenty."""
    (tmp_path / "good").mkdir()
    good = next(one for one in fuzz.good_files(tmp_path / "good") if one.name == name)
    path = tmp_path / f"cut{Path(name).suffix}"
    partner = tmp_path / "partner.npz"
    fuzz.np.savez(partner, features=fuzz.X, ids=fuzz.np.array(fuzz.IDS))
    for length in [*range(0, len(good.data), 97), *range(len(good.data) - 20, len(good.data))]:
        path.write_bytes(good.data[:length])
        with pytest.raises(fuzz.PmrlError, match=r"cut\."):
            fuzz.read_dataset([str(path), str(partner)])
