"""What Python hands over with ids of its own is joined by them; anything else is one sentence."""

from types import SimpleNamespace

import numpy as np
import pytest

from pmrl_cli.data.arrays import dataset_from_arrays
from pmrl_cli.errors import DataError

X = np.arange(1, 13, dtype=np.float32).reshape(4, 3)
IDS = ["a", "b", "c", "d"]


class RangeIndex(list):
    """As that of pandas, of rows without names."""

    __call__ = None


class Index(tuple):
    """Labels of rows."""


class Frame:
    """What a data frame of pandas shows."""

    def __init__(self, values, index):
        self.values, self.index, self.columns = values, index, range(values.shape[1])

    def __array__(self, dtype=None, copy=None):
        return self.values


class Series(list):
    """A column with an index."""


def anndata(values, ids, **obsm):
    return SimpleNamespace(X=values, obs_names=Index(ids), obsm=obsm)


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]])
def test_frames_are_joined_by_their_index_whatever_the_order(order):
    frames = {"image": Frame(X, Index(IDS)), "text": Frame(2 * X[order], Index([IDS[row] for row in order]))}
    data = dataset_from_arrays(frames)
    assert data.ids.to_pylist() == IDS
    assert not data.named_by_row
    image, text = (features.read(slice(0, 4)) for features in data.modalities)
    assert np.array_equal(2 * image, text)


def test_an_instance_that_a_frame_lacks_is_missing_there():
    data = dataset_from_arrays(
        {
            "a": Frame(X[:3], Index(IDS[:3])),
            "b": Frame(X[1:], Index(IDS[1:])),
            "c": Frame(X, Index(IDS)),
        }
    )
    assert sorted(data.ids.to_pylist()) == IDS
    at = data.ids.to_pylist().index("d")
    assert data.present[at].tolist() == [False, True, True]
    assert np.array_equal(data.modalities[1].read(slice(at, at + 1))[0], X[3])


def test_a_range_is_no_id_and_side_columns_follow_their_own_index():
    data = dataset_from_arrays({"a": Frame(X, RangeIndex(range(4))), "b": X}, columns={"label": [1, 2, 3, 4]})
    assert data.named_by_row
    label = Series([4, 3, 2, 1])
    label.index = Index(reversed(IDS))
    frames = {"a": Frame(X, Index(IDS)), "b": Frame(X[::-1], Index(reversed(IDS)))}
    assert dataset_from_arrays(frames, columns={"label": label}).columns["label"].to_pylist() == [1, 2, 3, 4]
    with pytest.raises(DataError, match="column 'label' has no ids"):
        dataset_from_arrays(frames, columns={"label": [1, 2, 3, 4]})


def test_anndata_gives_its_embedding_and_mudata_its_modalities():
    one = anndata(X * 9, IDS, X_pca=X, X_umap=X[:, :2])
    two = anndata(2 * X[::-1], IDS[::-1])
    for features in ({"rna": one, "adt": two}, SimpleNamespace(mod={"rna": one, "adt": two})):
        data = dataset_from_arrays(features)
        adt, rna = (features.read(slice(0, 4)) for features in data.modalities)
        assert np.array_equal(adt, 2 * rna)
        assert sorted(data.ids.to_pylist()) == IDS
    with pytest.raises(DataError, match=r"several arrays could be the features: rna: X_a, X_b"):
        dataset_from_arrays({"rna": anndata(X, IDS, X_a=X, X_b=X), "adt": two})


@pytest.mark.parametrize(
    ("features", "options", "said"),
    [
        ([X, X], {}, "features cannot be read: a list, expected a dict"),
        ({0: X, 1: X}, {}, "a dict with keys other than text"),
        ({"a": Frame(X, Index(IDS)), "b": X}, {}, "some modalities have ids and some have none: no index of b"),
        ({"a": Frame(X, Index(IDS))}, {"ids": IDS}, "ids are given twice"),
        ({"a": Frame(X, Index("aabc")), "b": Frame(X, Index(IDS))}, {}, r"duplicate id: a \(id 'a'\)"),
        ({"a": Frame(X, Index(IDS)), "b": Frame(X, Index("wxyz"))}, {}, "no instance in common"),
    ],
)
def test_misuse_is_one_sentence(features, options, said):
    with pytest.raises(DataError, match=said):
        dataset_from_arrays(features, **options)
