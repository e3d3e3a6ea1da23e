"""Copies in a fit: on one side of the split, no negatives, evaluated as one, and found again in other files."""

import numpy as np

from pmrl_cli.aligner import Aligner
from pmrl_cli.data.arrays import dataset_from_arrays
from pmrl_cli.data.links import links_of, sentences_of
from pmrl_cli.data.split import TEST, split_instances
from pmrl_cli.train import run


def arrays(images, captions, *, noise, seed=0):
    """Images that stand in several rows, and captions that say what is in them as far as the noise lets them."""
    generator = np.random.default_rng(seed)
    latent = generator.normal(size=(images, 8))
    image = latent @ generator.normal(size=(8, 16))
    text = np.repeat(latent, captions, axis=0) @ generator.normal(size=(8, 12))
    text += noise * generator.normal(size=text.shape)
    return {"image": np.repeat(image, captions, axis=0).astype(np.float32), "text": text.astype(np.float32)}


def fitted(data, ids=None, **settings):
    options = {"adapter": "linear", "steps": 0, "test": 0.2, "dim": 8} | settings
    return Aligner(**options).fit(data, ids)


def test_repeated_noise_is_scored_as_noise():
    generator = np.random.default_rng(0)
    data = {name: np.repeat(generator.normal(size=(200, 32)), 3, axis=0).astype(np.float32) for name in ("a", "b")}
    aligner = fitted(data)
    result = aligner.evaluate(data).as_dict()
    assert result["leaks"] == {"judged": result["instances"], "sharing": 0, "modalities": {"a": 0, "b": 0}}
    number = result["pairwise"]["MRR"]
    assert number["value"] < 3 * number["chance"]  # with copies on both sides of the split it was .8
    metrics = aligner.texts["metrics.json"]
    assert '"held_out.mrr": 0.1' in metrics or '"held_out.mrr": 0.0' in metrics


def test_the_number_that_chooses_is_not_capped_by_copies():
    aligner = fitted(arrays(200, 3, noise=0.01))
    found = aligner.texts["metrics.json"]
    assert '"held_out.mrr": 1.0' in found or '"held_out.mrr": 0.99' in found
    assert aligner.evaluate(arrays(200, 3, noise=0.01)).as_dict()["pairwise"]["R@1"]["value"] > 0.99


def test_batches_know_which_instances_show_the_same_thing(monkeypatch):
    seen = []
    honest = run.train

    def recorded(*positional, **named):
        seen.append(positional[1])
        return honest(*positional, **named)

    monkeypatch.setattr(run, "train", recorded)
    data = arrays(100, 3, noise=0.3)
    scene = [f"s{i // 6}" for i in range(300)]
    aligner = Aligner(adapter="linear", steps=4, batch_size=32, dim=8, match="scene", refit=False)
    aligner.fit(data, columns={"scene": scene})
    dataset = dataset_from_arrays(data, None, {"scene": scene})
    parts = split_instances(dataset, aligner.settings.split_rule)
    same = links_of(dataset, match="scene").same[parts != TEST]
    assert len(seen[-1].inputs.match) == len(same)
    np.testing.assert_array_equal(seen[-1].inputs.match.numpy(), same)
    fitted(arrays(300, 1, noise=0.3))
    assert seen[-1].inputs.match is None


def test_vectors_that_trained_are_found_under_other_ids_and_as_float16(tmp_path):
    data = arrays(200, 3, noise=0.3)
    ids = [f"first-{i}" for i in range(600)]
    aligner = fitted(data, ids)
    dataset = dataset_from_arrays(data, ids, None)
    unseen = set(aligner.rows(dataset, "test")[0].tolist())
    new = arrays(50, 1, noise=0.3, seed=5)
    trained = [i for i in range(600) if i not in unseen][:9]
    other = {
        "image": np.concatenate([new["image"], data["image"][sorted(unseen)[:4]], data["image"][trained]]),
        "text": np.concatenate(
            [new["text"], data["text"][sorted(unseen)[:4]], arrays(9, 1, noise=0.3, seed=6)["text"]]
        ),
    }
    other["image"] = other["image"].astype(np.float16).astype(np.float32)
    aligner.save(tmp_path / "model")
    for one in (aligner, Aligner.load(tmp_path / "model")):
        result = one.evaluate(other, [f"second-{i}" for i in range(63)])
        assert result.leaks.as_dict() == {"judged": 63, "sharing": 9, "modalities": {"image": 9, "text": 0}}
        assert (
            result.as_dict()["leaked"] == "9 of 63 evaluated instances hold vectors that trained the model (image 9)"
        )


def test_a_model_of_an_older_version_is_held_against_the_instances_it_trained_on():
    data = arrays(200, 1, noise=0.3)
    aligner = fitted(data)
    dataset = dataset_from_arrays(data, None, None)
    rows, _ = aligner.rows(dataset, "test")
    train, _ = aligner.rows(dataset, "train")
    leaky = {name: array.copy() for name, array in data.items()}
    leaky["text"][rows[:5]] = leaky["text"][train[:5]]
    seen = aligner.model.seen
    for name in [name for name in seen if name.startswith("vectors.")]:
        del seen[name]
    dataset = dataset_from_arrays(leaky, None, None)
    assert aligner.leaks(dataset, rows).as_dict()["modalities"] == {"image": 0, "text": 5}
    assert aligner.leaks(dataset, np.arange(200)).judged == len(rows)


def test_a_template_is_no_leak():
    data = arrays(200, 1, noise=0.3)
    data["text"][::4] = 1.0
    aligner = fitted(data)
    assert aligner.evaluate(data).leaks.sharing == 0


def test_repeats_and_groups_are_noted():
    data = arrays(120, 5, noise=0.3)
    said = sentences_of(dataset_from_arrays(data, None, {"group": [f"g{i // 10}" for i in range(600)]}))
    assert said == [
        "600 rows of image hold 120 different vectors.",
        "instances of one 'group' or equal vectors stay on one side of the split: 60 parts, the largest of 10.",
    ]
    assert sentences_of(dataset_from_arrays(arrays(50, 1, noise=0.3), None, None)) == []
