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


def test_no_command_loads_pandas_though_pyarrow_would(tmp_path):
    pytest.importorskip("pandas")
    files = sorted(map(str, (ROOT / "sample_data" / "features").iterdir()))
    done = subprocess.run([sys.executable, "-c", WATCHED, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "1,789 instances" in done.stdout
