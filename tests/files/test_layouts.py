"""Files as people have them: joined right, or refused with a command that then works."""

from __future__ import annotations

import re
import shlex
import uuid
from dataclasses import fields
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pmrl_cli.cli.main import command_line
from pmrl_cli.data.read_options import ReadOptions
from pmrl_cli.errors import PmrlError
from pmrl_cli.files.join.dataset import read_dataset
from tests.files import array_cases, rarer_cases, table_cases  # noqa: F401 - add to CASES
from tests.files.cases import CASES, DIMS, IDS, ORDERS, Case, N, frames, rows, shards
from tests.files.crossed_cases import ALL, make


@pytest.mark.parametrize(
    "stem",
    [
        *("part-{0}", "part.{0}", "data_{0}", "img_emb_{0}", "part-{0:05d}-of-00003", "x_{0:03d}"),
        *("part-{0:05d}-1b4e28ba-2fa1-11d2-883f-0016d3cca427-c000.snappy", "train-{0:05d}-of-00003-8f3a2b1c9d0e4f56"),
    ],
)
def test_shards_of_one_stem_are_one_modality(tmp_path, monkeypatch, stem):
    monkeypatch.chdir(tmp_path)
    for m, part, x, ids in shards(tmp_path, ""):
        (tmp_path / m).mkdir(exist_ok=True)
        pq.write_table(pa.table({"id": ids, "embedding": list(x)}), tmp_path / m / f"{stem.format(part)}.parquet")
    data = read_dataset(["image", "text"])
    assert data.names == ("image", "text")
    check(data, Case([]))


KEYS = {row: uuid.UUID(int=row * 7919 + (0xF1 << 120)) for row in range(N)}


@pytest.mark.parametrize("kind", ["uuid", "binary16", "dictionary", "large_string", "int8", "uint64", "view"])
def test_ids_of_every_type_that_can_be_text_are_read(tmp_path, kind):
    def column(order):
        raw = pa.array([KEYS[row].bytes for row in order], pa.binary(16))
        texts = [IDS[row] for row in order]
        return {
            "uuid": lambda: pa.ExtensionArray.from_storage(pa.uuid(), raw),
            "binary16": lambda: raw,
            "dictionary": lambda: pa.array(texts).dictionary_encode(),
            "large_string": lambda: pa.array(texts, pa.large_string()),
            "view": lambda: pa.array(texts, pa.string_view()),
            "int8": lambda: pa.array(order, pa.int8()),
            "uint64": lambda: pa.array(order, pa.uint64()),
        }[kind]()

    for m, order in ORDERS.items():
        table = pa.table({"id": column(order), "embedding": list(rows(m, order))})
        pq.write_table(table, tmp_path / f"{m}.parquet")
    data = read_dataset([str(tmp_path / f"{m}.parquet") for m in DIMS])
    check(data, Case([]), texts=False)
    if kind in ("uuid", "binary16"):
        assert set(data.ids.to_pylist()) == {str(one) for one in KEYS.values()}


def typed(folder, files):
    """Paths as a shell would hand them over."""
    return [name for text in files for name in (sorted(map(str, Path().glob(text))) if "*" in text else [text])]


def check(data, case, *, texts=True):
    """Every instance has the vectors that say so, and its own id."""
    assert len(data) == case.n
    for features, present in zip(data.modalities, data.present.T, strict=True):
        if features.name not in case.names or not case.values:
            continue
        x = features.read(slice(0, len(data)))
        assert np.allclose(x[present, 1], rows(features.name, [0])[0, 1])
        at = x[present, 0].round().astype(int) - 1
        ids = np.array(data.ids.to_pylist())[present]
        if texts:
            wanted = [str(row) for row in at] if case.by_row else [IDS[row] for row in at]
            assert ids.tolist() == wanted
    both = data.present.all(axis=1)
    first = [features.read(slice(0, len(data)))[both, 0].round(3) for features in data.modalities]
    assert not case.values or all(np.array_equal(first[0], other) for other in first[1:])
    assert set(case.sides) <= set(data.columns)


def words_of(options):
    """Options of Python as they are typed."""
    words = []
    for name, value in options.items():
        for one in value if isinstance(value, tuple) else [value]:
            words += [f"--{name.replace('_', '-')}", *([] if one is True else [str(one)])]
    return words


def words_in(message):
    """The first option that a message names, with its value: what its reader types."""
    switches = {f"--{one.name.replace('_', '-')}" for one in fields(ReadOptions) if one.default is False}
    flag, value = re.search(r"(--[a-z-]+)((?: (?:'[^']*'|[^\s;,.]+(?:\.\w+)*))?)", message).groups()
    return [flag] if flag in switches else shlex.split(f"{flag}{value}")


def refusal(made, files):
    """The exit code that a case is refused with, its messages, and the words that the right one says to add."""
    with pytest.raises(PmrlError) as caught:
        read_dataset(files, **made.options)
    messages = [str(caught.value), *map(str, caught.value.more)]
    helpful = [one for one in messages if made.refused in one]
    assert helpful, messages
    return caught.value.exit_code, messages, words_in(helpful[0])


def run(command, files, *words):
    """The exit code of a command run in this process."""
    return command_line([command, *files, *words], standalone_mode=False) or 0


@pytest.mark.parametrize("name", CASES)
def test_a_layout_is_joined_by_its_ids_or_refused_with_what_helps(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    made = CASES[name](tmp_path)
    files, words = typed(tmp_path, made.files), words_of(made.options)
    if made.refused:
        code, messages, added = refusal(made, files)
        assert len(messages) <= 4
        assert run("inspect", files, *words) == code
        words += added
    assert run("inspect", files, *words) == 0
    assert run("ingest", files, *words, "-o", "store") == 0
    data = read_dataset(["store"])
    assert set(made.names) == set(data.names)
    check(data, made, texts=made.texts)
    assert run("inspect", ["store"]) == 0


@pytest.mark.parametrize("crossed", ALL[::3], ids=str)
def test_crossed_layouts_are_joined_by_their_ids(tmp_path, monkeypatch, crossed):
    monkeypatch.chdir(tmp_path)
    made = make(tmp_path, crossed)
    check(read_dataset(made.files, **made.options), made)


def test_everything_left_out_is_noted(tmp_path):
    x = rows("image", range(N))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["features"], file["ids"] = x, IDS
        file["frames"] = np.stack([frames(one, 4) for one in x])
        file["umap"] = x[:, :2]
    np.savez(tmp_path / "b.npz", features=rows("text", range(N)), ids=np.array(IDS))
    notes = " ".join(read_dataset([str(tmp_path / "a.h5"), str(tmp_path / "b.npz")]).notes)
    assert "/umap (30 x 2 float32)" in notes
    assert "/frames (30 x 4 x 9 float32); --pool mean takes them." in notes


def test_side_tables_name_a_column_and_are_matched_by_value(tmp_path):
    for m, order in ORDERS.items():
        table = pa.table({"id": [IDS[row] for row in order], "embedding": list(rows(m, order))})
        pq.write_table(table, tmp_path / f"{m}.parquet")
    files = [str(tmp_path / f"{m}.parquet") for m in DIMS]
    lines = "".join(f"{i},{i[-1]},x\n" for i in IDS)
    (tmp_path / "by_value.csv").write_text(f"whose,label,other\n{lines}")
    data = read_dataset(files, labels=tmp_path / "by_value.csv")
    assert [f"{one}" for one in data.columns["label"].to_pylist()] == [i[-1] for i in data.ids.to_pylist()]
    only = read_dataset(files, labels=Path(f"{tmp_path}/by_value.csv#label"))
    assert list(only.columns) == ["label"]
    (tmp_path / "unnamed.csv").write_text(f",label,other\n{lines}")
    assert set(read_dataset(files, labels=tmp_path / "unnamed.csv").columns) == {"label", "other"}
    with pytest.raises(PmrlError, match=r"no such side column: .* Name one of them, as in --labels .*#label"):
        read_dataset(files, labels=Path(f"{tmp_path}/by_value.csv#lable"))


def test_the_file_of_the_features_may_be_the_side_table_too(tmp_path):
    for m, order in ORDERS.items():
        ids = [IDS[row] for row in order]
        table = pa.table({"id": ids, "embedding": list(rows(m, order)), "label": [i[-1] for i in ids]})
        pq.write_table(table, tmp_path / f"{m}.parquet")
    data = read_dataset([str(tmp_path / f"{m}.parquet") for m in DIMS], labels=tmp_path / "image.parquet")
    assert data.columns["label"].to_pylist() == [i[-1] for i in data.ids.to_pylist()]
