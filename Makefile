# What one needs to run, test and change ft. Nothing is written outside of this folder, $FT_HOME
# (default: the user's data folder, see `ft backend list`) and the caches of uv and pip.
#
# Needed: make, bash, Python 3.11 or newer with its venv module, and a package registry, the one that
# pip is configured for.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
PYTEST_ARGS ?= -n 2 --dist loadfile --no-loadscope-reorder
VENV := .venv
DONE := $(VENV)/.done

.PHONY: help install run test lint golden bench lock clean

help:
	@echo 'make install   .venv with ft and the tools, from requirements-dev.txt'
	@echo 'make run       one recipe from data to merged model on a tiny random model'
	@echo 'make test      all tests, with both backends (installs them on first use)'
	@echo 'make lint      ruff and mypy'
	@echo 'make golden    write the golden files again; review the difference'
	@echo 'make bench     time ft against the backends'"'"' own commands'
	@echo 'make lock      resolve all locks again; UPGRADE=1 for newer versions'
	@echo 'make clean     delete .venv and the caches of the tools'

# ft's own sources are compiled at every call: quick where nothing changed, and `ft` starts sooner.
install: $(DONE)
	@$(VENV)/bin/python -m compileall -q orchestrator

# Programs in .venv name its place, so a .venv that was moved or copied here is made anew. `$(DONE)`
# holds the place and is written last, so one that was not finished is too.
ifneq ($(shell cat $(DONE) 2>/dev/null),$(CURDIR))
.PHONY: $(DONE)
endif

# pip brings uv, uv brings everything else, from the sources that pip is configured for. The packages
# are in place before ft itself is built, so that its build needs nothing that is not locked. They are
# compiled at once: `ft` starts twice as fast where Python is told not to write bytecode.
$(DONE): requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo 'ft needs Python 3.11 or newer: make install PYTHON=/path/to/python3.11' >&2; exit 1; }
	@[ "$$(cat $(DONE) 2>/dev/null)" = '$(CURDIR)' ] || { \
	    echo 'making $(VENV)'; $(PYTHON) -m venv --clear $(VENV); } || { \
	    echo 'this Python cannot make virtual environments; on Debian: python3-venv' >&2; exit 1; }
	@awk '/^[^ #]/ { wanted = /^uv==/ } wanted' requirements-dev.txt > $(VENV)/uv.txt
	@$(VENV)/bin/python -m pip install -qq --disable-pip-version-check --require-hashes \
	    --requirement $(VENV)/uv.txt
	@eval "$$($(VENV)/bin/python -m orchestrator.environments.indexes --export)"; \
	    install=($(VENV)/bin/uv pip install --quiet --compile-bytecode $$FT_UV_FLAGS); \
	    install+=(--python $(VENV)/bin/python); \
	    "$${install[@]}" --require-hashes --requirement requirements-dev.txt; \
	    "$${install[@]}" --no-deps --no-build-isolation --editable .
	@echo '$(CURDIR)' > $(DONE)
	@echo 'ft is in $(VENV)/bin/ft'

run: install
	$(VENV)/bin/ft recipe run mistral-qlora --smoke

test: install
	$(VENV)/bin/ft backend install axolotl llamafactory
	$(VENV)/bin/python -m pytest $(PYTEST_ARGS)

lint: install
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

golden: install
	FT_GOLDEN=write $(VENV)/bin/python -m pytest --quiet -k golden
	git diff --stat -- tests deepspeed_configs

bench: install
	$(VENV)/bin/ft backend install axolotl llamafactory
	$(VENV)/bin/python tools/bench.py

lock: install
	tools/lock.sh $(if $(UPGRADE),--upgrade)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
	find orchestrator tests -name __pycache__ -prune -exec rm -rf {} +
