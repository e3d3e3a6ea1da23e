import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pmrl_cli.errors import DataError, ResourceError, UsageError
from pmrl_cli.files.artifacts.suspects import (
    INSTANCES,
    SUSPECTS_HEADER,
    InstanceRows,
    read_exclusions,
    write_instances,
    write_suspects,
)
from pmrl_cli.files.durable.outputs import check_file


def test_suspects_are_read_as_they_were_written_whatever_their_ids(tmp_path):
    rows = [('a,"b"', "text", 3.25, 0.75), ("007", "audio|text", 1e-9, 0.5), ("line\nbreak", "ü", -2.0, 1.0)]
    write_suspects(tmp_path / "s.csv", rows)
    found = read_exclusions(tmp_path / "s.csv")
    assert found.ids.to_pylist() == [row[0] for row in rows]
    assert found.modalities == tuple(row[1] for row in rows)
    assert read_exclusions(tmp_path / "s.csv", ("key of the features",)).ids.to_pylist() == found.ids.to_pylist()


def test_an_empty_list_leaves_nothing_out(tmp_path):
    write_suspects(tmp_path / "s.csv", [])
    assert len(read_exclusions(tmp_path / "s.csv").ids) == 0


def test_a_list_may_name_ids_alone_and_an_id_twice(tmp_path):
    (tmp_path / "ids.csv").write_text("id\n3\n4\n")
    assert read_exclusions(tmp_path / "ids.csv").modalities == (None, None)
    (tmp_path / "twice.csv").write_text("id,modality\nx,a\nx,b\ny,\n")
    found = read_exclusions(tmp_path / "twice.csv")
    assert found.ids.to_pylist() == ["x", "x", "y"]
    assert found.modalities == ("a", "b", None)
    (tmp_path / "none.csv").write_text("score\n1\n")
    with pytest.raises(DataError, match="list without ids: .*none.csv: score"):
        read_exclusions(tmp_path / "none.csv")


def test_instances_are_one_row_each_and_absent_numbers_are_null(tmp_path):
    path = tmp_path / "instances.parquet"
    blocks = [
        InstanceRows(
            pa.array(ids, pa.large_string()),
            np.array([0.5, 0.6]),
            np.array([0.4, 0.3]),
            np.array([[0.1, np.nan], [np.nan, -0.2]]),
            np.array([2.0, -1.0]),
            ["a", "b"],
            np.array([0.9, 0.0]),
        )
        for ids in (["i", "j"], ["k", "l"])
    ]
    write_instances(path, ("a", "b"), iter(blocks))
    table = pq.read_table(path)
    assert table.column_names == [
        "id", "rho", "signed", "agreement.a", "agreement.b", "score", "suspect_modality", "probability",
    ]  # fmt: skip
    assert table["id"].to_pylist() == ["i", "j", "k", "l"]
    assert table["agreement.a"].to_pylist() == [0.1, None, 0.1, None]
    check_file(path, INSTANCES.encode(), force=False)  # its own output may be replaced


def test_only_an_earlier_output_of_the_same_kind_is_replaced(tmp_path):
    path, marker = tmp_path / "out.csv", SUSPECTS_HEADER.encode()
    check_file(path, marker, force=False)
    path.write_text("mine\n")
    with pytest.raises(UsageError, match="output exists: .*a file that pmrl did not write"):
        check_file(path, marker, force=False)
    check_file(path, marker, force=True)
    write_suspects(path, [])
    check_file(path, marker, force=False)
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(UsageError, match="a symbolic link"):
        check_file(tmp_path / "link", marker, force=True)
    with pytest.raises(UsageError, match="no regular file"):
        check_file(tmp_path, marker, force=True)
    with pytest.raises(ResourceError, match="no folder"):
        check_file(path / "out.csv", marker, force=False)


def test_a_failure_leaves_the_old_table_as_it_was(tmp_path):
    path = tmp_path / "s.csv"
    write_suspects(path, [("old", "a", 1.0, 1.0)])

    def rows():
        yield ("new", "a", 1.0, 1.0)
        message = "the disk is full"
        raise OSError(message)

    with pytest.raises(ResourceError, match="the disk is full"):
        write_suspects(path, rows())
    assert "old" in path.read_text()
    assert [one.name for one in tmp_path.iterdir()] == ["s.csv"]
