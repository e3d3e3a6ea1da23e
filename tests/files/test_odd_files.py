"""Files that are odd but valid are read; what is wrong beside what was asked for stops nothing; the rest is named."""

import os
import struct
from pathlib import Path

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from makers import lookup3

from pmrl_cli.data.read_options import ReadOptions
from pmrl_cli.errors import PmrlError, PolicyError
from pmrl_cli.files.join.dataset import read_dataset
from pmrl_cli.files.join.inspection import inspect_files

N, D = 30, 16
X = np.random.default_rng(0).integers(-8, 8, (N, D)).astype(np.float32) + 0.5
IDS = [f"k{row}" for row in range(N)]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("partner.npz", features=X[:, :4], ids=np.array(IDS))
    np.save("rows.npy", X[:, :4])


def read(spec, partner="partner.npz", **options):
    """The rows of a file in the order of X."""
    data = read_dataset([f"x={spec}", partner], **options)
    rows = data.modalities[data.names.index("x")].read(slice(0, N))
    found = data.ids.to_pylist()
    return rows[[found.index(i) for i in IDS]] if IDS[0] in found else rows


def npy_file(name, shape, version=(1, 0)):
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(11 + len(header)) % 64) + b"\n"
    with open(name, "wb") as file:  # noqa: PTH123 - a name of bytes is one of the cases
        file.write(b"\x93NUMPY" + bytes(version) + struct.pack("<H", len(header)) + header + X.tobytes())


@pytest.mark.parametrize("kind", ["scale-offset", "szip", "nbit"])
def test_filters_that_the_library_has_are_read(kind):
    with h5py.File("a.h5", "w") as file:
        file["ids"] = IDS
        created = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        created.set_chunk((10, D))
        if kind == "szip":
            if not h5py.h5z.filter_avail(h5py.h5z.FILTER_SZIP):
                pytest.skip("this build of HDF5 has no szip")
            created.set_szip(h5py.h5z.SZIP_NN_OPTION_MASK, 8)
        elif kind == "scale-offset":
            created.set_scaleoffset(h5py.h5z.SO_FLOAT_DSCALE, 1)
        else:
            created.set_filter(h5py.h5z.FILTER_NBIT)
        space = h5py.h5s.create_simple(X.shape)
        h5py.Dataset(h5py.h5d.create(file.id, b"features", h5py.h5t.NATIVE_FLOAT, space, created))[...] = X
    assert np.allclose(read("a.h5"), X, atol=0.05)


def test_what_cannot_be_read_beside_the_features_is_named_and_stops_nothing():
    with h5py.File("a.h5", "w") as file:
        file["features"], file["ids"] = X, IDS
        file["link"] = h5py.ExternalLink("other.h5", "/x")
        file["soft"] = h5py.SoftLink("/features")
        file.create_dataset("outside", shape=(N, D), dtype="f4", external=[("x.bin", 0, X.nbytes)])
        file.create_dataset("vast", shape=(2**28, 3), chunks=(2**28, 3), dtype="f4", compression="gzip")
    assert np.array_equal(read("a.h5"), X)
    notes = " ".join(read_dataset(["a.h5", "partner.npz"]).notes)
    assert all(name in notes for name in ("/link (an external link", "/outside (external storage", "/vast (a chunk"))
    assert np.array_equal(read("a.h5:/features"), X)
    with pytest.raises(PmrlError, match="a.h5:/outside: external storage"):
        read("a.h5:/outside")


def test_an_object_member_of_an_npz_is_skipped_unless_it_is_selected():
    np.savez("a.npz", features=X, ids=np.array(IDS), about=np.array([{}, []], object))
    assert np.array_equal(read("a.npz"), X)
    with pytest.raises(PmrlError, match="a.npz:about: pickled Python objects"):
        read("a.npz#about")


def test_anndata_with_a_frame_among_its_embeddings_and_as_many_variables_as_observations():
    with h5py.File("a.h5ad", "w") as file:
        obs = file.create_group("obs")
        obs.attrs["_index"], obs["_index"] = "_index", IDS
        frame = file.create_group("obsm/frame")
        frame.attrs["encoding-type"], frame["A"], frame["_index"] = "dataframe", X[:, 0], IDS
        file["obsm/X_pca"], file["varm/PCs"], file["X"] = X, np.ones((N, 5), "f4"), np.ones((N, N), "f4")
        file["var/_index"] = [f"g{row}" for row in range(N)]
    assert np.array_equal(read("a.h5ad"), X)


@pytest.mark.parametrize("wanted", ["f*", "f0,f1,f2", "*"])
def test_a_few_numeric_columns_are_a_vector_if_they_are_named(wanted):
    pq.write_table(pa.table({"id": IDS, "f0": X[:, 0], "f1": X[:, 1], "f2": X[:, 2]}), "a.parquet")
    assert np.array_equal(read("a.parquet", feature_column=wanted), X[:, :3])
    assert np.array_equal(read(f"a.parquet#{wanted}"), X[:, :3])


def test_a_table_of_numbers_that_was_taken_for_a_side_table_says_how_it_is_features():
    pq.write_table(pa.table({"id": IDS, "A": X[:, 0], "B": X[:, 1]}), "a.parquet")
    with pytest.raises(PmrlError, match=r"side tables \(a.parquet\).* Type 'a.parquet#A,B' if"):
        read_dataset(["a.parquet", "partner.npz"])
    assert np.array_equal(read("a.parquet#A,B"), X[:, :2])


def test_headers_of_npy_of_any_age():
    npy_file("py2.npy", "(30L, 16L)")
    assert np.array_equal(read("py2.npy", "rows.npy"), X)
    npy_file("later.npy", "(30, 16)", (9, 0))
    npy_file("negative.npy", "(-1, 16)")
    for name, said in (("later.npy", "npy format 9.0"), ("negative.npy", r"a shape of \(-1, 16\)")):
        with pytest.raises(PmrlError, match=rf"{name}: {said}"):
            read(name, "rows.npy")


@pytest.mark.parametrize("shape", [(N, 1, D), (N, 1, 1, D)])
def test_axes_of_length_one_are_left_out(shape):
    np.save("a.npy", X.reshape(shape))
    assert np.array_equal(read("a.npy", "rows.npy"), X)


def test_a_name_that_is_not_utf8_is_read_under_another_name_alone_and_in_a_folder():
    npy_file(b"\xff.npy", "(30, 16)")
    os.mkdir("in")  # noqa: PTH102
    npy_file(b"in/\xff.npy", "(30, 16)")
    for name in (os.fsdecode(b"\xff.npy"), "in"):
        with pytest.raises(PmrlError, match=r"Name it with name=path"):
            read_dataset([name, "rows.npy"])
    assert np.array_equal(read(os.fsdecode(b"\xff.npy"), "rows.npy"), X)
    assert np.array_equal(read(os.fsdecode(b"in/\xff.npy"), "rows.npy"), X)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (
            {"features": X, "ids": np.arange(2 * N).reshape(N, 2)},
            r"a.h5:/ids: 30 x 2 int64, expected one id for each",
        ),
        ({"features": X, "ids": X[:, 0]}, "a.h5:/ids: neither text nor integers"),
        ({"features": X, "ids": IDS[:-2]}, "a.h5:/ids: 28 ids, expected 30"),
        ({"features": X[:0], "ids": np.array([], "S1")}, "a.h5:/features: 0 rows"),
    ],
)
def test_ids_that_cannot_be_used_are_named(arrays, said):
    with h5py.File("a.h5", "w") as file:
        for name, values in arrays.items():
            file[name] = values
    found = inspect_files(["a.h5", "partner.npz"], ReadOptions())
    assert found.exit_code == 3
    with pytest.raises(PmrlError, match=said):
        read("a.h5")


def test_a_table_without_rows_is_reported_as_empty():
    pq.write_table(
        pa.table({"id": pa.array([], pa.string()), "x": pa.array([], pa.list_(pa.float32()))}), "a.parquet"
    )
    with pytest.raises(PmrlError, match="no rows: a.parquet: 0 rows"):
        read("a.parquet")


def test_an_empty_path_is_no_folder():
    with pytest.raises(PmrlError, match="empty path: ''"):
        read_dataset(["", "rows.npy"])


def test_a_type_that_holds_itself_ends_the_reading_process_alone():
    with h5py.File("loop.h5", "w", libver="earliest") as file:
        file["type"] = np.dtype([(f"c{i}", "f4") for i in range(8)])
        file.create_dataset("features", (N,), dtype=file["type"])
        committed, used = (h5py.h5o.get_info(file[name].id).addr for name in ("type", "features"))
    with open("loop.h5", "r+b") as file:  # noqa: PTH123
        content = bytearray(file.read())
        # An object header of version 1: 16 bytes, then messages of type, size, flags and 3 bytes more.
        dataspace = struct.unpack_from("<H", content, used + 18)[0]
        datatype = used + 16 + 8 + dataspace
        kind, size, flags = struct.unpack_from("<HHB", content, datatype)
        assert (kind, flags) == (3, 3), "the type of the dataset is that of another object"
        content[committed + 16 + 8 : committed + 16 + 8 + size] = content[datatype + 8 : datatype + 8 + size]
        content[committed + 16 + 4] = flags  # and now the type is that of itself
        file.seek(0)
        file.write(content)
    found = inspect_files(["loop.h5", "partner.npz"])
    assert [problem.split(":")[:2] for problem in map(str, found.problems)] == [["file cannot be read", " loop.h5"]]
    assert len(found.modalities) == 1


def with_a_user_defined_link(name):
    """Make the external link of a file one of a class that HDF5 does not know, and its header's checksum right."""
    data = bytearray(Path(name).read_bytes())
    start = data.index(b"OHDR")
    flags = data[start + 5]
    at = start + 6 + (16 if flags & 32 else 0) + (4 if flags & 16 else 0)
    width = 1 << (flags & 3)
    end = at + width + int.from_bytes(data[at : at + width], "little")
    kind = data.index(b"\x09elsewhere", start) - 9  # before the order in which links were made
    assert data[kind] == h5py.h5l.TYPE_EXTERNAL
    data[kind] = 65
    data[end : end + 4] = lookup3(bytes(data[start:end])).to_bytes(4, "little")
    Path(name).write_bytes(data)


def test_user_defined_links_are_left_alone_wherever_they_stand_and_refused_if_asked_for():
    with h5py.File("x.h5", "w", track_order=True) as file:
        file["features"], file["ids"] = X, IDS
        file["elsewhere"] = h5py.ExternalLink("other.h5", "/features")
    with_a_user_defined_link("x.h5")
    with h5py.File("x.h5") as file:
        assert file.id.links.get_info(b"elsewhere").type == 65
    np.testing.assert_array_equal(read("x.h5"), X)
    assert any("/elsewhere (a user-defined link)" in note for note in read_dataset(["x=x.h5", "partner.npz"]).notes)
    with pytest.raises(PolicyError, match=r"refused: x.h5:/elsewhere: a user-defined link"):
        read("x.h5:/elsewhere")
