# `make test` sets everything up on a machine with Python, a compiler and make,
# and passes the tests. Override what is installed, e.g. TORCH='torch==2.9.1'.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: setup test lint types docs check full clean

setup: $(VENV)/.ready

# torch comes first, on its own: a bare `torch` would fetch its CUDA build.
$(VENV)/.ready: pyproject.toml setup.py $(wildcard torch_geometric_erwin/csrc/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet '$(TORCH)'
	$(BIN)/pip install --quiet --editable '.[docs,lint,ogb,test,visualization]'
	touch $@

test: setup
	$(BIN)/python -m pytest -n auto

lint: setup
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

docs: setup
	$(BIN)/python -m sphinx -W --keep-going -n -q docs docs/_build/html

check: lint types test

# The optional peers compile from source: 25 minutes on two cores.
full: setup
	$(BIN)/pip install ninja setuptools wheel
	MAX_JOBS=$$(nproc) $(BIN)/pip install --no-build-isolation \
		torch-scatter torch-cluster
	$(BIN)/python -m pytest -n auto

clean:
	rm -rf $(VENV) build dist docs/_build *.egg-info torch_geometric_erwin/*.so
