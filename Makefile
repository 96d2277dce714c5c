# `make` lists the targets. They need Python and git, those that run real programs Go or Docker as well (docs/development.md); Python packages
# go into .venv, and what the offline cluster needs of Debian is installed with apt where it is missing.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HARNESS := $(PYTHON) -m e2e.harness
# Neighbours stay together on one worker, so what a module or a story sets up is set up once; whoever is done takes of what is left.
PARALLEL := --numprocesses=auto --dist=worksteal
# The engines' scripts are parts of programs; their unit tests check them put together.
SHELL_FILES := $(shell git ls-files .ci/run 'operator/coppice/csi/*.sh' e2e/harness/runc-without-sys-resource e2e/images/node/unpack-images 'e2e/images/node/rootfs/usr/local/bin/*')

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

##@ See it

.PHONY: demo
demo: venv ## Bring up a cluster with Coppice in it and play the main story on real data
	$(BIN)/python -m e2e.demo

##@ Test

.PHONY: test
test: lint unit simulation chart cel contract csi e2e ## Everything: lint, unit tests, real API server, real engines, real storage, real cluster

.PHONY: lint
lint: venv ## Style, types, layers, shell scripts, and whether generated files are up to date
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/shellcheck $(SHELL_FILES)
	$(BIN)/python -m coppice.crdgen --check
	$(BIN)/python helm/generate.py --check

.PHONY: unit
unit: venv ## Unit tests: seconds, no cluster
	$(BIN)/pytest $(PARALLEL) tests/unit

.PHONY: simulation
simulation: venv ## Whole days: the operator killed or refused at every write, random operations, an API server at its worst
	$(BIN)/pytest $(PARALLEL) tests/simulation

# Without what they are about these stages would pass by testing nothing (tests/fakes/required.py).
chart cel contract csi: export COPPICE_REQUIRED := 1

.PHONY: chart
chart: venv ## The chart, rendered by Helm itself, and what it tells Argo CD, judged by that
	assets="$$($(HARNESS) assets helm argocd)" && eval "$$assets" && $(BIN)/pytest $(PARALLEL) tests/unit/chart

.PHONY: cel
cel: venv ## Validation rules and the client, against a real API server without a cluster
	assets="$$($(HARNESS) assets kubernetes etcd)" && eval "$$assets" && $(BIN)/pytest $(PARALLEL) -m apiserver tests/cel tests/unit/kube tests/unit/runtime

.PHONY: contract
contract: venv ## The engine contract, on real engines
	assets="$$($(HARNESS) assets dolt postgresql stunnel)" && eval "$$assets" && $(BIN)/pytest $(PARALLEL) tests/contract

.PHONY: csi
csi: venv ## The CSI driver on a real btrfs, and csi-sanity (needs root)
	assets="$$($(HARNESS) assets sanity)" && eval "$$assets" && $(BIN)/pytest tests/csi

.PHONY: e2e
e2e: venv ## The stories, on a real cluster, which is started if none is up and removed if this started it
	$(BIN)/python -m e2e.run

.PHONY: bench
bench: venv ## Time clones beside the same objects made by hand; prints a table
	$(BIN)/python -m e2e.bench

##@ Cluster

.PHONY: cluster-up
cluster-up: venv ## Start the test cluster with Coppice in it and keep it
	$(BIN)/python -m e2e.install

.PHONY: cluster-down
cluster-down: ## Remove the test cluster without a trace
	$(HARNESS) down

##@ Develop

.PHONY: venv
venv: $(VENV)/.lock ## Make .venv from the locked requirements

$(VENV)/.lock: requirements/dev.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements/dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $@

.PHONY: generate
generate: venv ## Write the generated files: CRDs, their copy in the chart, RBAC, the API reference
	$(BIN)/python -m coppice.crdgen --write
	$(BIN)/python helm/generate.py --write

.PHONY: lock
lock: venv ## Resolve the dependencies anew and write the lock files
	$(BIN)/uv pip compile --quiet pyproject.toml --extra csi --generate-hashes --no-emit-index-url --no-header --python-version 3.11 --output-file requirements/run.txt
	$(BIN)/uv pip compile --quiet pyproject.toml --extra csi --group dev --constraint requirements/run.txt --generate-hashes --no-emit-index-url --no-header --python-version 3.11 --output-file requirements/dev.txt
