# The project's commands. Each sets up .venv first where it is missing or older than what it is made from.

SHELL := /bin/bash
.DEFAULT_GOAL := help

# The versions of everything: the oldest that work, for Python 3.11, or the newest. `make test LANE=oldest` asks for one
# and has an environment of its own; otherwise the newest Python that is found decides.
LANE ?=
$(if $(filter-out oldest newest,$(LANE)),$(error there is no lane '$(LANE)'; there are oldest and newest))
PYTHON ?= $(shell scripts/find_python.sh $(LANE))
VENV := .venv$(addprefix -,$(LANE))
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
# An environment whose Python has gone is made again.
$(shell test ! -e $(STAMP) -o -x $(BIN)/python || rm -f $(STAMP))
# So is one of another Python than the one that is named.
ifneq (,$(filter command% environment%,$(origin PYTHON)))
which = "$(1)" -c 'import sys; print(sys.version_info[:3], sys.base_prefix)' 2>/dev/null
$(shell test ! -e $(STAMP) || test -z "$$($(call which,$(PYTHON)))" || \
	test "$$($(call which,$(PYTHON)))" = "$$($(call which,$(BIN)/python))" || rm -f $(STAMP))
endif
BENCH_STAMP := $(VENV)/.installed-bench
GAMES_STAMP := $(VENV)/.installed-games
# The file of the lane that an environment belongs to.
LOCK = constraints/$$($(BIN)/python -c 'import sys; print("oldest" if sys.version_info < (3, 12) else "newest")').txt
INSTALL = $(BIN)/python -m pip install --quiet --constraint $(LOCK) --editable
WORKERS ?= 2
TURN ?=
# Every other line where there is a turn, all of them where there is none.
IN_TURN = awk '"$(TURN)" == "" || NR % 2 == "$(TURN)" % 2'
# Most of a test's time, and much of a recovery's, is compilation of code that runs once or for a second. XLA's older
# emitters, where it still has them, compile it in a third of the time. The smoke tests run what users run.
known_flags = $$($(BIN)/python scripts/known_flags.py $(1)) $$XLA_FLAGS
QUICKLY_COMPILED := --xla_cpu_use_fusion_emitters=false
FOR_RECOVERY := $(QUICKLY_COMPILED) --xla_backend_optimization_level=1
FOR_TESTS := $(QUICKLY_COMPILED) --xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1
# What every engine, look-up and report rests on, and the README's program.
SMOKE := $(addprefix tests/test_,floors.py exact.py svi.py smc.py report.py readme.py degrees.py computed_lookups.py numerics.py compilation.py workshop.py)

# No picture opens a window, and no test depends on the user's own settings.
export MPLBACKEND := Agg
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help setup recover test test-slow test-games smoke lint format types notebooks bench bench-quick build clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml $(wildcard constraints/*.txt)
	@test -n "$(PYTHON)" || { echo "No Python from 3.11 to 3.14 was found$(if $(LANE), for the lane $(LANE)). Install one, or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { echo "$(PYTHON) is no Python of at least 3.11; name another: make $(MAKECMDGOALS) PYTHON=/path/to/python" >&2; exit 1; }
	@echo "Setting up $(VENV) with $$("$(PYTHON)" --version) (once; a minute or two)"
	@"$(PYTHON)" -m venv --clear $(VENV)
	@$(INSTALL) ".[test]"
	@touch $@

$(BENCH_STAMP): $(STAMP)
	@$(INSTALL) ".[bench]"
	@touch $@

$(GAMES_STAMP): $(STAMP)
	@echo "Building pygambit from source (once; some minutes)"
	@$(INSTALL) ".[games]"
	@touch $@

setup: $(STAMP) ## make .venv and install the package in it

recover: $(STAMP) ## ask every engine about every task; tables, and figures in results/
	@XLA_FLAGS="$(call known_flags,$(FOR_RECOVERY))" $(BIN)/rlinf recover

test: $(STAMP) ## the tests, without the slow ones
	@$(BIN)/python scripts/versions.py
	@XLA_FLAGS="$(call known_flags,$(FOR_TESTS))" $(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal

test-slow: $(STAMP) ## only the slow tests; `TURN=0` to 15 runs a part, all in sixteen turns
	@UNTYPED=1 XLA_FLAGS="$(call known_flags,$(FOR_TESTS))" $(BIN)/python -m pytest -q -m slow -n $(WORKERS) \
		--dist worksteal $(addprefix --turn=,$(TURN))

test-games: $(GAMES_STAMP) ## the tests of games that want pygambit, which is built from source
	@$(BIN)/python -m pytest -q tests/test_games.py tests/test_equilibria.py

smoke: $(STAMP) ## a part of the tests, compiled as users compile; `make smoke LANE=oldest` for the oldest versions
	@$(BIN)/python scripts/versions.py
	@$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal $(SMOKE)

lint: $(STAMP) ## ruff: style, imports, docstrings, formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: $(STAMP) ## put the code into ruff's format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

types: $(STAMP) ## mypy over the package
	@$(BIN)/mypy

notebooks: $(STAMP) ## run every notebook from a clean kernel; `TURN=0` to 15 runs every other one
	@printf '%s\n' notebooks/*.ipynb | $(IN_TURN) | \
		XLA_FLAGS="$(call known_flags,$(FOR_RECOVERY))" xargs -n 1 -P $(WORKERS) sh -c \
		'echo "running $$0"; $(BIN)/jupyter-execute --timeout=300 "$$0" || exit 255'

# A peer that needs NumPy 1, and so a Python that has it.
.venv-particles/.installed:
	@python=$$(scripts/find_python.sh oldest); \
	if [ -n "$$python" ]; then $$python -m venv --clear .venv-particles && \
		.venv-particles/bin/python -m pip install --quiet "numpy<2" "scipy<1.13" particles==0.4 && touch $@; \
	else echo "P5 runs without the library particles, which wants Python 3.11"; fi

bench: $(BENCH_STAMP) .venv-particles/.installed ## time the library against its peers
	@$(BIN)/python -m benchmarks

bench-quick: $(STAMP) ## the same on toy sizes, to show that it runs and answers agree; every other row by TURN
	@$(BIN)/python -m benchmarks --list | $(IN_TURN) | \
		XLA_FLAGS="$(call known_flags,$(FOR_TESTS))" xargs -n 2 -P $(WORKERS) $(BIN)/python -m benchmarks --quick
	@$(BIN)/python scripts/reach.py

build: $(STAMP) ## the wheel and the source distribution in dist/, and the README's program with the wheel alone
	@rm -rf dist
	@$(BIN)/python -m build --outdir dist >/dev/null
	@$(BIN)/python scripts/try_builds.py dist $(LOCK)

clean: ## remove .venv, results/ and every cache
	rm -rf .venv .venv-* results build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
