# `make demo` and `make test` need make and a Python >= 3.11, nothing else: the rest goes into .venv, once.
# PYTHON=... picks an interpreter; otherwise the first that really runs (a shim may not) and can make environments.

PROBE := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
CANDIDATES := python3.13 python3.12 python3.11 python3 python python3.14
PYTHON ?= $(shell for p in $(CANDIDATES); do if $$p -c '$(PROBE)' >/dev/null 2>&1; then echo $$p; break; fi; done)
READY := .venv/ready
SITE := .venv/ready-for-docs
BIN := $(CURDIR)/.venv/bin
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 .venv/bin/python -m pip install -qq
COMPILE := UV_CUSTOM_COMPILE_COMMAND='make lock' .venv/bin/uv pip compile --quiet --universal --generate-hashes

.PHONY: help demo test test-slow check format docs lock clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       set up, pretrain on the embedded demo set (under 5 minutes on 2 cores), score the result"
	@echo "make test       set up, run the tests"
	@echo "make test-slow  the tests that take minutes"
	@echo "make check      linter, formatting, types"
	@echo "make format     put the code into the form that check asks for"
	@echo "make docs       the site, into site/ (and the references of commands and JSON anew)"
	@echo "make lock       requirements.lock anew from pyproject.toml; UPGRADE=1 takes the newest releases"
	@echo "make clean      remove .venv and caches (never runs/)"

$(READY): pyproject.toml requirements.lock
	@test -n "$(PYTHON)" || { echo "no Python >= 3.11 with its venv module found (on Debian: apt install python3-venv);" \
	  "name one with make PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "setting up .venv with $(PYTHON); the first time PyTorch is downloaded, which takes minutes" >&2
	@$(PYTHON) -m venv .venv
	@$(PIP) --requirement requirements.lock
	@$(PIP) --no-deps --editable .
	@touch $@

$(SITE): $(READY) docs/requirements.lock
	@$(PIP) --requirement docs/requirements.lock
	@touch $@

demo: $(READY)
	@PATH="$(BIN):$$PATH" bash examples/demo.sh

test: $(READY)
	@PATH="$(BIN):$$PATH" pytest -q

test-slow: $(READY)
	@PATH="$(BIN):$$PATH" pytest -q -m slow

check: $(READY)
	@PATH="$(BIN):$$PATH" ruff check --quiet
	@PATH="$(BIN):$$PATH" ruff format --check --quiet
	@PATH="$(BIN):$$PATH" mypy

format: $(READY)
	@PATH="$(BIN):$$PATH" ruff check --fix --quiet
	@PATH="$(BIN):$$PATH" ruff format --quiet

docs: $(SITE)
	@.venv/bin/python docs/generate_cli.py
	@.venv/bin/python docs/json_reference.py
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --strict --quiet
	@echo "site/index.html"

# What is pinned stays as it is, unless pyproject.toml excludes it or UPGRADE=1 asks for newer releases.
lock: $(READY)
	@$(PIP) 'uv>=0.9'
	@$(COMPILE) $(if $(UPGRADE),--upgrade) --extra dev pyproject.toml --output-file requirements.lock
	@$(COMPILE) $(if $(UPGRADE),--upgrade) --group docs --constraint requirements.lock --output-file docs/requirements.lock

clean:
	@rm -rf site .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
