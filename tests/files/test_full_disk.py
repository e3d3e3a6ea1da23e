"""A disk without room is a matter of resources, not a bug."""

import shutil

import pytest
import torch

from pmrl_cli.errors import ResourceError
from pmrl_cli.files.artifacts.tensors import write_tensors
from pmrl_cli.files.join.dataset import check_disk


def test_tensors_that_cannot_be_written_are_no_internal_error(tmp_path):
    with pytest.raises(ResourceError, match=r"file cannot be written: .*none/a: .*No such file") as caught:
        write_tensors(tmp_path / "none" / "a", {"weight": torch.ones(3)})
    assert caught.value.exit_code == 5


def test_a_lack_of_space_names_distinguishable_sizes_and_no_temporary_path(tmp_path, monkeypatch):
    # once: "0.0 GiB free in .store.17.tmp, expected 0.0 GiB"
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(0, 0, 3 * 2**20))
    with pytest.raises(ResourceError) as caught:
        check_disk(tmp_path / ".store.17.tmp", 5 * 2**20)
    assert f"3.0 MiB free in {tmp_path}, expected 5.0 MiB." in str(caught.value)
    check_disk(tmp_path / ".store.17.tmp", 3 * 2**20)
