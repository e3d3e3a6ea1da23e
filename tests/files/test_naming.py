"""What a file is called becomes what its modality is called."""

from pathlib import Path

import pytest

from pmrl_cli.files.formats.names import natural_key, never_features
from pmrl_cli.files.join.naming import array_names, missing_shards, modality_names


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["image.h5", "text.h5"], ["image", "text"]),
        (["coco_image_emb.h5", "coco_text_emb.h5"], ["image", "text"]),
        (["image_train.h5", "image_test.h5", "text_train.h5"], ["image", "image", "text"]),
        (["a-00000-of-00002.parquet", "a-00001-of-00002.parquet", "b-00000-of-00001.parquet"], ["a", "a", "b"]),
        (["audio_0000.npy", "audio_0001.npy", "text_0000.npy"], ["audio", "audio", "text"]),
        (["resnet_101.h5", "resnet_152.h5"], ["101", "152"]),  # two models, not two shards
        (["out/text/part-00000-of-00001.parquet", "out/image/part-00000-of-00001.parquet"], ["text", "image"]),
        (["image/features.npy", "text/features.npy"], ["image", "text"]),
        (["img_emb/img_emb_0.npy", "text_emb/text_emb_0.npy"], ["img", "text"]),
        (["view1.h5", "view2.h5"], ["view1", "view2"]),
        (["set_image_features.h5"], ["set_image"]),
        (["a-b.h5", "a_b.h5"], ["a-b", "a_b"]),
    ],
)
def test_modality_names(files, names):
    assert modality_names([Path("/data") / file for file in files]) == names


@pytest.mark.parametrize(
    ("arrays", "names"),
    [
        (["/image/features", "/text/features"], ["image", "text"]),
        (["/train/image", "/train/text"], ["image", "text"]),
        (["image_embedding", "text_embedding"], ["image", "text"]),
        (["image_0..image_511", "text_0..text_511"], ["image", "text"]),
    ],
)
def test_array_names(arrays, names):
    assert array_names(arrays) == names


def test_natural_order_counts():
    assert sorted(["p-10", "p-9", "p-1"], key=natural_key) == ["p-1", "p-9", "p-10"]


def test_coordinates_and_labels_are_no_features():
    assert all(never_features(name) for name in ("coords", "/obs/label", "obsm/X_umap", "row_index", "targets"))
    assert not any(never_features(name) for name in ("features", "target_features", "umap_input", "X"))


@pytest.mark.parametrize(
    ("stems", "missing"),
    [
        (["part-00000-of-00003", "part-00002-of-00003"], ["00001-of-00003"]),
        (["part-00001-of-00003", "part-00003-of-00003"], ["00002-of-00003"]),  # counted from 1
        (["a-0-of-2", "a-1-of-2"], []),
        (["a", "b_001"], []),
    ],
)
def test_missing_shards_are_named(stems, missing):
    assert missing_shards(stems) == missing
