# `make table2`, `make all` and `make test` do everything.  They build the environment in .venv first.
VENV   := .venv
PYTHON ?= python3
BIN    := $(VENV)/bin

.PHONY: env table2 all test test-fast drift lint clean

env: $(VENV)/installed

$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "varient needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --requirement requirements.lock
	$(BIN)/pip install --quiet --no-deps --editable .
	touch $@

table2: env
	PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --cores all --workflow-profile workflow/profiles/local results/table2.csv

all: env
	PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --cores all --workflow-profile workflow/profiles/local all

test: env
	$(BIN)/ruff check .
	$(BIN)/python -m pytest

test-fast: env
	$(BIN)/python -m pytest -m "not slow"

drift: env
	$(BIN)/varient drift

lint: env
	$(BIN)/ruff check .
	$(BIN)/snakefmt --check Snakefile workflow/rules
	PATH="$(CURDIR)/$(BIN):$$PATH" snakemake --lint

clean:
	rm -rf runs .snakemake
