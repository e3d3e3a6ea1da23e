"""CLIP embeddings of 100 images with 5 captions each, against the numbers published beside them."""

from pathlib import Path

import h5py
import pyarrow.parquet as pq
import pytest

from pmrl_cli.retrieval import evaluate
from tests.simulate import dataset_of

FOLDER = Path(__file__).parents[2] / "../shared/data/flickr8k_clip"


@pytest.mark.shared
@pytest.mark.skipif(not FOLDER.is_dir(), reason="the real feature sets are not beside the checkout")
@pytest.mark.parametrize("match", [None, "image"], ids=["by equal vectors", "by the column of image ids"])
def test_captions_of_one_image_score_as_published_by_the_usual_protocol(match):
    arrays = {name: h5py.File(FOLDER / f"{name}.h5")["features"][:] for name in ("image", "text")}
    labels = pq.read_table(FOLDER / "labels.parquet")["label"].to_pylist()
    found = evaluate(dataset_of(arrays, image=labels), match=match).as_dict()
    assert found["groups"] == 100
    published = {"image->text": (0.930, 1.0, None), "text->image": (0.832, 0.990, 0.998)}
    for name, recalls in published.items():
        direction = found["directions"][name]
        assert (direction["queries"], direction["gallery"]) == ((100, 500) if name == "image->text" else (500, 100))
        for cutoff, recall in zip((1, 5, 10), recalls, strict=True):
            if recall is not None:
                assert direction["metrics"][f"R@{cutoff}"]["value"] == pytest.approx(recall, abs=0.001)
