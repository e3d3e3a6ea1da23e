"""Equal vectors: exact copies, copies of fewer bits, and vectors that many rows hold for want of another."""

import numpy as np
import pytest

from pmrl_cli.data.repeats import hash_rows, repeats_of, with_hashes
from tests.simulate import dataset_of, simulate


def gaussian(rows, columns, *, scale=1.0, seed=0):
    return (scale * np.random.default_rng(seed).normal(size=(rows, columns))).astype(np.float32)


@pytest.mark.parametrize("columns", [8, 13, 512])
@pytest.mark.parametrize("scale", [1e-2, 1.0, 300.0])
def test_a_float16_copy_has_the_hash_of_its_vector(columns, scale):
    vectors = gaussian(2000, columns, scale=scale)
    vectors[0, :4] = 0.0, -0.0, 1e-9, -1e-9  # what float16 holds as zeros of either sign
    copies = vectors.astype(np.float16).astype(np.float32)
    assert (copies != vectors).any(axis=1).all()
    np.testing.assert_array_equal(hash_rows(copies), hash_rows(vectors))


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e-2, 1.0, 1e6, 1e30])
def test_different_vectors_have_different_hashes_at_every_scale(scale):
    vectors = gaussian(3000, 16, scale=scale)
    changed = vectors.copy()
    changed[:, 5] += np.float32(0.05 * scale)
    swapped = vectors[:, [1, 0, *range(2, 16)]]
    assert len(np.unique(np.concatenate([hash_rows(v) for v in (vectors, changed, swapped, -vectors)]))) == 12_000


def test_few_columns_are_compared_as_they_are():
    vectors = gaussian(20_000, 1)  # rounded to 11 bits, half of them would be equal to another
    assert len(np.unique(hash_rows(vectors))) == len(np.unique(vectors))


def test_the_hash_of_a_row_does_not_depend_on_those_beside_it():
    vectors = gaussian(1000, 24)
    vectors[::7] *= np.float32(1e-20)
    alone = np.concatenate([hash_rows(vectors[i : i + 1]) for i in range(1000)])
    np.testing.assert_array_equal(hash_rows(vectors), alone)


def test_equal_rows_have_one_item_number_and_are_counted():
    images = np.repeat(gaussian(120, 16), 5, axis=0)
    data = dataset_of({"images": images, "text": gaussian(600, 16, seed=1)})
    found = repeats_of(data)
    np.testing.assert_array_equal(found["images"].items[::5][np.arange(600) // 5], found["images"].items)
    assert len(np.unique(found["images"].items)) == 120
    assert found["images"].sentence("images") == "600 rows of images hold 120 different vectors"
    assert found["text"].sentence("text") is None


def test_an_absent_row_is_no_copy_of_another():
    data = simulate(200, 3, 8, missing=0.4)
    for found, present in zip(repeats_of(data).values(), data.present.T, strict=True):
        assert (found.rows, found.different) == (present.sum(), present.sum())
        assert ((found.items < 0) == ~present).all()


def test_a_vector_far_more_frequent_than_the_others_is_a_template_and_its_rows_are_items_of_their_own():
    text = np.repeat(gaussian(700, 16), 2, axis=0)
    text[100:140] = 1.0  # 2.9 % of the rows, where the median vector stands in two
    found = repeats_of(dataset_of({"text": text}))["text"]
    assert found.templates == ((40, 100),)
    assert len(np.unique(found.items)) == 680 + 40
    assert (
        found.sentence("text") == "1,400 rows of text hold 681 different vectors, one of them in 40 rows: a template"
    )


@pytest.mark.parametrize("classes", [30, 5])
def test_vectors_of_a_class_are_templates_only_where_no_part_of_a_split_could_hold_one(classes):
    names = gaussian(classes, 16)[np.arange(900) % classes]
    found = repeats_of(dataset_of({"name": names}))["name"]
    assert len(found.templates) == (classes if classes == 5 else 0)


def test_hashes_are_taken_once_and_go_with_a_part():
    data = with_hashes(simulate(50, 2, 8))
    assert with_hashes(data) is data
    np.testing.assert_array_equal(data.part(slice(10, 20)).hashes, data.hashes[10:20])
