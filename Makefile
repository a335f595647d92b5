# make demo | test | lint | bench; everything runs in .venv, which the first target makes.
SHELL := /bin/bash
VENV ?= .venv
BIN := $(VENV)/bin
# Files in their order, the long ones of tests/e2e first: by number of tests they would come last.
# Three processes on two cores, since tests of servers and commands wait a third of the time.
XDIST := -n 3 --dist loadfile --no-loadscope-reorder
PYTEST := $(BIN)/python -m pytest $(XDIST)
DEMO ?= build/demo

.PHONY: help install demo test test-slow test-flink test-kafka test-modern lint format bench docs lock clean

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install:  ## Make .venv from the lock file
	@VENV=$(VENV) scripts/install.sh requirements.lock

demo: install  ## Generated log -> data, model, server, scores, report
	@rm -rf $(DEMO)
	@$(BIN)/python -m pipeline.synthesize --output=$(DEMO)/log.csv
	@$(BIN)/python -m pipeline.run --input=$(DEMO)/log.csv --workdir=$(DEMO)/work \
	  --train_prefixes=all --model=din --ssl=miss --set=train.epochs=4

test: install  ## The test suite without what is marked slow
	$(PYTEST)

test-slow: install  ## The tests marked slow: training to a known AUC, faults by the dozen
	$(PYTEST) -m slow

# An interrupt lets the test end the processes that it started.
test-flink: install  ## The job on a Flink cluster of this machine (needs Java and Maven)
	timeout --signal=INT --kill-after=30 900 $(BIN)/python -m pytest -m flink -rs tests/e2e/test_flink.py

test-kafka: install  ## Builds on topics of a broker of this machine (needs Java and Maven)
	timeout --signal=INT --kill-after=30 300 $(BIN)/python -m pytest -m kafka -rs tests/e2e/test_kafka.py

test-modern:  ## The test suite on the newest TensorFlow
	@VENV=.venv-modern scripts/install.sh requirements-modern.lock
	.venv-modern/bin/python -m pytest $(XDIST)

lint: install  ## ruff and mypy
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: install  ## Format and sort imports
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install  ## Speed ratios against stated baselines, to bench.json
	$(BIN)/python -m tests.bench --output=bench.json

docs: install  ## The documentation as a site, in build/docs
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs build/docs

# uv reads the bound on Python from pyproject.toml; the modern lane goes one version further.
lock: install  ## Write both lock files anew
	mkdir -p build/lock
	sed "s/python_version < '3.13'\"\]/python_version < '3.14'\"]/" pyproject.toml > build/lock/pyproject.toml
	cp requirements-modern.in build/lock/
	uv pip compile pyproject.toml -c requirements.in $(LOCK_FLAGS) -o requirements.lock
	cd build/lock && uv pip compile pyproject.toml -c requirements-modern.in $(LOCK_FLAGS) -o $(CURDIR)/requirements-modern.lock

LOCK_FLAGS := --quiet --extra dev --extra bench --extra docs --extra kafka --extra mlflow --universal --python-version 3.10 \
  --generate-hashes --no-annotate --no-header

clean:  ## Remove what the targets made
	rm -rf build bench.json .venv .venv-modern
