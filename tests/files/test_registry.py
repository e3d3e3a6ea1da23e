"""A format is one file and one line: a throw-away one is read, joined, ingested and inspected like the others."""

import sys
import types

import numpy as np
import pytest

from pmrl_cli.data.read_options import ReadOptions
from pmrl_cli.files.artifacts.store import ingest_store
from pmrl_cli.files.formats import registry
from pmrl_cli.files.formats.contents import Contents, Vectors, text_column
from pmrl_cli.files.formats.registry import Format
from pmrl_cli.files.join.dataset import read_dataset
from pmrl_cli.files.join.inspection import inspect_files


def probe(path, options):
    """Two modalities in lines of text, ``id:1 2 3:4 5``."""
    lines = [line.split(":") for line in path.read_text().splitlines()]

    def array(at, name):
        values = np.array([[float(x) for x in line[at].split()] for line in lines], np.float32)
        blocks = lambda: iter([(values[:2], None), (values[2:], None)])  # noqa: E731
        return Vectors(str(path), name, *values.shape, "float32", blocks, ids="keys", modality=name)

    ids = text_column("keys", [line[0] for line in lines])
    colours = text_column("colour", ["red"] * len(lines))
    return Contents(str(path), (array(1, "left"), array(2, "right")), (ids, colours), side=("colour",))


@pytest.mark.parametrize("sandboxed", [False, True])
@pytest.mark.usefixtures("thread_reader")
def test_a_format_registered_in_one_line_is_read_joined_ingested_and_inspected(
    make, tmp_path, monkeypatch, sandboxed
):
    home = types.ModuleType("a_throw_away_format")
    home.probe = probe
    monkeypatch.setitem(sys.modules, home.__name__, home)
    line = Format("toy", "Toy", home.__name__, (".toy",), sandboxed=sandboxed)
    monkeypatch.setattr(registry, "FORMATS", [*registry.FORMATS, line])
    toy = tmp_path / "in" / "x.toy"
    toy.parent.mkdir()
    toy.write_text("c:1 2:7 8 9\na:3 4:1 1 1\nb:5 6:2 2 2\n")
    third = make.h5("third.h5", {"features": np.eye(3, 5, dtype=np.float32), "ids": ["a", "b", "c"]})
    for files in ([str(toy), third], [str(toy.parent), third]):
        data = read_dataset(files)
        assert data.names == ("left", "right", "third")
        assert data.ids.to_pylist() == ["c", "a", "b"]
        assert data.modalities[2].array.argmax(axis=1).tolist() == [2, 0, 1]
        assert data.columns["colour"].to_pylist() == ["red"] * 3
    found = inspect_files([str(toy)])
    assert (found.exit_code, found.instances) == (0, 3)
    assert [entry["ids"] for entry in found.modalities] == ["keys", "keys"]
    manifest = ingest_store([str(toy), third], tmp_path / "store", ReadOptions(join="inner"))
    assert [entry["name"] for entry in manifest["modalities"]] == ["left", "right", "third"]
    (tmp_path / "x.odd").write_text("?")
    assert ".toy" in inspect_files([str(tmp_path / "x.odd")]).problems[0].expected
