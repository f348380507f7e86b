# make setup   .venv with everything in it, the native crate built; does nothing when nothing changed
# make run     a cluster of three on this machine
# make test    the tests;  make check  format, lint, types and the house's own rules;  make bench  the benchmarks

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= python3
NATIVE := native/Cargo.toml native/Cargo.lock $(wildcard native/src/*.rs) $(wildcard native/.cargo/config.toml)

.PHONY: setup run test check bench sim storm fuzz lock clean
.DEFAULT_GOAL := setup

setup: $(VENV)/.installed

$(VENV)/.python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Riverbus needs Python 3.11 or newer: make setup PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.locked: requirements.lock | $(VENV)/.python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.lock
	@touch $@

# maturin builds the crate and installs the package in place: Python files need no further step.
$(VENV)/.installed: $(VENV)/.locked pyproject.toml $(NATIVE)
	@command -v cargo >/dev/null \
		|| { echo "The native crate needs cargo, of Rust 1.85 or newer: https://rustup.rs" >&2; exit 1; }
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/maturin develop --release --locked --quiet
	@touch $@

run: setup
	$(BIN)/riverbus dev --nodes 3

test: setup
	PYO3_PYTHON=$(CURDIR)/$(BIN)/python cargo test --manifest-path native/Cargo.toml --locked --quiet
	$(BIN)/python -m pytest

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy src tests benchmarks tools
	$(BIN)/python -m tools.check_house
	cargo fmt --manifest-path native/Cargo.toml --check
	cargo clippy --manifest-path native/Cargo.toml --locked --all-targets --quiet -- -D warnings

bench: setup
	$(BIN)/python -m benchmarks.run

# Longer than the tests' slices: 2,000 simulated clusters; an hour of everything; the interface fuzzer's own uses.
sim: setup
	$(BIN)/riverbus sim --seed 1 --seeds 2000 --chaos 90

storm: setup
	$(BIN)/riverbus sim --seed 1 --seeds 100000 --minutes 40 --json
	RIVERBUS_STORAGE=long $(BIN)/python -m pytest -s tests/storage

fuzz: setup
	$(BIN)/python -m pytest tests/fuzz
	$(BIN)/python -m tests.wire.fuzz_resp 60

# New versions of what pyproject.toml allows; commit the result.
lock: setup
	$(BIN)/python -m tools.lock

clean:
	rm -rf $(VENV) native/target src/riverbus/_native*.so .mypy_cache .ruff_cache .pytest_cache
