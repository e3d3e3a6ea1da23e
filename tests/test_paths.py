"""The worked paths of docs/paths run as they are written, one after the other in one folder each."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests import typed
from tests.limits import HUNG

ROOT = Path(__file__).parents[1]
BLOCK = re.compile(r"<!-- (python|shell) -->\n```\w+\n(.*?)```", re.DOTALL)
NEEDS = {"single-cells": ("mudata", "pandas"), "service": ("onnx",)}

PAGES = sorted((ROOT / "docs" / "paths").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_the_page_works(page, tmp_path):
    for package in NEEDS.get(page.stem, ()):
        pytest.importorskip(package)
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    assert len(blocks) >= 2
    (tmp_path / "bin").mkdir()
    typed.put_command(tmp_path / "bin")
    environment = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    for kind, text in blocks:
        if kind == "python":
            (tmp_path / "bin" / "block.py").write_text(text, encoding="utf-8")
            done = typed.pmrl(program=tmp_path / "bin" / "block.py", cwd=tmp_path)
        else:
            words = ["sh", "-euc", re.sub(r"^\$ ", "", text, flags=re.MULTILINE)]
            done = subprocess.run(
                words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=HUNG, check=False
            )
        assert done.returncode == 0, f"{text}\n{done.stderr}"
