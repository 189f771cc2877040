# `make demo` and `make test` set everything up on a machine with Python, a
# compiler and make; the one trains networks and shows what came of it, the
# other passes the tests. Override what is installed: TORCH='torch==2.9.1'.
PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
BIN := $(VENV)/bin
# Without wandb and its company, 80 MB that training of our own has no use for.
OPERATORS := neuraloperator tensorly tensorly-torch

.PHONY: setup demo demo-md test lint types docs check full clean

setup: $(VENV)/.ready

# torch comes first, on its own: a bare `torch` would fetch its CUDA build.
$(VENV)/.ready: pyproject.toml setup.py $(wildcard torch_geometric_erwin/csrc/* torch_geometric_erwin/csrc/*/*)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet '$(TORCH)'
	$(BIN)/pip install --quiet --editable '.[docs,lint,ogb,test,visualization]'
	$(BIN)/pip install --quiet --no-deps $(OPERATORS)
	touch $@

# Five minutes of a core for each of three nets. DEMO='--minutes 1' for less.
demo: setup
	$(BIN)/python -m benchmarks.experiments.demo $(DEMO)

demo-md: setup
	$(BIN)/python -m benchmarks.experiments.demo --task md \
		--out runs/demo-md $(DEMO)

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
