"""What an output may replace, and where it may stand."""

import json
import os

import pytest

from pmrl_cli.errors import ResourceError, UsageError
from pmrl_cli.files.atomic import check_replaceable
from pmrl_cli.files.specs import check_not_input

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
