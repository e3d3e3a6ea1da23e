# make demo: environment, then the main job on sample_data/.  make test: environment, then the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: env demo test suite types lint coverage faults ray recipes wheel clean

env: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet torch==2.13.0 --constraint constraints.txt
	$(BIN)/pip install --quiet --editable '.[dev,report]' --constraint constraints.txt
	touch $@

demo: env
	PATH="$(abspath $(BIN)):$$PATH" sh sample_data/demo.sh runs/demo

# mypy takes one core for half a minute: beside the tests it costs them less than before them.
test: env
	$(BIN)/ruff check .
	$(MAKE) -j 2 suite types

# Bytecode is kept, or each process that a test starts compiles the package anew.
suite coverage: export PYTHONDONTWRITEBYTECODE =

suite: env
	$(BIN)/python -m pytest -q -n auto --dist worksteal

types: env
	$(BIN)/mypy

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

coverage: env
	$(BIN)/python -m pytest -q -n auto --dist worksteal --cov --cov-report=term --cov-fail-under=90

# Every kill, failed call and flipped bit there can be, not the sample of `make test` (an hour and a half).
faults: env
	$(BIN)/python tests/faults/points.py
	$(BIN)/python tests/faults/bits.py
	$(BIN)/python tests/faults/machine.py
	$(BIN)/python tests/faults/memory.py
	EVERY_LAYOUT=1 $(BIN)/python -m pytest -q tests/files/test_layout_chain.py

ray: env
	$(BIN)/pip install --quiet --editable '.[ray]' --constraint constraints.txt

# The recipe for Ray Data, which `make test` skips: nothing else needs Ray.
recipes: ray
	$(BIN)/python -m pytest -q tests/recipes

# The wheel, installed as a user would into an environment of its own, does the main job.
wheel:
	rm -rf build/wheel && mkdir -p build/wheel
	$(PYTHON) -m venv build/wheel/env
	build/wheel/env/bin/pip install --quiet torch==2.13.0 --constraint constraints.txt
	build/wheel/env/bin/pip wheel --quiet --no-deps --wheel-dir build/wheel .
	build/wheel/env/bin/pip install --quiet build/wheel/*.whl --constraint constraints.txt
	PATH="$(abspath build/wheel/env/bin):$$PATH" sh sample_data/demo.sh build/wheel/demo

clean:
	rm -rf $(VENV) runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
