"""The code of the reading process, run in this one: what a library raises there, values of very unequal length."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pmrl_cli.errors import DataError, ResourceError
from pmrl_cli.files.formats import parquet, sandbox_client, sandbox_server
from pmrl_cli.files.formats.probe import probe
from pmrl_cli.files.join.side_table import read_side_table

pytestmark = pytest.mark.usefixtures("thread_reader")


@pytest.mark.parametrize(
    ("raised", "error", "said"),
    [
        (MemoryError(), ResourceError, "not enough memory: .*x.parquet"),
        (ZeroDivisionError("odd"), DataError, "file cannot be read: .*x.parquet: ZeroDivisionError: odd"),
    ],
)
def test_whatever_a_library_raises_names_the_file_and_the_next_one_is_read(
    tmp_path, monkeypatch, raised, error, said
):
    pq.write_table(pa.table({"id": ["a"], "label": [1]}), tmp_path / "x.parquet")
    whole = parquet.probe

    def fail(_path, _options):
        raise raised

    monkeypatch.setattr(parquet, "probe", fail)
    with pytest.raises(error, match=said):
        probe(tmp_path / "x.parquet")
    monkeypatch.setattr(parquet, "probe", whole)
    assert [column.name for column in probe(tmp_path / "x.parquet").columns] == ["id", "label"]


def test_values_of_very_unequal_length_fit_the_shared_memory_or_are_refused(tmp_path, monkeypatch):
    for module in (sandbox_server, sandbox_client):
        monkeypatch.setattr(module, "SLOT_BYTES", 8192)
    rng = np.random.default_rng(0)
    values = ["x" * int(length) for length in rng.choice([0, 1, 5, 1500], size=300)]
    ids = [str(row) for row in range(300)]
    pq.write_table(pa.table({"id": ids, "text": values}), tmp_path / "x.parquet")
    assert read_side_table(tmp_path / "x.parquet").columns["text"].to_pylist() == values
    pq.write_table(pa.table({"id": ids, "text": [*values[:-1], "y" * 9000]}), tmp_path / "y.parquet")
    with pytest.raises(
        DataError, match="value too long: .*y.parquet:text: .* bytes in one row, expected at most 4096"
    ):
        read_side_table(tmp_path / "y.parquet")


@pytest.mark.parametrize(("name", "separator"), [("x.csv", ","), ("x.tsv", "\t")])
def test_a_table_of_text_keeps_its_ids_as_they_are_written(tmp_path, name, separator):
    rows = [("id", "label", "share"), ("007", "a b", "0.5"), ("7", '"c,\td"', ""), ("08", "", "2")]
    (tmp_path / name).write_text("".join(separator.join(row) + "\n" for row in rows), encoding="utf-8")
    table = read_side_table(tmp_path / name)
    assert table.ids.to_pylist() == ["007", "7", "08"]
    assert table.columns["label"].to_pylist() == ["a b", "c,\td", None]
    assert table.columns["share"].to_pylist() == [0.5, None, 2.0]
