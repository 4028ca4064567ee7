# `make` alone prints the targets.
PYTHON ?= python3
VENV ?= .venv
OUT ?= out/map
export EXPUNGE_DATA ?= $(abspath ../shared/data)

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo docs map test test-fast test-processors lint types format bench clean

help:  ## print the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "expunge needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

setup: $(STAMP)  ## create the environment in .venv

demo: $(STAMP)  ## damage a small model, find out how, repair it, show before and after (a minute)
	rm -rf out/demo
	$(BIN)/expunge demo --out out/demo

map: $(STAMP)  ## run every default method over the map of digit tasks (minutes)
	@# Exit code 3 says that a cell failed, as ascent does by diverging; the table and the store tell which.
	$(BIN)/expunge map --data digits --out $(OUT) || [ $$? -eq 3 ]

test: lint types $(STAMP)  ## check style and types, run all tests
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal

test-fast: $(STAMP)  ## run the tests that take under twenty seconds each
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist worksteal -m 'not slow'

test-processors: $(STAMP)  ## run the tests that train networks as other processors would (half an hour)
	$(BIN)/python tests/processors.py

docs: $(STAMP)  ## build the documentation in out/site; warnings are errors
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	$(BIN)/mkdocs build --strict

lint: $(STAMP)  ## check style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## check types
	$(BIN)/mypy --num-workers auto

format: $(STAMP)  ## bring the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)  ## measure training and redirection speed
	$(BIN)/python benchmarks/training_speed.py

clean:  ## remove the environment and caches; results in out/ stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
