# Each target sets up what it needs in .venv by itself and installs again only when pyproject.toml
# has changed. `make PYTHON=/path/to/python3.12 test` chooses the interpreter (after `make clean`
# if a .venv exists already). Paths are relative, so the checkout may live in any directory.

SHELL := /bin/sh
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?=
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python

# What `pip install -e .[...]` is asked for, per target.
EXTRAS_demo := cli
EXTRAS_test := cli,test
EXTRAS_docs := docs
EXTRAS_check := cli,test,check,docs
EXTRAS_bench := cli,bench

.PHONY: help demo simulate test check format docs bench clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' Makefile

demo: $(VENV)/installed-demo ## Three members on this machine, a failover before your eyes
	@$(BIN)/clusterconsensus demo

simulate: $(VENV)/installed-demo ## Simulated clusters in trouble (SIMULATE="--minutes 30" to choose)
	@$(BIN)/clusterconsensus simulate $(if $(SIMULATE),$(SIMULATE),--seeds 300)

test: $(VENV)/installed-test ## Run all tests (TESTS="-k journal -x" to choose)
	$(RUN) -m pytest $(TESTS)

check: $(VENV)/installed-check ## Linters, format, types, layers and documentation
	$(RUN) -m ruff check .
	$(RUN) -m ruff format --check .
	$(RUN) -m mypy --strict src tests bench examples
	$(BIN)/lint-imports
	$(RUN) -m mkdocs build --strict --quiet

format: $(VENV)/installed-check ## Put the source into the house format
	$(RUN) -m ruff check --fix .
	$(RUN) -m ruff format .

docs: $(VENV)/installed-docs ## Build the documentation into site/
	$(RUN) -m mkdocs build --strict

bench: $(VENV)/installed-bench ## Measure, beside this machine's limits (BENCH=--quick for a short run)
	@$(RUN) -m bench $(BENCH)

clean: ## Remove everything that the targets above made
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	rm -f .coverage .coverage.*
	find src tests bench examples -name __pycache__ -type d -prune -exec rm -rf {} +

# The build backend is installed beside the package instead of being fetched into an isolated
# environment each time: after the first set-up an installation needs no network.
$(VENV)/installed-%: pyproject.toml | $(RUN)
	@echo "Installing clusterconsensus[$(EXTRAS_$*)] into $(VENV) ..." >&2
	@$(RUN) -m pip install --quiet --disable-pip-version-check 'hatchling>=1.27' 'editables>=0.5'
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-build-isolation \
		--editable '.[$(EXTRAS_$*)]'
	@touch $@

# The first of $(PYTHON) or the usual names that is new enough and can make a virtual environment.
$(RUN):
	@found=; old=; bare=; \
	for candidate in $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3.14 python3); do \
		"$$candidate" -c '' 2>/dev/null || continue; \
		if ! "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
			old="$$candidate is $$("$$candidate" -V 2>&1)"; continue; \
		fi; \
		if ! "$$candidate" -c 'import ensurepip, venv' 2>/dev/null; then \
			bare="$$candidate"; continue; \
		fi; \
		found="$$candidate"; break; \
	done; \
	if [ -n "$$found" ]; then \
		"$$found" -m venv $(VENV) || { rm -rf $(VENV); exit 1; }; \
	elif [ -n "$$bare" ]; then \
		echo "$$bare has no venv or ensurepip module. On Debian or Ubuntu: apt install python3-venv" >&2; \
		exit 1; \
	elif [ -n "$$old" ]; then \
		echo "Python 3.11 or newer is needed, but $$old. Try: make PYTHON=/path/to/python3.12" >&2; \
		exit 1; \
	else \
		echo "No Python found$(if $(PYTHON), at $(PYTHON)). Try: make PYTHON=/path/to/python3.12" >&2; \
		exit 1; \
	fi
