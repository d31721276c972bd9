PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
# The scripts in benchmarks/ that `make bench` runs, one after another.
BENCHMARKS := render plan resume start_up jobs asking downloads

.DEFAULT_GOAL := help
.PHONY: help setup demo check lint types layers test official sim sim-long crash proof bench figures profile fmt diagram picture clean

help: ## Show this help
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.developer ## Install everything into .venv, pinned by constraints.txt

demo: $(VENV)/.user ## Install, then run manifests/demo.yaml without a key: real videos, a sheet, a summary
	$(BIN)/fal-batch run manifests/demo.yaml --local
	$(BIN)/fal-batch export manifests/demo.yaml --local

check: lint types layers test ## Everything that must hold before a change goes in

lint: $(VENV)/.developer ## Style and likely mistakes (ruff)
	$(BIN)/ruff check batch tests benchmarks
	$(BIN)/ruff format --check batch tests benchmarks

types: $(VENV)/.developer ## Types, strictly (mypy)
	$(BIN)/mypy

layers: $(VENV)/.developer ## Imports go down the line only (import-linter)
	$(BIN)/lint-imports

# Where the environment says that no compiled file is to be kept, every one of the hundreds of programs that the tests start
# would compile this one again.
test: $(VENV)/.developer node_modules/.installed ## Install, then run all tests
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n auto --dist worksteal

official: $(VENV)/.developer node_modules/.installed ## Run fal's own clients against the local queue and list what they sent
	$(BIN)/python -m pytest tests/official -rP

sim: $(VENV)/.developer ## Play SEEDS nights that go wrong on a virtual clock (default 300), or replay one with SEED=
	cd tests && PYTHONPATH=.. ../$(BIN)/python -m simulation $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),300) --first $(or $(FIRST),0))

sim-long: ## The same for a long evening: SEEDS=10000, and a crash before every effect of EVERY=30 of them
	$(MAKE) sim SEEDS=$(or $(SEEDS),10000)
	cd tests && PYTHONPATH=.. ../$(BIN)/python -m simulation --every-effect --seeds $(or $(EVERY),30)

crash: $(VENV)/.developer ## Kill a real run KILLS times (default 20) and at every commit; cut the power at every effect
	$(BIN)/python tests/kill_loop.py --kills $(or $(KILLS),20)
	$(BIN)/python tests/kill_steps.py
	cd tests && PYTHONPATH=.. ../$(BIN)/python -m power_loss --seeds $(or $(SEEDS),300)

proof: $(VENV)/.developer node_modules/.installed ## One sheet under one fault plan (SEED=7, ROWS=200) through both official clients and fal-batch
	$(BIN)/python benchmarks/proof/proof.py --seed $(or $(SEED),7) --rows $(or $(ROWS),200)

bench: $(VENV)/.developer ## Measure side by side with what people use today; ONLY=name runs one. No test: it says, it does not judge
	@for name in $(or $(ONLY),$(BENCHMARKS)); do \
	  echo "--- $$name"; PYTHONPATH=. $(BIN)/python benchmarks/$$name.py || exit; \
	done

figures: $(VENV)/.developer ## Put what `make bench` measured last into the README
	PYTHONPATH=. $(BIN)/python benchmarks/in_readme.py

profile: $(VENV)/.developer ## Where a run of JOBS (default 2,000) spends its CPU, by part
	PYTHONPATH=. $(BIN)/python benchmarks/profile_run.py --jobs $(or $(JOBS),2000)

fmt: $(VENV)/.developer ## Format the code
	$(BIN)/ruff check --fix batch tests benchmarks
	$(BIN)/ruff format batch tests benchmarks

diagram: $(VENV)/.developer ## Put the state diagram, made from the transition table, into the README
	$(BIN)/python -m tests.readme_diagram

picture: demo ## Make the pictures in the README from what the demonstration left (one needs Chromium)
	$(BIN)/python -m tests.readme_picture
	$(BIN)/python -m tests.readme_gallery

clean: ## Remove what was installed and built, but never state/: it may hold what was paid for
	rm -rf $(VENV) node_modules build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info
	find batch tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Python 3.11 or newer is needed; name one with: make PYTHON=python3.12 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.user: $(VENV)/pyvenv.cfg pyproject.toml constraints.txt
	$(PIP) install -c constraints.txt -e .
	@touch $@

$(VENV)/.developer: $(VENV)/pyvenv.cfg pyproject.toml constraints.txt
	$(PIP) install -c constraints.txt -e ".[all,dev]"
	@touch $@ $(VENV)/.user

# Versions are exact in package.json, so there is no lock file. What is missing here is missing to the tests that need it:
# they say so, and fail on CI.
node_modules/.installed: package.json
	@if ! command -v node >/dev/null || ! command -v npm >/dev/null; then \
	  echo "node and npm are not here: fal's JavaScript client is left out"; \
	elif npm install --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel=error; then \
	  touch $@; \
	else \
	  echo "npm could not install fal's JavaScript client: it is left out"; \
	fi
