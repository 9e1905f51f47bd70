# Everything a developer or a new user runs. `make demo` and `make test` do all their own set-up.
SHELL := /bin/bash
BIN := .venv/bin
UV_VERSION := 0.13.9

.DEFAULT_GOAL := help
.PHONY: help setup setup-test servers demo test check soak bench lock clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:  ## what is needed to run holdfast: system packages, .venv, locked packages
	@scripts/setup.sh

setup-test:  ## the same, and what the tests need
	@scripts/setup.sh test

servers: setup-test  ## PostgreSQL 15 to 18 for the tests, in .cache/postgres where the machine has none of its own
	@$(BIN)/python scripts/postgres_servers.py

demo: setup  ## a throwaway PostgreSQL backed up, damaged and brought back, with the proof
	@$(BIN)/holdfast demo

check: setup-test  ## style, types and the contracts between the rooms
	@echo "check: style"
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@echo "check: types"
	@$(BIN)/mypy --no-error-summary
	@if grep -q '^\[tool\.importlinter' pyproject.toml; then echo "check: rooms" && $(BIN)/lint-imports --no-logo >.cache/rooms.log || { cat .cache/rooms.log; exit 1; }; fi

test: check servers  ## every check and every test but the long sweeps
	@echo "test: running (long sweeps are in make soak)"
	@$(BIN)/python -m pytest -n auto --dist worksteal -m "not soak"

soak: check servers  ## the long sweeps, each in full
	@echo "soak: running; this takes long"
	@HOLDFAST_SOAK=1 $(BIN)/python -m pytest -n auto --dist worksteal -m soak

bench: servers  ## holdfast beside pgBackRest and restic (docs/benchmarks.md)
	@scripts/setup.sh bench
	@$(BIN)/python -m benchmarks

lock:  ## choose the newest versions that pyproject.toml allows, with their hashes
	@[ -x .cache/lock/bin/python ] || python3 -m venv .cache/lock
	@.cache/lock/bin/python -m pip --disable-pip-version-check install --quiet uv==$(UV_VERSION)
	@echo "lock: requirements.lock"
	@$(LOCK) -o requirements.lock
	@echo "lock: requirements-dev.lock"
	@$(LOCK) --all-extras --group dev -c requirements.lock -o requirements-dev.lock

LOCK = .cache/lock/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" pyproject.toml requirements-build.in

clean:  ## remove all that set-up and tests made here
	rm -rf .venv .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build
	rm -rf /var/tmp/holdfast-postgres-$$(id -u)-*
	find src tests benchmarks rescue scripts -name __pycache__ -type d -prune -exec rm -rf {} +
