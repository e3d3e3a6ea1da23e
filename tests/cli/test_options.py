"""Options that several commands share, as text and as what it means."""

import pytest

from pmrl_cli.cli.options import parse_shard
from pmrl_cli.errors import UsageError


def test_a_shard_is_counted_from_one_where_it_is_typed():
    assert [parse_shard(text) for text in ("1/1", "3/8", "08/8")] == [(0, 1), (2, 8), (7, 8)]
    assert parse_shard(None) is None


@pytest.mark.parametrize("text", ["0/8", "9/8", "1/0", "3", "3/", "/8", "-1/8", "3/8/2", "3 / 8", "\u0663/8", ""])
def test_another_shard_is_refused_with_what_was_typed(text):
    with pytest.raises(UsageError) as caught:
        parse_shard(text)
    assert str(caught.value) == (
        f"unknown shard: --shard {text!r}, expected i/n with i from 1 to n, such as 3/8 for the third of eight. "
        "Give every call its own i and all the same n."
    )
