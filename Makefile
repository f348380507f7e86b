# make setup   .venv with everything in it, the native crate built; does nothing when nothing changed
# make clients the applications of others that tests/clients runs; without them those tests are skipped
# make suites  all of those applications' own tests that take a server
# make run     a cluster of three on this machine
# make test    the tests;  make check  format, lint, types and the house's own rules;  make bench  the benchmarks

VENV := .venv
BIN := $(VENV)/bin
# The distribution's Python, where it is new enough, can make environments, and has the library that `cargo test` links: it is
# built with profile-guided optimisation, which pyenv and others leave out; a publish then takes 1.3 times as long.
SYSTEM_PYTHON := /usr/bin/python3
PYTHON ?= $(or $(shell $(SYSTEM_PYTHON) tools/usable_python.py 2>/dev/null),python3)
NATIVE := native/Cargo.toml native/Cargo.lock $(wildcard native/src/*.rs) $(wildcard native/.cargo/config.toml)

.PHONY: setup clients suites run test check bench sim storm storage malformed fuzz lock clean
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

# Python's in an environment of their own; Node.js' and Go's where there are npm and go.
CLIENTS := .venv-clients
REDIS_5 := redis==5.2.1  # for broadcaster 0.3.1, which loses its first subscriber with redis-py 8 even on Redis

clients: $(CLIENTS)/.python $(CLIENTS)/.node $(CLIENTS)/.go $(CLIENTS)/.suites

$(CLIENTS)/.python: tests/clients/requirements.lock
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --upgrade \
		--target $(CLIENTS)/redis5 $(REDIS_5)
	@touch $@

$(CLIENTS)/.node: $(addprefix tests/clients/node/, package.json package-lock.json soketi.sh) | $(CLIENTS)/.python
	@mkdir -p $(CLIENTS)/node
	cp $^ $(CLIENTS)/node/
	@if command -v npm >/dev/null; \
		then cd $(CLIENTS)/node && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error && sh soketi.sh; \
		else echo "there is no npm: the Node.js applications are not installed" >&2; fi
	@touch $@

$(CLIENTS)/.go: $(wildcard tests/clients/go/*) | $(CLIENTS)/.python
	@if command -v go >/dev/null; \
		then cd tests/clients/go && go build -o $(CURDIR)/$(CLIENTS)/go-redis .; \
		else echo "there is no go: the Go application is not built" >&2; fi
	@touch $@

# Their own tests: source archives, of which pip checks the hashes, and what these tests need.
$(CLIENTS)/.suites: $(wildcard tests/clients/suites/sources.txt tests/clients/suites/tools.lock) | $(CLIENTS)/.python
	rm -rf $(CLIENTS)/suites
	$(CLIENTS)/bin/python -m pip download --quiet --disable-pip-version-check --no-deps --no-binary :all: \
		--require-hashes --requirement tests/clients/suites/sources.txt --dest $(CLIENTS)/suites
	$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--requirement tests/clients/suites/tools.lock --target $(CLIENTS)/suites/tools
	@touch $@

# All of them; `make test` has a part.
suites: setup clients
	RIVERBUS_SUITES=long $(BIN)/python -m pytest -s tests/clients/test_own_suites.py

run: setup
	$(BIN)/riverbus dev --nodes 3

test: setup
	PYO3_PYTHON=$(CURDIR)/$(BIN)/python cargo test --manifest-path native/Cargo.toml --locked --quiet
	$(BIN)/python -m pytest -n 2 --dist loadfile

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy src tests benchmarks tools
	$(BIN)/python -m tools.check_house
	cargo fmt --manifest-path native/Cargo.toml --check
	cargo clippy --manifest-path native/Cargo.toml --locked --all-targets --quiet -- -D warnings

bench: setup
	$(BIN)/python -m benchmarks.run

# Longer than the tests' slices: 2,000 simulated clusters; everything, an hour in all on two cores; thousands of power cuts and flipped
# bits; a million malformed inputs to each edge; the interface fuzzer's own uses.
sim: setup
	$(BIN)/riverbus sim --seed 1 --seeds 2000 --chaos 90

storm: setup
	$(BIN)/riverbus sim --seed 1 --seeds 100000 --minutes 33 --json
	$(MAKE) --jobs 2 storage malformed
	RIVERBUS_FAULTS=long $(BIN)/python -m pytest -s tests/faults/test_scenarios.py

storage: setup
	RIVERBUS_STORAGE=long $(BIN)/python -m pytest -s tests/storage

malformed: setup
	$(BIN)/python -m tests.malformed

fuzz: setup
	$(BIN)/python -m pytest tests/fuzz
	$(BIN)/python -m tests.wire.fuzz_resp 60

# New versions of what pyproject.toml allows; commit the result.
lock: setup
	$(BIN)/python -m tools.lock

clean:
	rm -rf $(VENV) $(CLIENTS) native/target src/riverbus/_native*.so .mypy_cache .ruff_cache .pytest_cache
