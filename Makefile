# Everything a user needs; `make help` explains. Python's own venv and pip, so that no other tool has
# to be there first.

SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
# The first that runs and is new enough; a version manager's stand-in may be there and not run.
ifeq ($(origin PYTHON),undefined)
PYTHON := $(shell for name in python3.11 python3.12 python3.13 python3; do \
	$$name -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && \
	command -v $$name && exit; done; command -v python3)
endif
RUN := $(VENV)/bin/python -m harness
STAMP := $(VENV)/.installed
PYTEST := $(VENV)/bin/python -m pytest
# A process of tests a core. The tests of one file stay in one, since they share what is dear. Ordered
# by their number of tests, the files that take longest would come last.
SIDE_BY_SIDE := --numprocesses=auto --maxprocesses=8 --dist=loadfile --no-loadscope-reorder

SCALE ?= digits
CLUSTER ?= local
SEEDS ?=
SET ?=
EXP ?=
SEARCH ?=
KIND ?=
TRIALS ?=
PORT ?= 5000
FREE_GIB_NEEDED := 8

# What a user types is never a part of a shell line: it reaches commands through the environment,
# and taken as it stands, so that neither make nor the shell runs anything in it.
TYPED := EXP SCALE CLUSTER SEEDS SET SEARCH TRIALS KIND PORT PYTHON
$(foreach name,$(TYPED),$(eval override $(name) := $$(value $(name))))
export $(TYPED)

# The words of SET, split at spaces as a shell does it: quotes hold a value with spaces together.
SPLIT_SET := words=(); if [ -n "$${SET// /}" ]; then \
	split=$$(printf '%s\n' "$$SET" | xargs -n 1 printf '%s\n' 2>/dev/null) || { \
		echo "SET: a quote is not closed in $$SET" >&2; exit 2; }; \
	while IFS= read -r word; do words+=("$$word"); done <<< "$$split"; fi;
# Which trials: of ablations, and with where they run.
TRIALS_OF = "$$EXP" --scale="$$SCALE" $${SEEDS:+--seeds="$$SEEDS"} "$${words[@]}"

.PHONY: exp-is-named search-is-named kind-is-named help setup docs ablation search benchmark report config status cancel retry list ui test test-slow test-slurm test-all gpu-check check format clean

help: ## Show this list.
	@echo "make ablation EXP=no_differential    train, measure and compare; then make report, make ui"
	@echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1|\2/' \
		| awk -F'|' '{printf "  %-12s %s\n", $$1, $$2}'
	@echo
	@echo "Variables: EXP (which ablation), SCALE=$$SCALE, CLUSTER=$$CLUSTER, SEEDS (how many),"
	@echo "SEARCH and TRIALS (which search, how many trials in all), KIND (which benchmark),"
	@echo "SET=\"train.steps=50 ...\" (overrides), PORT=$$PORT (of make ui), PYTHON=$$PYTHON"

setup: $(STAMP) ## Make the virtual environment .venv; does nothing when all is there.

$(STAMP): pyproject.toml constraints.txt
	@if [ -z "$$PYTHON" ]; then \
		echo "setup: no python3 found; install Python 3.11 or newer" >&2; exit 2; fi
	@"$$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "setup: $$PYTHON is older than Python 3.11; install a newer one, or name it:" \
		"make setup PYTHON=/path/to/python3.11" >&2; exit 2; }
	@"$$PYTHON" -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "setup: $$PYTHON has no venv module; on Debian or Ubuntu: apt install python3-venv" >&2; \
		exit 2; }
	@[ -e $(VENV)/bin/python ] || \
		[ "$$(df -Pk . | awk 'NR == 2 {print int($$4 / 1048576)}')" -ge $(FREE_GIB_NEEDED) ] || { \
		echo "setup: less than $(FREE_GIB_NEEDED) GiB are free in $$PWD, which PyTorch needs" >&2; \
		exit 2; }
	@echo "setup: installing into $(VENV); minutes the first time"
	@"$$PYTHON" -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --quiet --disable-pip-version-check \
		--constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)
	@echo "setup: done"

ablation: exp-is-named $(STAMP) ## Run an ablation: make ablation EXP=no_differential [SCALE= SEEDS= SET=].
	@$(SPLIT_SET) $(RUN) ablation $(TRIALS_OF) --cluster="$$CLUSTER"

search: search-is-named $(STAMP) ## Look for good values: make search SEARCH=dydila_factors TRIALS=30 [SCALE= SET=].
	@$(SPLIT_SET) $(RUN) search "$$SEARCH" --trials="$$TRIALS" --scale="$$SCALE" --cluster="$$CLUSTER" "$${words[@]}"

benchmark: kind-is-named $(STAMP) ## Measure speeds beside other tools': make benchmark KIND=attention [SET="--tokens 256"].
	@$(SPLIT_SET) $(VENV)/bin/python -m benchmarks "$$KIND" "$${words[@]}"

report: exp-is-named $(STAMP) ## Rebuild tables and figures from MLflow: make report EXP=no_differential [SCALE= SEEDS= SET=].
	@$(SPLIT_SET) $(RUN) report $(TRIALS_OF)

config: exp-is-named $(STAMP) ## Print the resolved trials and their hashes; run nothing.
	@$(SPLIT_SET) $(RUN) config $(TRIALS_OF)

status: exp-is-named $(STAMP) ## Show how far every trial is: make status EXP=no_differential.
	@$(SPLIT_SET) $(RUN) status $(TRIALS_OF)

cancel: exp-is-named $(STAMP) ## End the queued and running SLURM jobs of an ablation.
	@$(SPLIT_SET) $(RUN) cancel $(TRIALS_OF)

retry: exp-is-named $(STAMP) ## Run the trials of an ablation again that failed.
	@$(SPLIT_SET) $(RUN) retry $(TRIALS_OF) --cluster="$$CLUSTER"

search-is-named:
	@[ -n "$$SEARCH" ] && [ -n "$$TRIALS" ] || { echo "say which search and how many trials:" \
		"make search SEARCH=dydila_factors TRIALS=30; make list shows all" >&2; exit 2; }

kind-is-named:
	@[ -n "$$KIND" ] || { echo "say which benchmark: make benchmark KIND=attention;" \
		"attention, profile, data, evaluation, gpu-check and overhead are there" >&2; exit 2; }

exp-is-named:
	@[ -n "$$EXP" ] || { echo "say which ablation: make $(firstword $(MAKECMDGOALS))" \
		"EXP=no_differential; make list shows all" >&2; exit 2; }

list: $(STAMP) ## List ablations, searches, scales and attention variants, each with its question.
	@$(RUN) list

ui: $(STAMP) ## Compare runs in the browser, on this machine only.
	@$(VENV)/bin/mlflow ui --backend-store-uri "$${MLFLOW_TRACKING_URI:-sqlite:///mlflow.db}" \
		--host 127.0.0.1 --port "$$PORT"

test: $(STAMP) ## Run the quick tests.
	@$(PYTEST) $(SIDE_BY_SIDE) -m "not slow and not slurm"

test-slow: $(STAMP) ## Run the tests that take minutes.
	@$(PYTEST) $(SIDE_BY_SIDE) -m "slow and not slurm"

test-slurm: $(STAMP) ## Run the tests on a SLURM of two virtual nodes, started for them (Debian: slurm-wlm, munge).
	@HARNESS_TEST_SLURM=1 $(PYTEST) -m slurm tests/slurm

gpu-check: $(STAMP) ## On a machine with a card: what only a card can show, in 8 minutes; writes gpu-check/gpu-check.md.
	@$(VENV)/bin/python -m benchmarks gpu-check

test-all: test test-slow test-slurm ## Run all tests.

check: $(STAMP) ## Lint, check types and the direction of imports.
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/mypy
	@$(VENV)/bin/lint-imports

docs: $(STAMP) ## Build the documentation as web pages in site/; a broken link fails.
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

format: $(STAMP) ## Format the code.
	@$(VENV)/bin/ruff check --fix --quiet . ; $(VENV)/bin/ruff format .

clean: ## Remove the virtual environment and caches; keeps runs/ and mlflow.db.
	@rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
