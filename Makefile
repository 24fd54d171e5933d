# Everything that a person or CI needs. Each target sets up what is missing first.
SHELL := /bin/bash
# the interpreter of the environment; without it setup takes 3.11 where the machine has it, else the newest of 3.12 and 3.13
PYTHON ?=
BIN := .venv/bin
STAMP := .venv/.ready
ALL_STAMP := .venv/.all-ready
RECIPE ?= loop
MESSAGES ?= 200000
WORKERS ?= 2
# names of programs of tests/scale; empty: all
SCALE ?=
# tests wait for servers now and then, so more than there are cores; each takes up to 2 GiB
TEST_WORKERS ?= 4
# a worker that dies ends the run with its test's name: pytest-xdist 3.8.0 never ends one whose worker it replaced
DISTRIBUTED = $(BIN)/python -m pytest --dist loadgroup --max-worker-restart 0
PYTEST = $(DISTRIBUTED) --tx "$(TEST_WORKERS)*popen//python=$(BIN)/python -m tests.forked_worker"

# tests start hundreds of processes: what Python compiles is kept (in __pycache__), whatever the shell says; a third of the time of all tests
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help run test coverage smoke unit integration setup setup-all check up console clean lock seeds bench soak faults fuzz conformance scale-test test-pythons changelog freeze-surfaces

help: ## say what each target does
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sort | awk -F':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

run: $(STAMP) ## the whole loop: demonstrations -> data set -> model -> service -> workcells -> runs/latest/report.html (RECIPE=loop)
	@$(BIN)/actwright run $(RECIPE)

test: $(STAMP) ## format, lint, types, import contracts and every test (7 to 15 min on two cores)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@# what cannot be installed here is left out, and its tests are skipped with the reason
	@$(MAKE) --no-print-directory setup-all || echo "setup-all failed (above): tests of what it installs are skipped"
	@mkdir -p reports
	@# types are checked beside the tests, which wait for servers now and then; the contracts are one of the tests
	@# (with room for young objects, which takes a fifth off the time of the checker)
	@NODE_OPTIONS=--max-semi-space-size=256 $(BIN)/pyright > reports/types.txt 2>&1 & types=$$!; trap 'kill $$types 2>/dev/null' EXIT; \
	  $(PYTEST) -m "not soak" --durations=25; tests=$$?; \
	  wait $$types; typed=$$?; tail -n 40 reports/types.txt; exit $$(( tests ? tests : typed ))

coverage: $(STAMP) ## every test, counting the lines that run (a third slower); the table of files at the end
	@rm -f .coverage .coverage.*
	@$(DISTRIBUTED) -n $(TEST_WORKERS) -q -m "not soak" --cov --cov-report=term

smoke: $(STAMP) ## does it answer? commands, and the smallest path from demonstrations to a served decision (60 s)
	@$(BIN)/python -m pytest -q tests/smoke

unit: $(STAMP) ## pure logic, budgets, contracts and frozen surfaces (6 min)
	@$(PYTEST) -q -m "not soak" tests/unit tests/architecture

soak: TEST_WORKERS = 2
soak: $(STAMP) ## the long forms of tests, with the time of each; benchmarks/results/soak.json
	@mkdir -p reports; $(PYTEST) -q -m soak --durations=20 --junitxml=reports/soak.xml tests; tests=$$?; \
	  $(BIN)/python -m tests.soak_report; exit $$tests

integration: $(STAMP) ## the real parts on this machine: simulator, servers, training, faults (8 min)
	@$(PYTEST) -q -m "not soak" tests/integration tests/faults

setup: $(STAMP) ## virtual environment in .venv and the system packages for off-screen rendering
	@echo "ready: $(BIN)/actwright --help"

setup-all: $(ALL_STAMP) ## what setup leaves out: Ray (labelling on a cluster), LIBERO (a second simulator), Kubernetes (extra packages), Chromium
	@bash infra/local/browser.sh

# made once for each lock; the pins of the lock hold
$(ALL_STAMP): $(STAMP)
	@echo "installing Ray, LIBERO and packages for Kubernetes (once, a minute) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation -c requirements.lock --editable '.[ray,libero,kubernetes]' 2>&1 \
	  | { grep -v 'is ignored: it is neither' >&2 || true; }; exit $${PIPESTATUS[0]}
	@touch $@

$(STAMP): requirements.lock pyproject.toml infra/local/setup.sh
	@PYTHON=$(PYTHON) bash infra/local/setup.sh

check: $(STAMP) ## format, lint, types and import contracts (2 min)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/pyright
	@$(BIN)/lint-imports --no-cache

up: $(STAMP) ## Prefect UI, MLflow UI and the champion's policy service on loopback, until Ctrl-C
	@$(BIN)/actwright up

console: $(STAMP) ## build the console's pages again (needs node 20 and npm): flows/web/console -> flows/web/static
	@$(BIN)/python infra/local/build_console.py

seeds: $(STAMP) ## train and evaluate the default recipe with three training seeds; prints the table of the README
	@$(BIN)/actwright seeds $(RECIPE)

bench: $(STAMP) ## every benchmark, each against a named peer; results in benchmarks/results/
	@set -e; for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file; done

faults: $(STAMP) ## every fault against every invariant; prints the table of reports/faults.json
	@rm -f reports/faults.json
	@$(BIN)/python -m pytest -q -n 2 --dist loadgroup --max-worker-restart 0 tests/faults; code=$$?; $(BIN)/python -m tests.faults.verdicts && exit $$code

fuzz: $(STAMP) ## at least 200,000 malformed messages to every endpoint (MESSAGES=200000); results in reports/fuzz.json
	@$(BIN)/python -m tests.faults.fuzz --messages $(MESSAGES)

conformance: $(STAMP) ## public clients drive the service, LeRobot reads and writes our data sets, unmodified; benchmarks/results/conformance.json
	@$(BIN)/python -m tests.conformance.run

scale-test: $(STAMP) ## checks at the size of real work, each a program of tests/scale (SCALE=gate_outcomes for one); benchmarks/results/
	@set -e; for name in $(or $(SCALE),$(patsubst tests/scale/%.py,%,$(filter-out %/__init__.py,$(wildcard tests/scale/*.py)))); do \
	  echo "== tests.scale.$$name"; $(BIN)/python -m tests.scale.$$name; done

test-pythons: ## unit and architecture tests on every supported Python of this machine, each in an environment of its own; benchmarks/results/pythons.json
	@python=$$(bash infra/local/find_python.sh --first) && "$$python" infra/local/test_pythons.py --workers $(WORKERS)

changelog: ## join the fragments of changelog.d/ into CHANGELOG.md
	@$(or $(PYTHON),python3) infra/local/changelog.py

freeze-surfaces: $(STAMP) ## rewrite the frozen lists of options, wire messages, public names and metrics (a deliberate change of one)
	@$(BIN)/python -m tests.architecture.surfaces

lock: $(STAMP) ## rewrite requirements.lock from what is installed, without what only setup-all installs (after a deliberate change of pins; then make test-pythons)
	@$(BIN)/python infra/local/lock.py > requirements.lock.new && mv requirements.lock.new requirements.lock

clean: ## remove everything that was made here, the environment too (the data of earlier runs included)
	@rm -rf .venv .actwright runs reports data build dist *.egg-info .pytest_cache .ruff_cache .import_linter_cache .coverage .coverage.*
