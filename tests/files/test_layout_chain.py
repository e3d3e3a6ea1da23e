"""Layouts through all commands: from the files as they are, as from the store made of them.

One of each kind here; every layout with ``EVERY_LAYOUT=1``, as ``make faults`` has it.
"""

import json
import os

import pytest

from pmrl_cli.cli.main import command_line
from pmrl_cli.files.join.dataset import read_dataset
from tests.files.cases import CASES
from tests.files.test_layouts import refusal, typed, words_of

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


@pytest.mark.parametrize("name", CASES if os.environ.get("EVERY_LAYOUT") else KINDS)
def test_files_and_the_store_made_of_them_give_the_same_from_inspect_to_export(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    made = CASES[name](tmp_path)
    files, options = typed(tmp_path, made.files), words_of(made.options)
    if made.refused:
        options += refusal(made, files)[2]

    def run(*words):
        code = command_line([*words, "--quiet"], standalone_mode=False) or 0
        assert code == 0, (words, capsys.readouterr())
        return capsys.readouterr().out

    run("inspect", *files, *options)
    run("ingest", *files, *options, "-o", "store")
    run("fit", *files, *options, "--fast", "-o", "model")
    ways = ([*files, *options], ["store"])
    for number, way in enumerate(ways):
        run("export", *way, "--model", "model", "-o", f"out{number}")
    scores = [json.loads(run("evaluate", *way, "--model", "model", "--json"))["directions"] for way in ways]
    outs = [read_dataset([f"out{number}"]) for number in range(2)]
    assert outs[0].ids.equals(outs[1].ids)
    assert set(outs[0].ids.to_pylist()) == set(read_dataset(["store"]).ids.to_pylist())
    assert scores[0] == scores[1]
    assert [one.digest for one in outs[0].modalities] == [one.digest for one in outs[1].modalities]
