import numpy as np
import pytest

from pmrl_cli.errors import DataError, StateError
from pmrl_cli.files.artifacts.states import read_state, write_state

HEADER = {"names": ["a", "b"], "seed": 0}
ARRAYS = {
    "b": np.arange(6, dtype=np.float64).reshape(2, 3),
    "a": np.array([1, 2**63], dtype=np.uint64),
    "c": np.zeros((0, 4), dtype=bool),
}


def test_a_state_is_read_as_it_was_written_and_equal_ones_are_equal_bytes(tmp_path):
    write_state(tmp_path / "x", HEADER, ARRAYS)
    header, arrays = read_state(tmp_path / "x")
    assert header == HEADER
    assert arrays.keys() == ARRAYS.keys()
    for name, array in ARRAYS.items():
        assert arrays[name].dtype == array.dtype
        np.testing.assert_array_equal(arrays[name], array)
    write_state(tmp_path / "y", HEADER, dict(reversed(ARRAYS.items())))
    assert (tmp_path / "x").read_bytes() == (tmp_path / "y").read_bytes()


def test_no_flipped_bit_goes_unnoticed(tmp_path):
    write_state(tmp_path / "x", HEADER, ARRAYS)
    whole = (tmp_path / "x").read_bytes()
    silent = []
    for place in range(len(whole)):
        broken = bytearray(whole)
        broken[place] ^= 1 << (place % 8)
        (tmp_path / "broken").write_bytes(broken)
        try:
            header, arrays = read_state(tmp_path / "broken")
        except (DataError, StateError):
            continue
        if header != HEADER or any(not np.array_equal(arrays.get(name), array) for name, array in ARRAYS.items()):
            silent.append(place)
    assert silent == []


def test_other_files_and_cut_ones_are_refused(tmp_path):
    write_state(tmp_path / "x", HEADER, ARRAYS)
    whole = (tmp_path / "x").read_bytes()
    for name, content in {"empty": b"", "text": b"{}", "cut": whole[:-1], "more": whole + b"x"}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"not a state: .*{name}"):
            read_state(tmp_path / name)
    with pytest.raises(DataError, match="No such file"):
        read_state(tmp_path / "nothing")
