"""One layout of each kind through all commands: from the files as they are, as from the store made of them."""

import json

import pytest

from pmrl_cli.cli.main import app
from pmrl_cli.files.join.dataset import read_dataset
from tests.files.layout_cases import CASES

KINDS = [
    "the_index_of_a_frame",
    "a_vector_in_a_file_for_each_instance",
    "a_dataset_for_each_instance",
    "ids_of_each_shard_beside_it",
    "anndata_with_embeddings",
    "clip_retrieval_folders",
    "zarr_arrays_in_version_3_with_shards",
    "lance_data_sets",
    "rows_alone",
]


@pytest.mark.parametrize("name", KINDS)
def test_files_and_the_store_made_of_them_give_the_same_from_inspect_to_export(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    made = CASES[name](tmp_path)

    def run(*words):
        code = app([*words, "--quiet"], standalone_mode=False) or 0
        assert code == 0, (words, capsys.readouterr())
        return capsys.readouterr().out

    run("inspect", *made.files)
    run("ingest", *made.files, "-o", "store")
    run("fit", *made.files, "--fast", "-o", "model")
    scores = [json.loads(run("evaluate", *of, "--model", "model", "--json")) for of in (made.files, ["store"])]
    assert scores[0]["directions"] == scores[1]["directions"]
    for number, of in enumerate((made.files, ["store"])):
        run("export", *of, "--model", "model", "-o", f"out{number}")
    outs = [read_dataset([f"out{number}"]) for number in range(2)]
    assert outs[0].ids.equals(outs[1].ids)
    assert set(outs[0].ids.to_pylist()) == set(read_dataset(made.files).ids.to_pylist())
    assert [one.digest for one in outs[0].modalities] == [one.digest for one in outs[1].modalities]
