"""Ids that differ by an affix: refused with the pattern that joins them, which then does."""

import re
import shlex

import numpy as np
import pytest

from pmrl_cli.errors import DataError, PmrlError, UsageError
from pmrl_cli.files.join.dataset import read_dataset

N = 40
BARE = ["".join("ACGT"[row // 4**k % 4] for k in range(4)) for row in range(N)]


def write(path, ids, first=0):
    """Vectors that say in their first number which instance they are of."""
    x = np.ones((len(ids), 5), np.float32)
    x[:, 0] = np.arange(first, first + len(ids))
    np.savez(path, features=x, ids=np.array(ids))
    return str(path)


def typed(error):
    """The patterns that a refusal says to type."""
    words = shlex.split(
        re.search(r"Type ((?:--id-pattern '?[^ ]+'? ?)+?)(?: to join|[:.])", str(error))[1].rstrip(":")
    )
    return tuple(words[1::2])


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("{0}-1", "{0}"),
        ("{0}-1-sampleA", "{0}-1"),
        ("{0}-1-sampleA", "{0}"),
        ("lane_{0}", "{0}"),
        ("data/images/{0}.jpg", "{0}"),
        ("s1:{0}", "{0}-1"),
        ("{0}.image", "{0}.text"),
    ],
)
def test_what_the_refusal_says_to_type_joins_the_ids(tmp_path, left, right):
    files = [write(tmp_path / f"{m}.npz", [form.format(i) for i in BARE]) for m, form in (("a", left), ("b", right))]
    with pytest.raises(DataError, match=r"a and b share 0 ids of 40, and 40 without their affixes") as caught:
        read_dataset(files)
    data = read_dataset(files, id_pattern=typed(caught.value))
    assert len(data) == N
    first, second = (one.read(slice(0, N))[:, 0] for one in data.modalities)
    np.testing.assert_array_equal(first, second)


def test_few_ids_in_common_by_accident_are_refused_too_and_can_be_taken_as_they_are(tmp_path):
    ids = [f"{i}-1" for i in BARE]
    files = [write(tmp_path / "a.npz", ids), write(tmp_path / "b.npz", [ids[0], *BARE[1:]])]
    with pytest.raises(DataError, match="ids differ by a prefix or suffix: .* share 1 ids of 40, and"):
        read_dataset(files)
    assert len(read_dataset(files, id_pattern="(.+)")) == 1
    assert len(read_dataset(files, id_pattern="([^-]+)(?:-1)?")) == N


def test_ids_that_no_affix_brings_together_are_joined_as_they_are(tmp_path):
    others = [f"z{row}-1" for row in range(N - 2)]
    files = [write(tmp_path / "a.npz", [f"{i}-1" for i in BARE]), write(tmp_path / "b.npz", [*others, "AAAA-1"])]
    assert len(read_dataset(files)) == 1


def test_a_side_table_is_matched_by_what_the_pattern_takes(tmp_path):
    files = [write(tmp_path / "a.npz", [f"{i}-1" for i in BARE]), write(tmp_path / "b.npz", BARE)]
    for form in ("{0}-1", "{0}"):
        lines = [f"{form.format(i)},{i[0]}\n" for i in BARE]
        (tmp_path / "labels.csv").write_text("id,kind\n" + "".join(lines))
        data = read_dataset(files, id_pattern="([^-]+)(?:-1)?", labels=tmp_path / "labels.csv")
        assert data.columns["kind"].to_pylist() == [i[0] for i in data.ids.to_pylist()]


def test_ids_that_a_pattern_does_not_fit_are_counted_and_five_are_named(tmp_path):
    ids = [i if row % 4 else f"{i}-1" for row, i in enumerate(BARE)]
    with pytest.raises(DataError, match="id that the pattern does not fit") as caught:
        read_dataset([write(tmp_path / "a.npz", ids), write(tmp_path / "b.npz", BARE)], id_pattern="a=(.+)-1")
    error = caught.value
    assert (error.total, error.at.row, error.at.instance_id) == (30, 1, BARE[1])
    assert [place.row for place in error.others] == [2, 3, 5, 6]


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("(.+", "not a pattern: --id-pattern"),
        (".+", "not a pattern: --id-pattern"),
        ("(.+)-2", r"id that the pattern does not fit: .*a.npz.*'AAAA-1'.* --id-pattern 'NAME=\(.\+\)-2'"),
        ("c=(.+)", "no such modality: --id-pattern c="),
        ("([^-]+)-.*", "duplicate id"),
    ],
)
def test_a_pattern_that_does_not_do_is_refused_by_what_is_wrong(tmp_path, pattern, said):
    files = [write(tmp_path / "a.npz", ["AAAA-1", "AAAA-2x", "CCCC-1"]), write(tmp_path / "b.npz", BARE)]
    with pytest.raises((DataError, UsageError), match=said) as caught:
        read_dataset(files, id_pattern=pattern)
    assert isinstance(caught.value, PmrlError)
