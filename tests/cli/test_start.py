"""What a command loads."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WATCHED = """
import sys
from importlib.util import find_spec
sys.argv = ["pmrl", "inspect", *sys.argv[1:]]
from pmrl_cli.__main__ import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
assert "pandas" not in sys.modules
assert find_spec("pandas") is None  # as torch asks
"""


MISSING = """
import sys
from pmrl_cli.cli.main import command_line
from pmrl_cli.errors import DataError
there, model = sys.argv[1:]
asked = [
    ["fit", "nothere.h5"],
    ["compare", "nothere.h5", "--objective", "pmrl,infonce", "-o", "x"],
    ["export", "nothere.h5", "-o", "x", "--model", model],
    *([name, "nothere.h5", "--model", model] for name in ("diagnose", "evaluate")),
    ["search", there, "--gallery", "nothere.h5", "--model", model],
]
asked += [[*words[:-1], "nothere"] for words in asked if "--model" in words]
for words in asked:
    try:
        command_line(words, standalone_mode=False)
    except DataError as error:
        assert "nothere: no manifest.json" in str(error) or "nothere.h5: No such file" in str(error), error
    else:
        raise AssertionError(words)
    assert not {"numpy", "torch", "pyarrow"} & set(sys.modules), words
"""


def test_missing_inputs_are_refused_before_the_libraries_that_read_them_are_loaded(tmp_path):
    model = ROOT / "tests" / "archives" / "v2" / "model"
    there = ROOT / "sample_data" / "features" / "left.h5"
    words = [sys.executable, "-c", MISSING, str(there), str(model)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_no_command_loads_pandas_though_pyarrow_would(tmp_path):
    pytest.importorskip("pandas")
    files = sorted(map(str, (ROOT / "sample_data" / "features").iterdir()))
    done = subprocess.run([sys.executable, "-c", WATCHED, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "1,789 instances" in done.stdout
