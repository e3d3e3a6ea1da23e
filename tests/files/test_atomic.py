"""What an output may replace, where it may stand, and that it is whole there whatever happens."""

import errno
import json
import os
import platform
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from pmrl_cli.errors import ResourceError, StateError, UsageError
from pmrl_cli.files.artifacts.model import read_model, write_model
from pmrl_cli.files.durable import atomic
from pmrl_cli.files.durable.atomic import atomic_file, atomic_folder
from pmrl_cli.files.durable.locks import held
from pmrl_cli.files.durable.outputs import check_replaceable
from pmrl_cli.files.join.items import check_not_input

ROOT = Path(__file__).parents[2]

KINDS = ("pmrl.model", "pmrl.store", "pmrl.export")


@pytest.mark.parametrize("found", KINDS)
@pytest.mark.parametrize("wanted", KINDS)
def test_only_an_earlier_output_of_the_same_kind_is_replaced(tmp_path, found, wanted):
    (tmp_path / "manifest.json").write_text(json.dumps({"format": found}), encoding="utf-8")
    check_replaceable(tmp_path, force=True, kind=wanted)
    if found == wanted:
        check_replaceable(tmp_path, force=False, kind=wanted)
    else:  # fit -o STORE once replaced the store it was fitted on
        with pytest.raises(UsageError, match=rf"a {found}, expected a new path or an earlier {wanted}"):
            check_replaceable(tmp_path, force=False, kind=wanted)


def test_an_output_below_a_file_is_refused_before_any_work(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ResourceError, match=r"output cannot be written: .*file/a/b: .*file is no folder, expected"):
        check_replaceable(tmp_path / "file" / "a" / "b", kind="pmrl.model", force=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_output_in_a_folder_without_leave_is_refused_before_any_work(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(ResourceError, match="without leave to write"):
        check_replaceable(tmp_path / "new", kind="pmrl.model", force=False)


def test_an_output_that_holds_an_input_is_refused(tmp_path):
    out = tmp_path / "aligned"
    check_not_input(out, [f"{out}/left.h5"])  # nothing there to lose
    out.mkdir()
    check_not_input(out, [f"{tmp_path}/left.h5", str(tmp_path)])
    for text in (str(out), f"{out}/left.h5", f"a={out}/left.h5"):
        with pytest.raises(UsageError, match="output is an input"):
            check_not_input(out, [text])


def test_an_export_as_a_store_is_an_export(tmp_path):
    manifest = {"format": "pmrl.store", "file_format": "npy"}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    check_replaceable(tmp_path, force=False, kind="pmrl.export")
    with pytest.raises(UsageError, match=r"a pmrl\.export, expected a new path or an earlier pmrl\.store"):
        check_replaceable(tmp_path, force=False, kind="pmrl.store")


def put(path, text, **options):
    """Write an output of one file, as a store would be."""
    with atomic_folder(path, kind="pmrl.store", force=False, **options) as folder:
        (folder / "text").write_text(text, encoding="utf-8")
        (folder / "manifest.json").write_text('{"format": "pmrl.store"}', encoding="utf-8")


def text_of(path):
    return (path / "text").read_text(encoding="utf-8")


@pytest.fixture(params=[True, False], ids=["in one step", "in two renames"])
def exchanges(request, monkeypatch):
    """With and without a file system that can exchange two names."""
    if not request.param:
        monkeypatch.setattr(atomic, "_exchange", lambda *_: False)
    return request.param


def test_an_output_replaces_the_one_before_and_leaves_nothing_else(tmp_path, exchanges):
    put(tmp_path / "deep" / "out", "one")
    put(tmp_path / "deep" / "out", "two")
    assert text_of(tmp_path / "deep" / "out") == "two"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


@pytest.mark.parametrize("existing", [False, True])
def test_what_may_not_last_is_taken_back(tmp_path, monkeypatch, exchanges, existing):
    out = tmp_path / "out"
    if existing:
        put(out, "old")
    sync = atomic._sync

    def failing(path):
        if path == tmp_path:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        sync(path)

    monkeypatch.setattr(atomic, "_sync", failing)
    with pytest.raises(ResourceError, match="output cannot be written: .*out: Input/output error") as caught:
        put(out, "new")
    assert caught.value.exit_code == 5
    assert text_of(out) == "old" if existing else not out.exists()
    assert {path.name for path in tmp_path.iterdir()} == ({"out"} if existing else set())


def test_a_rename_that_fails_half_way_puts_the_old_one_back(tmp_path, monkeypatch):
    put(tmp_path / "out", "old")
    monkeypatch.setattr(atomic, "_exchange", lambda *_: False)
    rename = Path.rename

    def failing(self, target):
        if self.name == "new":
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(ResourceError):
        put(tmp_path / "out", "new")
    assert text_of(tmp_path / "out") == "old"


def test_what_a_killed_writer_left_is_swept_by_the_next_one_of_the_same_output_alone(tmp_path):
    for name in (".out.writing", ".other.writing"):
        (tmp_path / name / "new").mkdir(parents=True)
        (tmp_path / name / "lock").write_text("4194304 on elsewhere", encoding="utf-8")
        (tmp_path / name / "new" / "text").write_text("half", encoding="utf-8")
        (tmp_path / name / ".tmpA1b2").write_text("of the library that wrote it", encoding="utf-8")
    put(tmp_path / "out", "one")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".other.writing", "out"]
    assert (tmp_path / ".other.writing" / "new" / "text").exists()


def test_one_killed_between_two_renames_loses_nothing(tmp_path):
    put(tmp_path / "out", "old")
    (tmp_path / ".out.writing").mkdir()
    (tmp_path / ".out.writing" / "lock").touch()
    (tmp_path / "out").rename(tmp_path / ".out.writing" / "old")
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "out", kind="pmrl.store", force=False):
        raise KeyboardInterrupt
    assert text_of(tmp_path / "out") == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_second_writer_learns_which_process_holds_the_lock(tmp_path):
    with atomic_folder(tmp_path / "out", kind="pmrl.store", force=False) as folder:
        (folder / "manifest.json").write_text('{"format": "pmrl.store"}', encoding="utf-8")
        with pytest.raises(StateError) as caught:
            put(tmp_path / "out", "second")
    assert f"a lock held by process {os.getpid()} on {platform.node()}," in str(caught.value)
    assert caught.value.exit_code == 7
    assert not (tmp_path / "out" / "text").exists()


def test_the_lock_of_a_dead_process_blocks_no_other(tmp_path):
    code = f"""
import os, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from pmrl_cli.files.durable.locks import held
with held(Path({str(tmp_path / "run")!r})):
    os.kill(os.getpid(), 9)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert (tmp_path / "run" / "lock").read_text(encoding="utf-8").endswith(f" on {platform.node()}")
    with held(tmp_path / "run"):
        (tmp_path / "run" / "state").touch()
    assert (tmp_path / "run" / "state").exists()  # what is in it stays
    (tmp_path / "run" / "state").unlink()
    with held(tmp_path / "run"):
        pass
    assert not (tmp_path / "run").exists()


def test_many_who_want_one_folder_have_it_one_at_a_time(tmp_path):
    inside, most, turns = [], [], []

    def work():
        while len(turns) < 60:
            try:
                with held(tmp_path / "run"):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
                    turns.append(1)
            except StateError:
                pass

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1


def test_what_came_to_stand_there_meanwhile_is_not_replaced(tmp_path):
    refused = pytest.raises(UsageError, match="output exists")
    with refused, atomic_folder(tmp_path / "out", kind="pmrl.store", force=False):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "thesis.txt").write_text("years of work", encoding="utf-8")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


def test_a_file_is_the_old_or_the_new_one(tmp_path):
    def write(text, *, fail=False):
        with atomic_file(tmp_path / "new" / "file") as temporary:
            temporary.write_text(text, encoding="utf-8")
            if fail:
                raise MemoryError

    write("one")
    with pytest.raises(MemoryError):
        write("two", fail=True)
    assert (tmp_path / "new" / "file").read_text(encoding="utf-8") == "one"
    write("two")
    assert (tmp_path / "new" / "file").read_text(encoding="utf-8") == "two"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


def test_a_reader_sees_one_whole_model_while_it_is_replaced_a_hundred_times(tmp_path):
    def write(number):
        with atomic_folder(tmp_path / "m", kind="pmrl.model", force=False) as folder:
            texts = dict.fromkeys(("config.json", "metrics.json"), f"{number}" * 5000)
            write_model(folder, texts=texts, inputs={"n": number}, run={"n": number})

    write(0)
    done, seen, wrong = threading.Event(), set(), []

    def read():
        while not done.is_set():
            files, manifest = read_model(tmp_path / "m")
            seen.add(manifest["inputs"]["n"])
            texts = {files[name].decode() for name in ("config.json", "metrics.json")}
            if texts != {f"{manifest['inputs']['n']}" * 5000}:
                wrong.append(manifest)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(1, 101):
        write(number)
    done.set()
    reader.join()
    assert not wrong
    assert len(seen) > 1


@pytest.mark.parametrize("mask", [0o022, 0o027])
def test_a_file_that_a_library_wrote_for_its_owner_alone_follows_the_umask(tmp_path, mask):
    import torch

    from pmrl_cli.files.artifacts.tensors import write_tensors

    before = os.umask(mask)
    try:
        with atomic_folder(tmp_path / "model", kind="pmrl.model", force=False) as folder:
            write_tensors(folder / "model.safetensors", {"a": torch.zeros(2)})
        with atomic_file(tmp_path / "one.state") as path:
            write_tensors(path, {"a": torch.zeros(2)})
    finally:
        os.umask(before)
    for path in (tmp_path / "model" / "model.safetensors", tmp_path / "one.state"):
        assert path.stat().st_mode & 0o777 == 0o666 & ~mask
