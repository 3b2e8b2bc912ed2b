# The project's commands. Each sets up .venv first where it is missing or older than what it is made from.

SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= $(shell for candidate in python3.11 python3; do \
	$$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$candidate; break; }; done)

BIN := .venv/bin
STAMP := .venv/.installed
BENCH_STAMP := .venv/.installed-bench
WORKERS ?= 2
# Most of a test's time, and much of a recovery's, is compilation of code that runs once or for a second. XLA's older
# emitters compile it in a third of the time. The slow tests run what users run.
QUICKLY_COMPILED := --xla_cpu_use_fusion_emitters=false
FOR_RECOVERY := $(QUICKLY_COMPILED) --xla_backend_optimization_level=1
FOR_TESTS := $(QUICKLY_COMPILED) --xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1

# No picture opens a window, and no test depends on the user's own settings.
export MPLBACKEND := Agg
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup recover test test-slow lint format types notebooks bench bench-quick clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or later was found. Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; exit 1; }
	@echo "Setting up .venv with $$($(PYTHON) --version) (once; a minute or two)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --editable ".[test]" --constraint constraints.txt
	@touch $@

$(BENCH_STAMP): $(STAMP)
	@$(BIN)/python -m pip install --quiet --editable ".[bench]" --constraint constraints.txt
	@touch $@

setup: $(STAMP) ## make .venv and install the package in it

recover: $(STAMP) ## ask every engine about every task; tables, and figures in results/
	@XLA_FLAGS="$(FOR_RECOVERY) $$XLA_FLAGS" $(BIN)/rlinf recover

test: $(STAMP) ## the tests, without the slow ones
	@XLA_FLAGS="$(FOR_TESTS) $$XLA_FLAGS" $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal

test-slow: $(STAMP) ## only the slow tests
	@$(BIN)/python -m pytest -q -m slow -n $(WORKERS) --dist worksteal

lint: $(STAMP) ## ruff: style, imports, docstrings, formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(STAMP) ## put the code into ruff's format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(STAMP) ## mypy over the package
	@$(BIN)/mypy

notebooks: $(STAMP) ## run every notebook from a clean kernel; fails where a cell does
	@for notebook in notebooks/*.ipynb; do \
		echo "running $$notebook"; $(BIN)/jupyter-execute --timeout=300 "$$notebook" || exit 1; done

bench: $(BENCH_STAMP) ## time the library against its peers
	@$(BIN)/python -m benchmarks

bench-quick: $(STAMP) ## the same on toy sizes: shows that it runs and that the answers agree
	@$(BIN)/python -m benchmarks --quick

clean: ## remove .venv, results/ and every cache
	rm -rf .venv results build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
