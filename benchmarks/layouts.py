"""What becomes of files in the layouts that people have, before and now; and what reading a million rows costs.

    PYTHONPATH=. python benchmarks/layouts.py cases --before OLD_CHECKOUT [--reported FOLDER]
    PYTHONPATH=. python benchmarks/layouts.py speed [--rows 1000000] [--text-rows 100000]

``cases`` writes every layout of the tests (and takes those of public reports that FOLDER holds), reads it with this
checkout and with the old one, types what a refusal says, and holds the rows that were joined to the truth: in files
of the tests each vector says which instance it is of; in those of the reports a ridge regression between two
modalities must find the other half of the instances. ``speed`` reads features of every format beside a raw read.
"""

from __future__ import annotations

import argparse
import inspect
import io
import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[1]
SECONDS = 60
"""After so long a read is said to have no end."""

TYPED = "id-column|id-pattern|by-row|pool|on-bad|on-repeat|feature-column|components"
"""Options of refusals that are typed as they stand there."""

REPORTED = [
    ("cell barcodes, one file with a suffix", "barcode_suffix/rna.h5ad barcode_suffix/adt.h5ad", 2),
    ("(n, 36, d) regions", "bottom_up/visdial_train_faster_rcnn_bottomup_features.h5 bottom_up/captions.parquet", 2),
    ("(n, 1, d) with a batch axis", "bottom_up/clip_features.h5 bottom_up/captions.parquet", 2),
    ("a folder per modality, one (d,) npy per id", "file_per_id/image file_per_id/text", 2),
    ("five captions an image, by row", "five_captions/rows/images.npy five_captions/rows/captions.npy", 2),
    ("five captions an image, by id", "five_captions/ids/images.parquet five_captions/ids/captions.parquet", 2),
    ("HDF5 with ids, a modality gap", "gap/report.h5 gap/slide.h5", 2),
    ("HDF5, a group per video", "group_per_video/both.hdf5", 2),
    ("HDF5, a group per video, frames", "group_per_video/sub_i3d.hdf5 group_per_video/sub_vggish.hdf5", 2),
    ("datasets.save_to_disk", "hf_saved/saved", 2),
    ("datasets to Parquet, Sequence", "hf_saved/sequence.parquet", 2),
    ("datasets to Parquet, Array2D", "hf_saved/array2d.parquet", 2),
    ("npy with *_labels_sorted.npy", "ids_beside/cafa", 2),
    ("features.npy with file_names.txt", "ids_beside/things/clip ids_beside/things/resnet", 2),
    ("a third modality as Array2D (1, d)", "ignored_array/three.parquet", 3),
    ("a third modality as (n, 1, d)", "ignored_array/three.h5", 3),
    ("GeoParquet joined by grid_cell", "majortom/S2RGB_SigLIP.parquet majortom/S1RTC_SSL4EO.parquet", 2),
    ("MATLAB 7.3", "mat73/mir_cnn.mat", 3),
    ("MATLAB 7.3 called .h5", "mat73/mir_cnn.h5", 3),
    ("one (1, d) npy per image", "npy_per_image/row/image npy_per_image/row/text", 2),
    ("HDF5, a dataset per protein", "one_dataset_per_protein/per-protein.h5 one_dataset_per_protein/esm2.h5", 2),
    (
        "HDF5, an (frames, d) dataset per video",
        "one_dataset_per_video/MSRVTT_appearance_train.h5 one_dataset_per_video/MSRVTT_motion_train.h5",
        2,
    ),
    ("ids as integers and as padded text", "padded_ids/image.parquet padded_ids/caption.parquet", 2),
    ("DataFrame.to_hdf", "pandas_hdf/train_cite_inputs.h5 pandas_hdf/train_cite_targets.h5", 2),
    ("DataFrame.to_hdf, format table", "pandas_hdf/table.h5 pandas_hdf/train_cite_targets.h5", 2),
    ("pandas, named index", "pandas_index/named/image.parquet pandas_index/named/text.parquet", 2),
    ("pandas, nameless index", "pandas_index/list/image.parquet pandas_index/list/text.parquet", 2),
    ("pandas, wide frame", "pandas_index/wide/image.parquet pandas_index/wide/text.parquet", 2),
    (
        "h5ad of partly the same cells",
        "partial_overlap/rna.h5ad partial_overlap/adt.h5ad partial_overlap/atac.h5ad",
        3,
    ),
    ("npz, ids under two names", "pickled/image.npz pickled/text.npz", 2),
    ("a pickled dict in npy", "pickled/dict.npy pickled/text.npz", 2),
    ("polars, lists with a null", "polars_lists/image.parquet polars_lists/text.parquet", 2),
    ("row i = item i", "rows_only/image_feat.npy rows_only/text_feat.npy", 2),
    ("row i = item i, zeros where missing", "rows_only/zeros/image_feat.npy rows_only/zeros/text_feat.npy", 2),
    (
        "image/0.npy and text/0.npy of one width",
        "same_names_same_dim/shards/image same_names_same_dim/shards/text",
        2,
    ),
    ("one npy per id, equal names and width", "same_names_same_dim/perid/image same_names_same_dim/perid/text", 2),
    ("vectors as text in CSV", "vectors_as_text/image.csv vectors_as_text/text.csv", 2),
    ("wide CSV", "vectors_as_text/wide_image.csv vectors_as_text/wide_text.csv", 2),
    ("JSON lines", "vectors_as_text/image.jsonl vectors_as_text/text.jsonl", 2),
    ("vectors as text in Parquet", "vectors_as_text/image.parquet vectors_as_text/text.parquet", 2),
]
"""What was reported, FILES, and how many modalities they are."""


def outcome(files: Sequence[str], options: dict[str, Any], truth: dict[str, Any]) -> str:
    """Read files; type what refusals say, twice at most; return what became of it, in a few words."""
    from pmrl_cli import read_dataset
    from pmrl_cli.errors import PmrlError

    known = set(inspect.signature(read_dataset).parameters)
    if "options" in known:
        from pmrl_cli.data.read_options import ReadOptions

        known |= set(inspect.signature(ReadOptions).parameters)
    options = {name: value for name, value in options.items() if name in known}
    typed: list[str] = []
    for _ in range(3):
        try:
            data = read_dataset(list(files), **options)
        except PmrlError as error:
            found = next(iter(re.finditer(rf"--({TYPED})(?: ('[^']*'|[\w/*|-]+(?:\.\w+)*))?", str(error))), None)
            name = found[1].replace("-", "_") if found else ""
            if found is None or not (found[2] or name == "by_row") or name not in known or len(typed) == 2:
                return f"refused: {error.what}" + (f" (after `{' '.join(typed)}`)" if typed else "")
            value: Any = True if name == "by_row" else shlex.split(found[2])[0]
            options[name] = int(value) if name == "components" else value
            typed.append(found[0] if value is not True else "--by-row")
            continue
        except Exception as error:  # noqa: BLE001 - an outcome too
            return f"**crash: {type(error).__name__}**"
        wrong = fault(data, truth)
        said = f"refused, then `{' '.join(typed)}`: " if typed else ""
        return f"{said}{'right' if wrong is None else f'**wrong: {wrong}**'}"
    return "refused again and again"


def fault(data: Any, truth: dict[str, Any]) -> str | None:  # noqa: ANN401 - of either checkout
    """Return what is wrong with what was joined, None if nothing is."""
    if len(data.names) != truth["modalities"]:
        return f"{len(data.names)} modalities of {len(data)} instances"
    both = data.present.all(axis=1)
    arrays = [one.read(slice(0, len(data)))[both].astype(np.float64) for one in data.modalities]
    if "n" not in truth:
        return None if _found_again(*arrays[:2]) else "rows of different instances"
    if not truth["values"]:
        return None
    if any(not np.array_equal(one[:, 0].round(3), arrays[0][:, 0].round(3)) for one in arrays):
        return "rows of different instances"
    return None if len(data) == truth["n"] else f"{len(data)} of {truth['n']} instances"


def _found_again(x: np.ndarray, y: np.ndarray) -> bool:
    """Return whether a ridge regression on half of the rows finds the others: MRR above three times chance."""
    order = np.random.default_rng(0).permutation(len(x))
    fit, test = order[: len(x) // 2], order[len(x) // 2 :]
    x, y = x - x[fit].mean(axis=0), y - y[fit].mean(axis=0)
    gram = x[fit].T @ x[fit]
    weights = np.linalg.solve(gram + 0.1 * np.trace(gram) / len(gram) * np.eye(len(gram)), x[fit].T @ y[fit])
    asked, gallery = x[test] @ weights, y[test]
    scores = asked @ gallery.T / np.linalg.norm(gallery, axis=1)
    ranks = (scores > np.diag(scores)[:, None]).sum(axis=1) + 1
    n = len(test)
    return float((1 / ranks).mean()) > 3 * float((1 / np.arange(1, n + 1)).mean())


def judge() -> None:
    """Read cases from standard input, one a line, and write their outcomes: the part that an old checkout runs."""

    def late(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, late)
    for line in sys.stdin:
        case = json.loads(line)
        os.chdir(case["folder"])
        signal.alarm(SECONDS)
        try:
            found = outcome(case["files"], case["options"], case["truth"])
        except TimeoutError:
            found = f"**no end in {SECONDS} s**"
        signal.alarm(0)
        print(json.dumps(found), flush=True)


def own_cases(folder: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Write the layouts of the tests; yield group, name and case of each."""
    from tests.files import array_cases, rarer_cases, table_cases  # noqa: F401 - add to CASES
    from tests.files.cases import CASES
    from tests.files.crossed_cases import ALL, make

    for name, write in CASES.items():
        yield "Layouts of the tests", name.replace("_", " "), _made(folder / name, write)
    for number, crossed in enumerate(ALL):
        title = f"ids by {crossed.ids} in {crossed.format}"
        yield "Crossed", title, _made(folder / f"crossed{number}", lambda at, crossed=crossed: make(at, crossed))


def _made(folder: Path, write: Any) -> dict[str, Any]:  # noqa: ANN401 - a maker of the tests
    folder.mkdir(parents=True)
    os.chdir(folder)
    made = write(folder)
    files = [one for text in made.files for one in (sorted(map(str, Path().glob(text))) if "*" in text else [text])]
    options = {name: str(value) if isinstance(value, Path) else value for name, value in made.options.items()}
    truth = {"modalities": len(made.names), "n": made.n, "values": made.values}
    return {"folder": str(folder), "files": files, "options": options, "truth": truth}


def reported_cases(folder: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the situations of public reports, made synthetic."""
    for name, files, modalities in REPORTED:
        truth = {"modalities": modalities}
        yield "Public reports", name, {"folder": str(folder), "files": files.split(), "options": {}, "truth": truth}


def judged(checkout: Path, cases: Sequence[dict[str, Any]]) -> list[str]:
    """Return the outcomes of cases with a checkout."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONWARNINGS": "ignore"}
    lines = "".join(json.dumps(case) + "\n" for case in cases)
    command = [sys.executable, str(Path(__file__).resolve()), "judge"]
    done = subprocess.run(
        command,
        input=lines,
        text=True,
        stdout=subprocess.PIPE,
        env=environment,
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def compare(before: Path, reported: Path | None) -> None:
    """Print the table of all cases."""
    with tempfile.TemporaryDirectory(prefix="layouts-") as name:
        cases = [*(reported_cases(reported.resolve()) if reported else ()), *own_cases(Path(name))]
        os.chdir(name)
        outcomes = [judged(checkout, [case for *_, case in cases]) for checkout in (before.resolve(), ROOT)]
    group = ""
    crossed: dict[str, tuple[Counter[str], Counter[str]]] = {}
    for (of, title, _), old, new in zip(cases, *outcomes, strict=True):
        if of == "Crossed":
            counts = crossed.setdefault(title, (Counter(), Counter()))
            for count, found in zip(counts, (old, new), strict=True):
                count[found.split(" (")[0].strip("*")] += 1
            continue
        if of != group:
            print(f"\n## {of}\n\n| case | before | now |\n| --- | --- | --- |")
            group = of
        print(f"| {title} | {old} | {new} |")
    print("\n## Crossed\n\n| ids | before | now |\n| --- | --- | --- |")
    for title, counts in crossed.items():
        shown = ["; ".join(f"{number} {found}" for found, number in count.most_common(3)) for count in counts]
        print(f"| {title} | {shown[0]} | {shown[1]} |")
    for name, found in zip(("Before", "Now"), outcomes, strict=True):
        kinds = Counter(map(_kind, found))
        print(f"\n{name}: {', '.join(f'{number} {kind}' for kind, number in kinds.most_common())}.")


def _kind(found: str) -> str:
    if "**" in found:
        return "wrong, or no answer"
    return "right" if found == "right" else "right once the option is typed" if found.endswith("right") else "refused"


def write_each(rows: int, text_rows: int) -> dict[str, tuple[int, Any]]:
    """Return of each format the rows and what writes a file or folder of them: vectors of 64 float32, and ids."""
    import h5py
    import lance
    import pyarrow as pa
    import pyarrow.feather as feather
    import pyarrow.parquet as pq
    import zarr
    from safetensors.numpy import save_file

    def table(x: Any, ids: list[str]) -> Any:  # noqa: ANN401 - Arrow has no types
        vectors = pa.FixedSizeListArray.from_arrays(pa.array(x.ravel()), x.shape[1])
        return pa.table({"id": pa.array(ids), "embedding": vectors})

    def h5(path: Path, x: Any, ids: list[str], names: tuple[str, str]) -> None:  # noqa: ANN401
        with h5py.File(path, "w") as file:
            file[names[0]], file[names[1]] = x, np.array(ids, "S8")

    def arrays(path: Path, x: Any, ids: list[str]) -> None:  # noqa: ANN401
        group = zarr.open_group(path, mode="w")
        group.create_array("features", data=x, chunks=(16384, x.shape[1]))
        group.create_array("ids", shape=(len(ids),), dtype=str)[:] = np.array(ids, np.dtypes.StringDType())

    def saved(path: Path, x: Any, ids: list[str]) -> None:  # noqa: ANN401
        path.mkdir()
        batches = table(x, ids)
        with pa.ipc.new_stream(path / "data-00000-of-00001.arrow", batches.schema) as writer:
            writer.write_table(batches, max_chunksize=1000)
        (path / "state.json").write_text('{"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}')

    def matlab(path: Path, x: Any, ids: list[str]) -> None:  # noqa: ANN401
        with h5py.File(path, "w") as file:
            file["x"] = x.T

    def old_matlab(path: Path, x: Any, ids: list[str]) -> None:  # noqa: ANN401
        from scipy.io import savemat

        savemat(path, {"x": x, "ids": np.array(ids)})

    def records(path: Path, x: Any, ids: list[str]) -> None:  # noqa: ANN401
        both = np.empty(len(ids), [("id", "S8"), ("embedding", "f4", x.shape[1])])
        both["id"], both["embedding"] = ids, x
        np.save(path, both)

    def words(path: Path, x: Any, ids: list[str]) -> None:  # noqa: ANN401
        with path.open("w") as file:
            file.write(f"{len(ids)} {x.shape[1]}\n")
            for key, row in zip(ids, x.tolist(), strict=True):
                file.write(f"{key} {' '.join(map(str, row))}\n")

    def web(path: Path, x: Any, ids: list[str]) -> None:  # noqa: ANN401
        with tarfile.open(path, "w") as archive:
            for key, row in zip(ids, x, strict=True):
                np.save(member := io.BytesIO(), row)
                about = tarfile.TarInfo(f"{key}.npy")
                about.size = member.tell()
                member.seek(0)
                archive.addfile(about, member)

    def each(path: Path, x: Any, ids: list[str]) -> None:  # noqa: ANN401
        path.mkdir()
        for key, row in zip(ids, x, strict=True):
            np.save(path / f"{key}.npy", row)

    def keyed(path: Path, x: Any, ids: list[str]) -> None:  # noqa: ANN401
        with h5py.File(path, "w") as file:
            for key, row in zip(ids, x, strict=True):
                file[key] = row

    def wide(path: Path, x: Any, ids: list[str]) -> None:  # noqa: ANN401
        from pyarrow import csv

        columns = {f"f{k}": x[:, k] for k in range(x.shape[1])}
        csv.write_csv(pa.table({"id": ids, **columns}), path)

    def lines(path: Path, x: Any, ids: list[str]) -> None:  # noqa: ANN401
        with path.open("w") as file:
            for key, row in zip(ids, x.tolist(), strict=True):
                file.write(json.dumps({"id": key, "embedding": row}) + "\n")

    many, few = max(1, text_rows // 5), max(1, text_rows)
    return {
        "x.npy": (rows, lambda path, x, ids: np.save(path, x)),
        "x.npz": (rows, lambda path, x, ids: np.savez(path, features=x, ids=np.array(ids))),
        "x.safetensors": (rows, lambda path, x, ids: save_file({"x": x}, path)),
        "x.h5": (rows, lambda path, x, ids: h5(path, x, ids, ("features", "ids"))),
        "x.h5ad": (rows, lambda path, x, ids: h5(path, x, ids, ("X", "obs/_index"))),
        "x.h5mu": (rows, lambda path, x, ids: h5(path, x, ids, ("mod/x/X", "mod/x/obs/_index"))),
        "x.mat": (rows, matlab),
        "old.mat": (rows, old_matlab),
        "records.npy": (rows, records),
        "x.zarr": (rows, arrays),
        "x.parquet": (rows, lambda path, x, ids: pq.write_table(table(x, ids), path)),
        "x.feather": (rows, lambda path, x, ids: feather.write_feather(table(x, ids), path)),
        "x.arrow": (rows, lambda path, x, ids: saved(path.with_suffix(""), x, ids)),
        "x.lance": (rows, lambda path, x, ids: lance.write_dataset(table(x, ids), path)),
        "x.csv": (few, wide),
        "x.jsonl": (few, lines),
        "x.vec": (few, words),
        "x.tar": (many, web),
        "keys.h5": (many, keyed),
        "files": (many, each),
    }


def speed(rows: int, text_rows: int, only: str) -> None:
    """Print the time and memory that reading each format takes, beside a raw read of its bytes."""
    print("| format | rows | MiB | raw read s | read s | processor s | peak MiB |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    x = np.random.default_rng(0).normal(size=(rows, 64)).astype(np.float32)
    for name, (n, write) in write_each(rows, text_rows).items():
        if only not in name:
            continue
        with tempfile.TemporaryDirectory(prefix="layouts-") as folder:
            path = Path(folder) / name
            write(path, x[:n], [f"i{row:07d}" for row in range(n)])
            path = path if path.exists() else path.with_suffix("")
            command = [sys.executable, str(Path(__file__).resolve()), "measure", str(path)]
            done = subprocess.run(command, text=True, stdout=subprocess.PIPE, check=True)
        title = {"old.mat": ".mat before 7.3", "records.npy": ".npy of records"}
        title |= {"x": "datasets folder", "files": "one npy per instance", "keys.h5": "HDF5, a key per instance"}
        size, raw, wall, used, peak = json.loads(done.stdout)
        shown = title.get(path.name, path.suffix)
        print(f"| {shown} | {n:,} | {size:.0f} | {raw:.2f} | {wall:.2f} | {used:.2f} | {peak:.0f} |", flush=True)


def _most_memory(pid: int | str) -> int:
    """Return the most KiB that a process has held, memory that it shares with another in it."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def measure(path: Path) -> None:
    """Print MiB of a file, seconds of a raw read, of reading it and of processors, and MiB of memory at most."""
    from pmrl_cli import read_dataset
    from pmrl_cli.files.formats import sandbox_client

    files = [one for one in path.rglob("*") if one.is_file()] if path.is_dir() else [path]
    started = time.perf_counter()
    size = 0
    for one in files:
        with one.open("rb") as file:
            while block := file.read(2**23):
                size += len(block)
    raw = time.perf_counter() - started
    started, used = time.perf_counter(), time.process_time()
    data = read_dataset([str(path)], min_modalities=1, max_memory=2**34)
    wall, used = time.perf_counter() - started, time.process_time() - used
    assert data.modalities[0].dim == 64
    workers = [one.process.pid for one in sandbox_client._idle]
    # not getrusage: it counts what the process that started this one held
    peak = sum(_most_memory(pid) for pid in ("self", *workers))
    sandbox_client._end_all()
    found = resource.getrusage(resource.RUSAGE_CHILDREN)
    used += found.ru_utime + found.ru_stime
    print(json.dumps([size / 2**20, raw, wall, used, peak / 2**10]))


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    cases = commands.add_parser("cases")
    cases.add_argument("--before", type=Path, required=True)
    cases.add_argument("--reported", type=Path)
    times = commands.add_parser("speed")
    times.add_argument("--rows", type=int, default=1_000_000)
    times.add_argument("--text-rows", type=int, default=100_000)
    times.add_argument("--only", default="", help="part of the name of a format")
    commands.add_parser("judge")
    commands.add_parser("measure").add_argument("path", type=Path)
    options = parser.parse_args()
    if options.command == "judge":
        judge()
    elif options.command == "measure":
        measure(options.path)
    elif options.command == "speed":
        speed(options.rows, options.text_rows, options.only)
    else:
        compare(options.before, options.reported)


if __name__ == "__main__":
    main()
