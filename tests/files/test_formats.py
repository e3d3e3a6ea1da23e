"""What is written in any format is what is read, in any type, with nulls as missing."""

import h5py
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from pmrl_cli.errors import DataError, PolicyError
from pmrl_cli.files.formats import contents
from pmrl_cli.files.formats.probe import probe
from pmrl_cli.files.join.dataset import read_dataset

pytestmark = pytest.mark.usefixtures("either_reader")

IDS = ["a", "b", "c", "d"]


def vectors(rows, dim, start=1, dtype=np.float32):
    return np.arange(start, start + rows * dim, dtype=dtype).reshape(rows, dim)


X = vectors(4, 9)


def other(make):
    return make.h5("other.h5", {"features": vectors(4, 2), "ids": IDS})


def read_x(make, path, **options):
    data = read_dataset([f"x={path}" if ":" not in path and "=" not in path else path, other(make)], **options)
    features = data.modalities[data.names.index("x")]
    return data, features, features.read(slice(0, len(data)))


@pytest.mark.parametrize("dtype", ["<f2", "<f4", "<f8", ">f2", ">f4", ">f8"])
@pytest.mark.parametrize("layout", [{}, {"chunks": (3, 4)}, {"chunks": (3, 4), "compression": "gzip"}])
def test_hdf5_of_every_float_type_and_layout(make, dtype, layout):
    path = make.h5("x.h5", {"features": X.astype(dtype), "ids": IDS}, **layout)
    _, features, values = read_x(make, path)
    assert np.array_equal(values, X)
    assert features.array.dtype == (np.float16 if dtype.endswith("2") else np.float32)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("kind", ["list", "large", "fixed", "tensor", "run"])
def test_parquet_of_every_layout(make, kind, dtype):
    values = X.astype(dtype)
    element = pa.from_numpy_dtype(values.dtype)
    fixed = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), 9)
    columns = {
        "list": lambda: {"emb": pa.array(list(values), pa.list_(element))},
        "large": lambda: {"emb": pa.array(list(values), pa.large_list(element))},
        "fixed": lambda: {"emb": fixed},
        "tensor": lambda: {"emb": pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(element, [9]), fixed)},
        "run": lambda: {f"dim_{i}": pa.array(values[:, i]) for i in range(9)},
    }[kind]()
    path = make.parquet("x.parquet", {"id": IDS, **columns}, row_group_size=3)
    assert np.array_equal(read_x(make, path)[2], X)


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.list_(pa.float32(), 2)])
def test_parquet_nulls_are_missing_and_do_not_shift_rows(make, kind):
    rows = [[1.0, 2.0], None, [5.0, 6.0], [None, None]]
    path = make.parquet("x.parquet", {"id": IDS, "emb": pa.array(rows, kind)})
    make_third = make.h5("third.h5", {"features": vectors(4, 2), "ids": IDS})
    data = read_dataset([f"x={path}", other(make), make_third], join="outer")
    x = data.names.index("x")
    assert data.present[:, x].tolist() == [True, False, True, False]
    assert data.modalities[x].array.tolist() == [[1, 2], [0, 0], [5, 6], [0, 0]]
    inner = read_dataset([f"x={path}", other(make)])
    assert inner.ids.to_pylist() == ["a", "c"]
    assert inner.modalities[inner.names.index("x")].array.tolist() == [[1, 2], [5, 6]]
    assert any("dropped 2 instances whose vector is null" in note for note in inner.notes)


def test_ragged_lists_are_refused_by_row(make):
    path = make.parquet("x.parquet", {"id": IDS, "emb": [[1.0, 2.0], [1.0, 2.0], [1.0], []]})
    with pytest.raises(DataError) as caught:
        read_x(make, path)
    assert f"vectors differ in length: {path}:emb row 2 (id 'c'): 1 values, expected 2" in str(caught.value)
    assert f"Also at {path}:emb row 3 (id 'd')." in str(caught.value)


@pytest.mark.parametrize("dtype", ["<f2", ">f4", "<f8"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy_and_npz_of_either_order(make, tmp_path, dtype, order):
    array = np.array(X, dtype=dtype, order=order)
    np.savez_compressed(tmp_path / "x.npz", features=array, ids=np.array(IDS))
    assert np.array_equal(read_x(make, str(tmp_path / "x.npz"))[2], X)
    np.save(tmp_path / "y.npy", array)
    np.save(tmp_path / "z.npy", array[::-1])
    data = read_dataset([str(tmp_path / "y.npy"), str(tmp_path / "z.npy")])
    assert data.named_by_row
    assert np.array_equal(data.modalities[0].read(slice(0, 4)), X)
    assert np.array_equal(data.modalities[1].read(slice(0, 4)), X[::-1])


def test_safetensors_of_float32_and_bfloat16(make, tmp_path):
    save_file({"emb": X, "steps": np.ones(3)}, tmp_path / "y.safetensors")
    bits = (X.view(np.uint32) >> 16).astype(np.uint16)
    data = read_dataset([str(tmp_path / "y.safetensors"), make.bfloat16("z.safetensors", bits)])
    assert np.array_equal(data.modalities[0].read(slice(0, 4)), X)
    assert data.modalities[1].bfloat16
    assert np.array_equal(data.modalities[1].array, bits)
    assert np.array_equal(data.modalities[1].read(slice(0, 4)), X)  # small whole numbers are exact in bfloat16


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ids=st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8),
        min_size=2,
        max_size=5,
        unique=True,
    ),
    kind=st.sampled_from(["h5", "parquet"]),
)
def test_ids_survive_any_file(make, ids, kind):
    features = vectors(len(ids), 2)
    if kind == "h5":
        x = make.h5("x.h5", {"features": features, "ids": ids})
    else:
        x = make.parquet("x.parquet", {"id": ids, "features": list(features)})
    y = make.h5("y.h5", {"features": features, "ids": ids})
    assert read_dataset([x, y]).ids.to_pylist() == ids


def test_blocks_of_a_few_rows_make_the_same_whole(make, monkeypatch, tmp_path):
    """Every reader must put its blocks together, whatever their size."""
    monkeypatch.setattr(contents, "READ_BYTES", 80)  # two float32 rows of nine
    np.save(tmp_path / "n.npy", X)
    save_file({"emb": X}, tmp_path / "s.safetensors")
    paths = [
        make.h5("h.h5", {"features": X}),
        make.h5("c.h5", {"features": X}, chunks=(3, 4)),
        make.parquet("p.parquet", {"emb": list(X)}),
        str(tmp_path / "n.npy"),
        str(tmp_path / "s.safetensors"),
    ]
    data = read_dataset(paths)
    assert all(np.array_equal(features.array, X) for features in data.modalities)
    assert len({features.digest for features in data.modalities}) == 1


def test_integer_ids_of_hdf5_are_decimal_text(make):
    paths = [make.h5(name, {"features": X, "ids": np.array([7, 8, 9, 10])}) for name in ("x.h5", "y.h5")]
    assert read_dataset(paths).ids.to_pylist() == ["7", "8", "9", "10"]


def external_link(file):
    file["features"] = h5py.ExternalLink("elsewhere.h5", "/features")


def link_in_the_middle(file):
    file["group"] = h5py.ExternalLink("elsewhere.h5", "/")
    file["features"] = h5py.SoftLink("/group/features")


def virtual(file):
    layout = h5py.VirtualLayout((4, 2), "f4")
    layout[:] = h5py.VirtualSource("elsewhere.h5", "features", (4, 2))
    file.create_virtual_dataset("features", layout)


def external_storage(file):
    file.create_dataset("features", (4, 2), "f4", external=[("/etc/passwd", 0, 32)])


def unknown_filter(file):
    file.create_dataset("features", (4, 2), "f4", chunks=(4, 2), compression=32015, allow_unknown_filter=True)


def bomb(file):
    file.create_dataset("features", (2**40, 512), "f4", chunks=(1024, 512))


@pytest.mark.parametrize(
    ("write", "found"),
    [
        (external_link, "an external link"),
        (link_in_the_middle, "an external link"),
        (virtual, "a virtual dataset"),
        (external_storage, "external storage"),
        (unknown_filter, "filter 32015, expected one of fletcher32, gzip, lzf, nbit, scale-offset, shuffle, szip"),
        (bomb, "2251799813685248 declared bytes over 0 stored"),
    ],
)
def test_hdf5_that_reaches_out_is_refused(make, tmp_path, write, found):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        write(file)
    with pytest.raises(PolicyError) as caught:
        read_dataset([str(tmp_path / "x.h5"), make.h5("y.h5", {"features": X})])
    assert found in str(caught.value)
    assert "root:" not in str(caught.value)


def test_pickles_are_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{}, "a"], dtype=object), allow_pickle=True)
    with pytest.raises(PolicyError, match="pickled"):
        probe(tmp_path / "x.npy")


@pytest.mark.parametrize("suffix", ["h5", "parquet", "npy", "npz", "safetensors"])
def test_files_cut_short_are_data_errors(make, tmp_path, suffix):
    x = vectors(400, 9)
    path = tmp_path / f"x.{suffix}"
    if suffix == "h5":
        make.h5("x.h5", {"features": x})
    elif suffix == "parquet":
        make.parquet("x.parquet", {"emb": list(x)})
    elif suffix == "safetensors":
        save_file({"emb": x}, path)
    else:
        {"npy": np.save, "npz": np.savez}[suffix](path, x)
    whole = path.read_bytes()
    for length in (0, 1, 7, len(whole) // 3, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(DataError, match=f"x.{suffix}"):
            probe(path)
