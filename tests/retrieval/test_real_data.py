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
def test_repeated_images_tie_and_share_the_zero_shot_recall_of_the_unique_ones():
    arrays = {name: h5py.File(FOLDER / f"{name}.h5")["features"][:] for name in ("image", "text")}
    labels = pq.read_table(FOLDER / "labels.parquet")["label"].to_pylist()
    found = evaluate(dataset_of(arrays, image=labels), group="image", bootstrap=0).directions["text->image"]
    # Text finds the right image first 83.2 % of the time, and each image stands there five times.
    assert found["tie_spread"] == pytest.approx(0.832, abs=0.0005)
    assert found["metrics"]["R@1"]["value"] == pytest.approx(0.832 / 5, abs=0.0005)
    assert found["metrics"]["R@5"]["value"] == pytest.approx(0.832, abs=0.003)
