"""Mutated feature files against the readers: every one is read right, or refused in one line that names it.

    python tests/hostile/fuzz.py --minutes 15        # the deep profile
    python tests/hostile/fuzz.py --inputs 500        # the slice that the tests run

A failure is an error outside the family, a message that does not name the file or is not one line, a reading process
that hangs, too much processor time or memory, an answer that depends on how it was read, or a changed answer from
bytes that a checksum covers. Inputs follow from the seed and their number alone; those that fail are kept.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import shutil
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
from collections import Counter
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from random import Random

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
import pyarrow.parquet as pq
from safetensors.numpy import save_file
from scipy.io import savemat
from scipy.sparse import csr_array

from pmrl_cli.data.read_options import ReadOptions
from pmrl_cli.errors import PmrlError
from pmrl_cli.files.formats import contents, sandbox_client
from pmrl_cli.files.formats.vector_tables import Hdf5File, ParquetParts, Parts
from pmrl_cli.files.join.dataset import read_dataset
from pmrl_cli.files.join.inspection import inspect_files

ROWS, DIM = 40, 9
IDS = [f"instance-{row:04d}" for row in range(ROWS)]
X = np.random.default_rng(0).normal(size=(ROWS, DIM)).astype(np.float32)

COMPONENTS = 3
"""Of sparse matrices."""

SECONDS = 20.0
"""Processor time that an input may take in this process; the reading process has its own budget."""

MEMORY = 1536 * 2**20
"""Bytes that this process may ever hold; the reading process has its own limit."""


@dataclass
class Good:
    """A good file, and the bytes of it that a checksum covers (None: nothing does); one in a folder has its path."""

    name: str
    data: bytes
    covered: tuple[int, int] | None = None


def good_files(folder: Path) -> list[Good]:
    """Write one small file of every layout."""
    ids = pa.array(IDS, pa.large_string())
    with h5py.File(folder / "plain.h5", "w") as file:
        file["features"], file["ids"] = X, IDS
    with h5py.File(folder / "packed.h5", "w") as file:
        file.create_dataset("g/features", data=X, chunks=(7, 4), compression="gzip", shuffle=True)
        file.create_dataset("g/ids", data=np.array(IDS, "S16"), chunks=(11,), compression="lzf", fletcher32=True)
    with h5py.File(folder / "cells.h5ad", "w") as file:
        file["X"] = X.astype(np.float64)
        file["obs/_index"] = IDS
        file["obs/kind/categories"], file["obs/kind/codes"] = ["a", "b"], np.arange(ROWS, dtype=np.int8) % 2
        file.attrs["encoding-type"] = "anndata"
    table = Hdf5File(folder / "checked.h5", ROWS, DIM, np.dtype("float32"))
    table.write(ids, X)
    table.close()
    columns = {"id": IDS, "embedding": list(X), "label": [i % 3 for i in range(ROWS)]}
    pq.write_table(pa.table(columns), folder / "plain.parquet", row_group_size=16)
    numbered = {"id": IDS} | {f"dim_{i}": X[:, i].astype(np.float16) for i in range(DIM)}
    pq.write_table(pa.table(numbered), folder / "wide.parquet", compression="zstd", use_dictionary=False)
    parts = ParquetParts(folder / "parts", Parts(0, 1, 1, 0, ROWS, ROWS), DIM, np.dtype("float32"), ROWS)
    parts.write(ids, X)
    parts.close()
    (folder / "parts" / "part-00000-of-00001.parquet").rename(folder / "checked.parquet")
    table = pa.table({"id": IDS, "embedding": list(X)})
    feather.write_feather(table, folder / "a.feather", compression="uncompressed")
    with pa.ipc.new_stream(folder / "a.arrows", table.schema) as writer:
        writer.write_table(table, max_chunksize=16)
    lines = [f"{i},{','.join(map(str, x))}\n" for i, x in zip(IDS, X.tolist(), strict=True)]
    (folder / "a.csv").write_text(f"id,{','.join(f'f{k}' for k in range(DIM))}\n{''.join(lines)}")
    objects = [json.dumps({"id": i, "embedding": x}) for i, x in zip(IDS, X.tolist(), strict=True)]
    (folder / "a.jsonl").write_text("\n".join(objects) + "\n")
    with h5py.File(folder / "each.h5", "w") as file:
        for i, x in zip(IDS, X, strict=True):
            file[i] = x
    with h5py.File(folder / "a.h5mu", "w") as file:
        file["mod/x/X"], file["mod/x/obs/_index"] = X, IDS
    np.save(folder / "a.npy", X)
    np.savez_compressed(folder / "a.npz", features=X, ids=np.array(IDS))
    save_file({"emb": X}, folder / "a.safetensors")
    with h5py.File(folder / "sparse.h5ad", "w") as file:
        file["obs/_index"] = IDS
        matrix = csr_array(np.where(X > 0, X, 0))
        for part in ("data", "indices", "indptr"):
            file[f"X/{part}"] = getattr(matrix, part)
        file["X"].attrs["encoding-type"], file["X"].attrs["shape"] = "csr_matrix", X.shape
    _rarer(folder)
    _stores(folder)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    good = [Good(path.relative_to(folder).as_posix(), path.read_bytes()) for path in files]
    good = [one for one in good if not one.name.startswith("parts/")]
    for one in good:
        if one.name == "checked.h5":
            one.covered = (0, len(one.data))
        elif one.name == "checked.parquet":
            at = one.data.index(X.tobytes())
            one.covered = (at, at + X.nbytes)
    return good


def _rarer(folder: Path) -> None:
    """Write files of a word, a record or a member for each instance, and those of older MATLABs."""
    records = [("id", "U16"), ("embedding", "f4", DIM)]
    np.save(folder / "records.npy", np.array(list(zip(IDS, X, strict=True)), records))
    savemat(folder / "old.mat", {"feat": X, "ids": np.array(IDS, object)})
    savemat(folder / "packed.mat", {"feat": X, "ids": IDS}, do_compression=True)
    lines = [" ".join([i, *map(str, x)]) for i, x in zip(IDS, X.tolist(), strict=True)]
    (folder / "a.vec").write_text("\n".join([f"{ROWS} {DIM}", *lines]) + "\n")
    binary = (f"{i} ".encode() + x.tobytes() + b"\n" for i, x in zip(IDS, X, strict=True))
    (folder / "a.bin").write_bytes(f"{ROWS} {DIM}\n".encode() + b"".join(binary))
    with tarfile.open(folder / "a.tar", "w") as archive:
        for i, x in zip(IDS, X, strict=True):
            member = io.BytesIO()
            np.save(member, x)
            about = tarfile.TarInfo(f"{i}.npy")
            about.size = member.tell()
            member.seek(0)
            archive.addfile(about, member)


def _stores(folder: Path) -> None:
    """Write stores that are folders, where their libraries are installed."""
    if find_spec("zarr"):
        import zarr

        for version in (2, 3):
            group = zarr.open_group(folder / f"v{version}.zarr", mode="w", zarr_format=version)
            group.create_array("features", data=X, chunks=(16, DIM))
            group.create_array("ids", shape=(ROWS,), dtype=str)[:] = np.array(IDS, np.dtypes.StringDType())
    if find_spec("lance"):
        import lance

        lance.write_dataset(pa.table({"id": IDS, "vector": list(X)}), folder / "a.lance")


def place(good: Good, goods: Path, folder: Path) -> tuple[Path, Path]:
    """Return what is read, and the file that is changed in it, once the rest of its folder stands around it."""
    top, _, inner = good.name.partition("/")
    for other in folder.glob("mutant*"):  # what lies beside a file could hold its ids
        shutil.rmtree(other) if other.is_dir() else other.unlink()
    path = folder / f"mutant{Path(top).suffix}"
    if not inner:
        return path, path
    shutil.copytree(goods / top, path)
    return path, path / inner


INTERESTING = (
    0,
    1,
    2**7 - 1,
    2**7,
    2**8 - 1,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**63 - 1,
    2**63,
    2**64 - 1,
)


def mutate(random: Random, good: Good, others: list[Good]) -> bytes:
    """Return the file with one to six changes of random kinds, within the covered bytes where there are some."""
    data = bytearray(good.data)
    low, high = good.covered or (0, len(data))
    kept_in_place = good.covered is not None
    for _ in range(random.choice((1, 1, 1, 2, 3, 6))):
        high = min(high, len(data))
        if low >= high:
            break
        at = random.randrange(low, high)
        span = min(random.choice((1, 2, 4, 8, 16, 64, 512)), high - at)
        kind = random.randrange(5 if kept_in_place else 9)
        if kind <= 1:
            data[at] ^= 1 << random.randrange(8)
        elif kind == 2:
            data[at] = random.randrange(256)
        elif kind == 3:
            width = min(random.choice((1, 2, 4, 8)), high - at)
            data[at : at + width] = (random.choice(INTERESTING) % 2 ** (8 * width)).to_bytes(width, "little")
        elif kind == 4:
            data[at : at + span] = random.choice((b"\0", b"\xff")) * span
        elif kind == 5:
            del data[at : at + span]
        elif kind == 6:
            data[at:at] = data[at : at + span]
        elif kind == 7:
            other = random.choice(others).data
            start = random.randrange(len(other))
            data[at : at + span] = other[start : start + span]
        else:
            del data[at:]
    return bytes(data)


@dataclass
class Tally:
    """What became of the inputs."""

    inputs: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    failures: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"{self.inputs} inputs, {len(self.failures)} failures, slowest {self.slowest:.1f} s of processor time"
        ]
        lines += [f"  {count:8d}  {name}" for name, count in self.outcomes.most_common()]
        return "\n".join(lines + self.failures)


def judge(path: Path, partner: Path, good: Good, tally: Tally) -> str | None:
    """Read one input in every way a command would; return what is wrong with the answer."""
    inspection = inspect_files([f"x={path}", str(partner)], ReadOptions(components=COMPONENTS))
    for error in inspection.problems:
        if "gave no answer" in error.found:
            return f"the reading process hangs: {error}"
        if path.name not in str(error) and error.what not in ("too few modalities", "no instance in common"):
            return f"the message does not name the file: {error}"
        if not str(error).isprintable():
            return f"the message is not one printable line: {error!r}"
    answers = []
    for block in (contents.READ_BYTES, 100):
        kept, contents.READ_BYTES = contents.READ_BYTES, block
        try:
            data = read_dataset([f"x={path}", str(partner)], on_bad="drop", components=COMPONENTS, max_memory=2**26)
            answers.append((data.ids.to_pylist(), data.names, [f.digest for f in data.modalities]))
        except PmrlError as error:
            data = None
            answers.append(error.what)
            tally.outcomes[f"refused: {error.what}" + (" (library ended)" if "library" in error.found else "")] += 1
        finally:
            contents.READ_BYTES = kept
    if answers[0] != answers[1]:
        return f"two ways of reading differ: {answers}"
    if data is None:
        return None
    x = data.modalities[data.names.index("x")]
    values = x.read(slice(0, len(data)))
    there = data.present[:, data.names.index("x")]
    if not np.isfinite(values).all() or not values[there].any(axis=1).all():
        return "an accepted row is not finite, or has no length"
    wanted = X[[IDS.index(i) for i in data.ids.to_pylist() if i in IDS]]
    same = len(wanted) == len(data) == ROWS and np.array_equal(values, wanted.astype(values.dtype))
    if good.covered is not None and not same:
        return "a changed answer from bytes that a checksum covers"
    tally.outcomes["read as before" if same else "read, bytes without checksum changed"] += 1
    return None


def run(seed: int, *, inputs: int | None = None, minutes: float | None = None, keep: Path | None = None) -> Tally:
    """Try mutations of every good file in turn, so many or for so long."""
    tally = Tally()
    end = None if minutes is None else time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        (folder / "good").mkdir()
        goods = good_files(folder / "good")
        partner = folder / "partner.npz"
        np.savez(partner, features=X[:, :4], ids=np.array(IDS))
        unnamed = folder / "partner.npy"
        np.save(unnamed, X[:, :4])
        while (inputs is None or tally.inputs < inputs) and (end is None or time.monotonic() < end):
            random = Random(f"{seed}:{tally.inputs}")
            good = goods[tally.inputs % len(goods)]
            path, changed = place(good, folder / "good", folder)
            changed.write_bytes(mutate(random, good, goods))
            started = time.process_time()
            try:
                warnings.simplefilter("error")
                bare = good.name in ("a.npy", "a.safetensors")  # without ids: joined by row
                wrong = judge(path, unnamed if bare else partner, good, tally)
            except Exception:  # noqa: BLE001 - this is what is looked for
                wrong = traceback.format_exc()
            took = time.process_time() - started
            tally.slowest = max(tally.slowest, took)
            if took > SECONDS:
                wrong = f"took {took:.0f} s of processor time"
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            if peak > MEMORY:
                wrong = f"{peak} bytes of memory"
            if wrong is not None:
                tally.failures.append(f"{good.name} input {tally.inputs} of seed {seed}: {wrong}")
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    shutil.copy(changed, keep / f"{seed}-{tally.inputs}-{good.name.replace('/', '_')}")
                if peak > MEMORY:
                    break  # it would be said of every input from now on
            tally.inputs += 1
    return tally


def main() -> int:
    """Run from the command line; 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float)
    parser.add_argument("--inputs", type=int)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="folder for inputs that fail")
    options = parser.parse_args()
    if options.minutes is None and options.inputs is None:
        parser.error("say --minutes or --inputs")
    sandbox_client.SECONDS = 3.0  # stalls are met often here
    sandbox_client._PATIENCE = 600  # only one that waits for ever is a hang, however busy the machine is
    tally = run(options.seed, inputs=options.inputs, minutes=options.minutes, keep=options.keep)
    sys.stdout.write(f"{tally}\n")
    return 1 if tally.failures else 0


if __name__ == "__main__":
    sys.exit(main())
