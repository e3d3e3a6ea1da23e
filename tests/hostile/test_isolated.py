"""A file that crashes, stalls or floods its library costs one line; the files beside it are read."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from makers import IDS, X, crashing, good, packed, slow

from pmrl_cli.errors import DataError, PolicyError, StateError
from pmrl_cli.files.formats import contents, sandbox_client
from pmrl_cli.files.formats.contents import ProbeOptions
from pmrl_cli.files.formats.probe import probe
from pmrl_cli.files.formats.registry import format_named
from pmrl_cli.files.join.dataset import read_dataset
from pmrl_cli.files.join.inspection import inspect_files
from tests.limits import HUNG

ROOT = Path(__file__).parents[2]


def plain(path, values=X):
    with h5py.File(path, "w") as file:
        file["features"], file["ids"] = values, IDS
    return path


def pmrl(*arguments, cwd=ROOT, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "pmrl_cli", *map(str, arguments)],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=HUNG,
        check=False,
        **options,
    )


def test_a_file_that_crashes_hdf5_is_one_line_and_the_others_are_looked_at(tmp_path):
    bad = crashing(tmp_path / "bad.h5")
    ran = pmrl("inspect", bad, plain(tmp_path / "x.h5"), good(tmp_path))
    assert ran.returncode == 3
    assert ran.stderr == (
        f"error: file cannot be read: {bad}: the HDF5 library crashed (signal 8) while reading it, expected a whole, "
        "readable file of its kind. Check it, write it again, or in smaller chunks if it is large.\n"
    )
    assert "good" in ran.stdout
    assert "x " in ran.stdout


def test_a_file_that_stalls_is_ended_by_its_budget(tmp_path, monkeypatch):
    monkeypatch.setattr(sandbox_client, "SECONDS", 0.001)
    monkeypatch.setattr(sandbox_client, "_PATIENCE", 100_000)
    found = probe(slow(tmp_path / "slow.h5"))
    with pytest.raises(DataError, match="slow.h5: the HDF5 library took more than 0 s of processor time"):
        found.columns[0].load()


def test_a_large_file_has_a_large_budget(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(sandbox_client._Worker, "end", lambda self: None)
    monkeypatch.setattr(
        sandbox_client, "_ask", lambda worker, message, about: asked.append(message["seconds"]) or {"end": True}
    )
    for size in (2**20, 2**30):
        path = tmp_path / f"{size}.h5"
        with path.open("wb") as file:
            file.truncate(size)
        list(sandbox_client._exchange(path, format_named("hdf5"), ProbeOptions(), do="probe"))
    assert asked[1] - asked[0] > 200


def test_a_process_killed_while_it_reads_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "READ_BYTES", 100)
    blocks = probe(plain(tmp_path / "x.h5")).vectors[0].blocks()
    in_use = sandbox_client._idle[-1]
    next(blocks)
    os.kill(in_use.process.pid, signal.SIGSEGV)
    with pytest.raises(DataError, match=r"x.h5: the HDF5 library crashed \(signal 11\)"):
        list(blocks)
    assert len(list(probe(tmp_path / "x.h5").vectors[0].blocks())) > 10


def test_streams_that_are_left_or_mixed_do_not_meet(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "READ_BYTES", 100)
    first, second = (probe(plain(tmp_path / name, values)) for name, values in (("x.h5", X), ("y.h5", -X)))
    left = first.vectors[0].blocks()
    next(left)
    left.close()
    pairs = zip(first.vectors[0].blocks(), second.vectors[0].blocks(), strict=True)
    both = [(a.copy(), b.copy()) for (a, _), (b, _) in pairs]
    assert np.array_equal(np.concatenate([a for a, _ in both]), X)
    assert np.array_equal(np.concatenate([b for _, b in both]), -X)


def test_an_error_in_the_middle_does_not_answer_the_next_request(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "READ_BYTES", 100)
    bad = tmp_path / "bad.h5"
    with h5py.File(bad, "w") as file:
        file.create_dataset("features", data=X, chunks=(4, 9), fletcher32=True)
        at = file["features"].id.get_chunk_info(5).byte_offset
    data = bytearray(bad.read_bytes())
    data[at] ^= 1
    bad.write_bytes(data)
    with pytest.raises(DataError, match="bad.h5:/features"):
        list(probe(bad).vectors[0].blocks())
    blocks = [block.copy() for block, _ in probe(plain(tmp_path / "x.h5")).vectors[0].blocks()]
    assert np.array_equal(np.concatenate(blocks), X)


def test_what_hdf5_and_parquet_pack_a_thousandfold_takes_bounded_memory(tmp_path):
    """240 MB of vectors from a file of a few kilobytes, in two processes that each stay below 512 MiB."""
    path = packed(tmp_path / "packed.parquet", 240_000)
    assert path.stat().st_size < 3 * 2**20
    code = (
        "import sys; from pathlib import Path\n"
        "from pmrl_cli.files.formats import sandbox_client; from pmrl_cli.files.formats.probe import probe\n"
        "print(sum(len(block) for block, _ in probe(Path(sys.argv[1])).vectors[0].blocks()))\n"
        "for process in ('self', sandbox_client._idle[0].process.pid):\n"
        "    status = Path(f'/proc/{process}/status').read_text()\n"
        "    print(status.split('VmHWM:')[1].split()[0])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    rows, ours, theirs = (int(word) for word in ran.stdout.split())
    assert rows == 240_000
    assert ours < 512 * 1024
    assert theirs < 512 * 1024


def test_a_file_whose_chunk_is_larger_than_memory_is_refused_unread(tmp_path):
    """A chunk of 2 GiB, 4 MiB of it stored: under a limit of 1 GiB nothing is taken."""
    with h5py.File(tmp_path / "chunk.h5", "w") as file:
        file.create_dataset("features", (2**21, 256), "f4", chunks=(2**21, 256), compression="gzip")
        file["features"].id.write_direct_chunk((0, 0), np.random.default_rng(0).bytes(2**22))
        file["ids"] = np.arange(2**21)
    limit = "import resource; resource.setrlimit(resource.RLIMIT_DATA, (2**30, 2**30));"
    code = f"{limit} import sys; sys.argv[0] = 'pmrl'; from pmrl_cli.__main__ import main; main()"
    arguments = [sys.executable, "-c", code, "inspect", str(tmp_path / "chunk.h5"), good(tmp_path)]
    ran = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=HUNG, check=False)
    assert ran.returncode == 4
    assert "chunk.h5:/features: a chunk of 2147483648 bytes, expected chunks of at most 1073741824" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_file_that_changes_while_it_is_read_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(contents, "READ_BYTES", 100)
    for name in ("x.h5", "x.npy"):
        path = tmp_path / name
        np.save(path, X) if name == "x.npy" else plain(path)
        blocks = probe(path).vectors[0].blocks()
        next(blocks)
        os.utime(path, ns=(0, 1))
        with pytest.raises(StateError, match=f"file has changed while it was read: .*{name}"):
            list(blocks)


def test_hdf5_is_not_loaded_beside_the_command(tmp_path):
    code = (
        "import sys; from pmrl_cli.files.join.dataset import read_dataset\n"
        "read_dataset(sys.argv[1:]); print({'h5py', 'pyarrow.parquet'} & set(sys.modules))"
    )
    paths = [str(plain(tmp_path / "x.h5")), good(tmp_path)]
    ran = subprocess.run([sys.executable, "-c", code, *paths], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout == "set()\n"


def test_the_reading_process_has_no_plugins_no_torch_and_no_module_of_the_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HDF5_PLUGIN_PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "numpy.py").write_text("raise SystemExit")
    monkeypatch.setattr(sandbox_client, "_idle", [])
    probe(plain(tmp_path / "x.h5"))
    worker = sandbox_client._idle.pop()
    status = Path(f"/proc/{worker.process.pid}")
    variables = status.joinpath("environ").read_bytes().split(b"\0")
    assert b"HDF5_PLUGIN_PRELOAD=::" in variables
    assert not any(variable.startswith(b"HDF5_PLUGIN_PATH") for variable in variables)
    assert b"torch" not in status.joinpath("maps").read_bytes()
    worker.end()


def test_the_reading_process_ends_with_the_command(tmp_path):
    plain(tmp_path / "x.h5")
    code = (
        "import os, sys; from pathlib import Path; from pmrl_cli.files.formats import sandbox_client\n"
        "from pmrl_cli.files.formats.probe import probe; probe(Path(sys.argv[1]))\n"
        "print(sandbox_client._idle[0].process.pid, flush=True); os._exit(0)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.h5")], cwd=ROOT, capture_output=True, text=True, check=True
    )
    end = time.monotonic() + HUNG
    while (there := Path(f"/proc/{ran.stdout.strip()}/stat")).exists() and time.monotonic() < end:
        if there.read_text().split()[2] == "Z":
            break
        time.sleep(0.05)
    assert not there.exists() or there.read_text().split()[2] == "Z"


# What a file points at is a FIFO here: a reader that followed the pointer would wait for ever.
def external_link(file):
    file["features"] = h5py.ExternalLink("target", "/features")


def link_within_a_path(file):
    file["group"] = h5py.ExternalLink("target", "/")
    file["features"] = h5py.SoftLink("/group/features")


def external_storage(file):
    file.create_dataset("features", (40, 2), "f4", external=[("target", 0, 320)])


def virtual_dataset(file):
    layout = h5py.VirtualLayout((40, 2), "f4")
    layout[:] = h5py.VirtualSource("target", "features", (40, 2))
    file.create_virtual_dataset("features", layout)


def declared_sum(file):
    for index in range(1000):
        file.create_dataset(f"d{index}", (2**16, 960), "f4")


def wrapping_shape(file):
    file.create_dataset("features", (2**33, 2**22), "f8", chunks=(2**10, 2**10))


@pytest.mark.usefixtures("either_reader")
@pytest.mark.parametrize(
    "write", [external_link, link_within_a_path, external_storage, virtual_dataset, declared_sum, wrapping_shape]
)
def test_hdf5_that_reaches_out_or_claims_too_much_is_refused_unopened(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("target")
    with h5py.File("x.h5", "w") as file:
        file["ids"] = IDS
        write(file)
    found = inspect_files(["x.h5", good(tmp_path)])
    assert isinstance(found.problems[0], PolicyError)
    assert "refused: x.h5" in str(found.problems[0])


@pytest.mark.usefixtures("either_reader")
def test_a_parquet_footer_that_claims_too_much_is_refused(tmp_path):
    path = packed(tmp_path / "x.parquet", 300_000)
    with pytest.raises(PolicyError, match="declared bytes over"):
        probe(path)


@pytest.mark.usefixtures("either_reader")
def test_references_do_not_become_ids(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["features"] = X
        references = file.create_dataset("ids", (40,), dtype=h5py.ref_dtype)
        references[:] = [file["features"].ref] * 40
    with pytest.raises(DataError, match="some files have ids and some have none"):
        read_dataset([str(tmp_path / "x.h5"), good(tmp_path)])


def fifo(path):
    os.mkfifo(path)


def unix_socket(path):
    os.chdir(path.parent)  # the name of a socket is short
    with socket.socket(socket.AF_UNIX) as end:
        end.bind(path.name)


def device(path):
    path.symlink_to("/dev/zero")


def memory(path):
    path.symlink_to("/proc/self/mem")


def loop(path):
    path.symlink_to(path.name)


def folder(path):
    path.mkdir()


@pytest.mark.parametrize("suffix", [".h5", ".parquet", ".npy", ".npz", ".safetensors", ".csv"])
@pytest.mark.parametrize("make", [fifo, unix_socket, device, memory, loop, folder])
def test_what_is_no_regular_file_is_refused_unopened(tmp_path, monkeypatch, make, suffix):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / f"x{suffix}"
    make(path)
    with pytest.raises(DataError, match=f"x{suffix}"):
        read_dataset([str(path), good(tmp_path)])
