"""Every system through all commands: what a fit makes is evaluated, diagnosed, exported and searched."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.simulate import simulate

SYSTEMS = {
    "decalign": (["--objective", "decalign"], ["--also", "unique"], "unique"),
    "mvae": (["--objective", "mvae"], ["--impute"], "deviation"),
    "umurl": (["--objective", "umurl"], [], None),
    "fcid": (["--objective", "fcid", "--set", "codes=8"], [], "code"),
    "drcl": (["--objective", "drcl", "--target", "label"], [], None),
    "separation": (["--objective", "infonce", "--term", "separation=1"], ["--also", "unique"], "unique"),
}


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """Two modalities, a fifth of whose vectors are absent, as Parquet, and a table of labels."""
    folder = tmp_path_factory.mktemp("features")
    made = simulate(n=90, modalities=2, dim=6, missing=0.2)
    for m, modality in enumerate(made.modalities):
        rows = made.present[:, m]
        table = {"id": made.ids.filter(pa.array(rows)), "embedding": list(modality.array[rows])}
        pq.write_table(pa.table(table), folder / f"{modality.name}.parquet")
    pq.write_table(pa.table({"id": made.ids, "label": made.columns["label"]}), folder / "labels.parquet")
    return folder


@pytest.fixture
def done(run):
    """Run a command that ends well; return what it printed."""

    def call(*arguments):
        code, out, err = run(*arguments)
        assert code == 0, err
        return out

    return call


SMALL = ["--dim", 4, "--steps", 2, "--batch-size", 16, "--no-refit", "--test", 0.4, "--adapter", "linear", "-q"]
FORMATS = ["--format parquet", "--format npy", "--format h5", "--format csv", "--layout wide"]


@pytest.mark.parametrize("name", SYSTEMS)
def test_what_a_system_fits_goes_through_every_command(name, features, done, tmp_path):
    asked, exporting, extra = SYSTEMS[name]
    files = [features / "m0.parquet", features / "m1.parquet"]
    model, out = tmp_path / "model", tmp_path / "out"
    labels = ["--labels", features / "labels.parquet"] if "--target" in asked else []
    done("fit", *files, *asked, *labels, *SMALL, "-o", model)
    evaluated = json.loads(done("evaluate", *files, "--model", model, "--json", "-q"))
    diagnosed = json.loads(done("diagnose", *files, "--model", model, "--json", "-q"))
    assert evaluated["instances"] == diagnosed["inputs"]["instances"]
    done("export", *files, "--model", model, *exporting, "-o", out, "-q")
    tables = {path.parent.name: pq.read_table(path) for path in out.glob("*/*.parquet")}
    assert len({len(vector) for vector in tables["fused"]["embedding"].to_pylist()}) == 1
    if extra is not None:
        assert any(extra in column for column in [*tables, *tables["m0"].column_names])
    found = [json.loads(line) for line in done("search", out, "--gallery", out, "--json", "-q").splitlines()]
    assert {line["rank"] for line in found} == set(range(1, 11))


def test_an_export_of_any_format_is_read_as_the_vectors_of_its_modalities(features, done, tmp_path):
    # Predicted features, their deviation and fused vectors lie beside them.
    files = [features / "m0.parquet", features / "m1.parquet"]
    done("fit", *files, "--objective", "mvae", *SMALL, "-o", tmp_path / "model")
    for n, asked in enumerate(FORMATS):
        out = tmp_path / str(n)
        done("export", *files, "--model", tmp_path / "model", "--impute", *asked.split(), "-o", out, "-q")
        seen = json.loads(done("inspect", out, "--json", "-q"))["modalities"]
        assert [(one["modality"], one["dim"], one["rows"]) for one in seen] == [("m0", 4, 90), ("m1", 4, 90)], asked
