# Every target works without an active virtual environment; those that need one set it up first.

PYTHON ?= python3
DOCKER ?= docker

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done
RIVALS := build/rivals
RIVALS_STAMP := $(RIVALS)/.setup-done
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

DIGITS ?= 100000
PARALLELISM ?= 2
TEST_PROCESSES ?= 4
PYTEST_ARGS ?=
BENCH_ARGS ?= --short
MINUTES ?= 5
CHAOS_ARGS ?=

UV_COMPILE = $(BIN)/uv --no-config pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--default-index https://pypi.org/simple --no-emit-index-url --no-emit-find-links \
	--custom-compile-command 'make lock'

.DEFAULT_GOAL := help
.PHONY: help setup run lint format types test chaos bench k8s-validate image lock clean
.DELETE_ON_ERROR:

help: ## show this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## create .venv with the locked dependencies and the project, editable

$(STAMP): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'piecework needs Python 3.11 or newer; name one: make setup PYTHON=python3.12' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo '$(PYTHON) cannot create virtual environments: apt-get install python3-venv' >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: setup ## compute DIGITS (100000) digits of pi with PARALLELISM (2) local workers
	@mkdir -p build
	$(BIN)/piecework pi --digits $(DIGITS) --parallelism $(PARALLELISM) --out build/pi.txt

lint: setup ## check style, formatting, the layers, the Dockerfile and known vulnerabilities
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile
	@$(BIN)/python -m requirements.audit

format: setup ## apply what lint can repair by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup ## check types
	$(BIN)/mypy

test: setup ## run the tests that need no cluster, on TEST_PROCESSES (4) processes
	@# Hundreds of processes start: let Python keep what it has compiled.
	PYTHONDONTWRITEBYTECODE= $(BIN)/pytest --numprocesses $(TEST_PROCESSES) --dist loadgroup $(PYTEST_ARGS)

chaos: setup ## play seeded faults for MINUTES (5); CHAOS_ARGS='--seed 7' plays the same ones again
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m tests.chaos.driver --minutes $(MINUTES) $(CHAOS_ARGS)

k8s-validate: setup ## check k8s/ and every manifest that the code makes, for three Kubernetes versions
	$(BIN)/python -m k8s.validate

# An environment of their own: see "bench" in pyproject.toml.
$(RIVALS_STAMP): requirements/bench.txt $(STAMP)
	@test -x $(RIVALS)/bin/pip || $(BIN)/python -m venv --clear $(RIVALS)
	$(RIVALS)/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bench.txt
	@touch $@

bench: $(STAMP) $(RIVALS_STAMP) ## run each benchmark's short form (BENCH_ARGS= for the full one)
	@for script in $(wildcard bench/[!_]*.py); do \
		echo "== $$script $(BENCH_ARGS)"; $(BIN)/python "$$script" $(BENCH_ARGS) || exit 1; done

image: ## build the worker's and the producer's container image
	@command -v $(DOCKER) >/dev/null || { \
		echo '$(DOCKER) not found: install Docker, or name another builder: make image DOCKER=podman' >&2; exit 1; }
	@$(DOCKER) info >/dev/null 2>&1 || { \
		echo '$(DOCKER) cannot reach its engine: start it, or see what "$(DOCKER) info" says' >&2; exit 1; }
	$(DOCKER) build --target worker --build-arg VERSION=$(VERSION) --tag piecework-worker:$(VERSION) .
	$(DOCKER) build --target producer --build-arg VERSION=$(VERSION) --tag piecework-producer:$(VERSION) .

# dev.txt first: it constrains the others, so that what is tested is what is shipped.
lock: ## pin the dependencies anew in requirements/ (UV_ARGS=--upgrade for the newest)
	@test -x $(BIN)/uv || { test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV); $(BIN)/pip install --quiet uv; }
	$(UV_COMPILE) $(UV_ARGS) --extra dev --output-file requirements/dev.txt pyproject.toml
	$(UV_COMPILE) --constraint requirements/dev.txt --output-file requirements/worker.txt pyproject.toml
	$(UV_COMPILE) --constraint requirements/dev.txt --extra producer --extra pi \
		--output-file requirements/producer.txt pyproject.toml
	$(UV_COMPILE) $(UV_ARGS) --group bench --output-file requirements/bench.txt
	echo hatchling | $(UV_COMPILE) --constraint requirements/dev.txt --output-file requirements/build.txt -

clean: ## remove .venv, caches and build output
	rm -rf $(VENV) build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
