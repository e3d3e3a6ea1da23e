"""``pmrl search`` on vectors that share a space: what it prints and writes."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from pmrl_cli.cli.main import command_line
from pmrl_cli.errors import UsageError


@pytest.fixture
def space(tmp_path):
    """Queries q0..q4 and a gallery g0..g49 of two modalities; q1's text is g7's image. Returns their vectors."""
    generator = np.random.default_rng(0)
    image, text = (generator.normal(size=(50, 8)).astype(np.float32) for _ in range(2))
    queries = generator.normal(size=(5, 8)).astype(np.float32)
    queries[1] = 3 * image[7]
    ids = np.array([f"g{i}" for i in range(50)])
    np.savez(tmp_path / "text.npz", features=queries, ids=np.array([f"q{i}" for i in range(5)]))
    (tmp_path / "gallery").mkdir()
    np.savez(tmp_path / "gallery/image.npz", features=image, ids=ids)
    np.savez(tmp_path / "gallery/text.npz", features=text, ids=ids)
    side = pa.table({"id": ids.tolist(), "title": [f"number {i}" for i in range(50)]})
    pa.csv.write_csv(side, tmp_path / "side.csv")
    return queries, image


def run(tmp_path, capsys, *arguments):
    typed = ["search", str(tmp_path / "text.npz"), "--gallery", str(tmp_path / "gallery"), "-q", *arguments]
    assert not command_line(typed, standalone_mode=False)
    return capsys.readouterr().out


def test_rows_are_the_nearest_by_cosine_in_every_form(space, tmp_path, capsys):
    queries, image = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True) for vectors in space)
    cosines = queries @ image.T
    wanted = np.argsort(-cosines, axis=1)[:, :3]
    tabs = [line.split("\t") for line in run(tmp_path, capsys, "--to", "image", "-k", "3").splitlines()]
    assert tabs[0] == ["query", "rank", "id", "score"]
    assert [row[2] for row in tabs[1:]] == [f"g{i}" for i in wanted.reshape(-1)]
    assert tabs[4] == ["q1", "1", "g7", "1.0000"]
    lines = [json.loads(line) for line in run(tmp_path, capsys, "--to", "image", "-k", "3", "--json").splitlines()]
    assert [[row["query"], str(row["rank"]), row["id"]] for row in lines] == [row[:3] for row in tabs[1:]]
    np.testing.assert_allclose(
        [row["score"] for row in lines], np.take_along_axis(cosines, wanted, 1).reshape(-1), atol=1e-5
    )
    out = tmp_path / "found.parquet"
    shown = run(
        tmp_path, capsys, "--to", "image", "-k", "3", "-o", str(out),
        "--labels", str(tmp_path / "side.csv"), "--column", "title",
    )  # fmt: skip
    assert shown == f"{out}\n"
    table = pq.read_table(out)
    assert table.column_names == ["query", "rank", "id", "score", "title"]
    assert table["id"].to_pylist() == [row["id"] for row in lines]
    assert table["title"].to_pylist() == [f"number {row['id'][1:]}" for row in lines]


def test_an_unknown_side_column_and_a_foreign_output_are_refused(space, tmp_path, capsys):
    with pytest.raises(UsageError, match="no such side column: --column title"):
        run(tmp_path, capsys, "--column", "title")
    (tmp_path / "mine.txt").write_text("thesis")
    with pytest.raises(UsageError, match="output exists"):
        run(tmp_path, capsys, "-o", str(tmp_path / "mine.txt"))


def test_csls_says_how_many_queries_find_their_own_id_with_it_and_without(tmp_path, capsys):
    generator = np.random.default_rng(0)
    centre = generator.normal(size=16)
    text = centre + 0.9 * generator.normal(size=(30, 16))
    image = np.concatenate([text + 0.9 * generator.normal(size=(30, 16)), text.mean(0, keepdims=True)])  # and a hub
    for name, vectors in (("text", text), ("image", image)):
        ids = np.array([f"i{row}" for row in range(len(vectors))])
        np.savez(tmp_path / f"{name}.npz", features=vectors.astype(np.float32), ids=ids)
    typed = ["search", str(tmp_path / "text.npz"), "--gallery", str(tmp_path / "image.npz"), "-k", "2", "--json"]
    assert not command_line([*typed, "--csls"], standalone_mode=False)
    fair = capsys.readouterr()
    assert not command_line([*typed, "-q"], standalone_mode=False)
    plain = capsys.readouterr()
    found = []
    for shown in (fair, plain):
        rows = [json.loads(line) for line in shown.out.splitlines()]
        found.append(np.mean([row["query"] == row["id"] for row in rows if row["rank"] == 1]))
    assert found[0] > found[1]
    expected = (
        f"of 30 queries whose id is in the gallery, {found[0]:.3f} find it first with --csls, {found[1]:.3f} without"
    )
    assert expected in fair.err
    assert not plain.err
