"""Whether two states of a diagnosis hold the same, however their instances came together."""

from dataclasses import replace

import numpy as np


def assert_same_state(first, second):
    """All that a diagnosis is made of agrees to rounding; shards, and rows not summed yet, may differ."""
    assert replace(first.header, shards=1) == replace(second.header, shards=1)
    _assert_same(_canonical(first), _canonical(second))


def _canonical(state):
    arrays = {name: x for name, x in state.arrays().items() if not name.startswith(("moments.", "shards"))}
    for half in (0, 1):
        totals = state.moments.totals(half)
        arrays |= {f"moments.{half}.{name}": getattr(totals, name) for name in ("counts", "sums", "products")}
    return arrays


def _assert_same(first, second):
    assert first.keys() == second.keys()
    for name, x in first.items():
        if x.dtype == np.float64:
            np.testing.assert_allclose(second[name], x, rtol=1e-10, atol=1e-10, err_msg=name)
        else:
            np.testing.assert_array_equal(second[name], x, err_msg=name)
