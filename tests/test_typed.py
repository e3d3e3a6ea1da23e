"""Commands that are forked instead of started leave nothing behind."""

import os
import time
from pathlib import Path

from tests import typed
from tests.sample_data import FOLDER


def working_in(folder):
    """Return the processes whose working folder is this one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(process / "cwd") == str(folder):  # noqa: PTH115 - of a process, not of a file
                found.append(process.name)
        except OSError:  # it has ended, or is not ours
            continue
    return found


def test_the_reading_processes_of_a_command_end_with_it(tmp_path):
    (tmp_path / "features").symlink_to(FOLDER / "features")
    done = typed.pmrl("inspect", "features/left.h5", "features/right.h5", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    while working_in(tmp_path):  # killed with their parent: at once, but not before it
        time.sleep(0.01)


def test_a_script_is_run_in_place_of_a_command(tmp_path):
    (tmp_path / "script.py").write_text("import sys\nprint(sys.argv[1:], __name__)\n", encoding="utf-8")
    done = typed.pmrl("a", 1, program=tmp_path / "script.py", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "['a', '1'] __main__\n")
