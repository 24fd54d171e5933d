# Everything that a person or CI needs. Each target sets up what is missing first.
SHELL := /bin/bash
PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.ready
RECIPE ?= loop
MESSAGES ?= 200000

.DEFAULT_GOAL := help
.PHONY: help run test setup check up clean lock golden seeds bench faults fuzz conformance

help: ## say what each target does
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

run: $(STAMP) ## the whole loop: demonstrations -> data set -> model -> service -> workcells -> runs/latest/report.html (RECIPE=loop)
	@$(BIN)/actwright run $(RECIPE)

test: $(STAMP) ## every test, with coverage of the rooms
	@rm -f .coverage .coverage.*
	@$(BIN)/python -m pytest -n 2 --dist loadgroup --cov --cov-report=term

setup: $(STAMP) ## virtual environment in .venv and the system packages for off-screen rendering
	@echo "ready: $(BIN)/actwright --help"

$(STAMP): requirements.lock pyproject.toml infra/local/setup.sh
	@PYTHON=$(PYTHON) bash infra/local/setup.sh

check: $(STAMP) ## format, lint, types and import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/pyright
	@$(BIN)/lint-imports --no-cache

up: $(STAMP) ## Prefect UI, MLflow UI and the champion's policy service on loopback, until Ctrl-C
	@$(BIN)/actwright up

seeds: $(STAMP) ## train and evaluate the default recipe with three training seeds; prints the table of the README
	@$(BIN)/actwright seeds $(RECIPE)

bench: $(STAMP) ## every benchmark, each against a named peer; results in benchmarks/results/
	@set -e; for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file; done

faults: $(STAMP) ## every fault against every invariant; prints the table of reports/faults.json
	@rm -f reports/faults.json
	@$(BIN)/python -m pytest -q -n 2 --dist loadgroup tests/faults; code=$$?; $(BIN)/python -m tests.faults.verdicts && exit $$code

fuzz: $(STAMP) ## at least 200,000 malformed messages to every endpoint (MESSAGES=200000); results in reports/fuzz.json
	@$(BIN)/python -m tests.faults.fuzz --messages $(MESSAGES)

conformance: $(STAMP) ## public clients of other projects drive the service unmodified; results in reports/conformance.json
	@$(BIN)/python -m tests.conformance.run --python $(PYTHON)

lock: $(STAMP) ## rewrite requirements.lock from what is installed (after a deliberate change of pins)
	@$(BIN)/pip freeze --all --exclude-editable | grep -vE ' @ |^pip==' | sed 's|+cpu$$||' > requirements.lock.new && mv requirements.lock.new requirements.lock

clean: ## remove everything that was made here, the environment too (the data of earlier runs included)
	@rm -rf .venv .actwright runs reports data build dist *.egg-info .pytest_cache .ruff_cache .import_linter_cache .coverage .coverage.*
