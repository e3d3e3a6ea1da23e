import math

import pytest

from pmrl_cli.stats.statistic import Statistic


def test_a_normal_interval_is_cut_to_the_range_and_holds_the_value():
    found = Statistic.normal(0.9, 0.1, within=(0, 1), chance=0.5, n=7).as_dict()
    assert found["ci"] == [pytest.approx(0.9 - 1.959964 * 0.1), 1]
    assert (found["ci_method"], found["se"], found["n"]) == ("normal", 0.1, 7)
    assert Statistic.normal(1 + 1e-7, 0.1, within=(0, 1)).ci[1] == 1 + 1e-7  # rounding of the value itself


def test_what_is_not_finite_is_null_and_not_ok():
    found = Statistic(math.nan, chance=math.inf, ci=(0.0, math.nan), ci_method="normal").as_dict()
    assert found == {
        "value": None,
        "chance": None,
        "ci": None,
        "ci_method": None,
        "se": None,
        "p": None,
        "n": 0,
        "null": None,
        "status": "n_too_small",
    }
    assert Statistic.unknown("collapsed").as_dict()["status"] == "collapsed"
    assert Statistic.normal(0.5, None).as_dict()["ci"] is None
