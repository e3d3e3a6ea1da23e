"""What a zarr store may not do, and the message where its library is not installed."""

import json

import numpy as np
import pytest

from pmrl_cli.errors import PmrlError, UsageError
from pmrl_cli.files.formats import registry
from pmrl_cli.files.formats.probe import probe

zarr = pytest.importorskip("zarr")


@pytest.fixture
def store(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.create_array("features", data=np.ones((20, 4), np.float32))
    group.create_array("other", data=np.ones((20, 4), np.float32))
    return tmp_path / "a.zarr"


def change(store, name, **changes):
    path = store / name / ".zarray"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_an_unknown_codec_is_refused_before_the_library_decodes(store):
    change(store, "other", dtype="|O", filters=[{"id": "pickle"}])
    found = probe(store)
    assert [one.name for one in found.vectors] == ["/features"]
    change(store, "features", compressor={"id": "pickle"})
    [refused] = probe(store).refused
    assert refused.name == "/features"
    assert "codec pickle" in refused.found


def test_an_array_that_declares_far_more_than_it_stores_is_refused(store):
    change(store, "features", shape=[10**12, 4])
    with pytest.raises(PmrlError, match=r"a.zarr:/features: .* declared bytes"):
        probe(store)


def test_a_chunk_of_gigabytes_is_not_unpacked(store):
    change(store, "features", chunks=[2**40, 4])
    [refused] = probe(store).refused
    assert "a chunk of" in refused.found


def test_a_missing_library_is_one_sentence_with_what_to_install(monkeypatch):
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"no zarr, .*pip install 'pmrl-cli\[zarr\]'"):
        _ = registry.format_named("zarr").probe
