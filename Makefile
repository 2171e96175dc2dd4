# `make demo` and `make test` need Python 3.11 or newer and make, and nothing else installed.
.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
# What `make test` installs beside the tool: EXTRAS=test,spark runs the Spark tests too (435 MiB, Java 17).
EXTRAS ?= test
BIN := $(VENV)/bin
RUN := $(BIN)/drumgate

.PHONY: help demo mdb test lint types format bench pages clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "drumgate needs Python 3.11 or newer; set PYTHON=/path/to/python3" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-test: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	@touch $@ $(VENV)/.installed

test: lint types ## ruff, mypy and every test
	$(BIN)/python -m pytest -n auto

lint: $(VENV)/.installed-test ## ruff: rules and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.installed-test ## mypy
	$(BIN)/mypy

format: $(VENV)/.installed-test ## let ruff format and mend what it can
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

# `make bench BENCH="store feeding"` runs these two alone.
BENCH ?= $(basename $(notdir $(shell grep -l __main__ benchmarks/*.py)))
bench: $(VENV)/.installed-test ## print the benchmarks' ratios (BENCH="store feeding": some of them)
	@for name in $(BENCH); do echo "== benchmarks/$$name.py"; $(BIN)/python benchmarks/$$name.py || exit 1; done

pages: $(VENV)/.installed-test ## make the example pages again (examples/*/page.html)
	$(BIN)/python examples/make_pages.py

clean: ## remove what the demo made (the environment stays)
	rm -rf build/demo reports/demo models/demo

include demo.mk mdb.mk
