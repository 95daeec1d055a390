# `make table2`, `make all` and `make test` do everything.  They build the environment in .venv first.
VENV   := .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
# Most tests use one core; a file's tests stay together, because they share what is costly to make.
PYTEST := $(BIN)/python -m pytest
SPREAD := --numprocesses auto --maxprocesses 4 --dist loadfile
FAST   := $(PYTEST) -m "not slow and not gpu" $(SPREAD)

.PHONY: env table2 all further test test-fast drift lint clean

env: $(VENV)/installed

$(VENV)/installed: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "varient needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	rm -rf varient.egg-info  # of an installation by setuptools: its entry points would be found first
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

table2: env
	$(BIN)/python -m snakemake --cores all --workflow-profile workflow/profiles/local results/table2.csv

all: env
	$(BIN)/python -m snakemake --cores all --workflow-profile workflow/profiles/local all

further: env
	$(BIN)/python -m snakemake --cores all --workflow-profile workflow/profiles/local results/table2.csv results/ablations.md results/claims.md \
		--configfile workflow/config/digits.yaml workflow/config/digits-further.yaml

test: env
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/mypy
	$(FAST)
	$(PYTEST) -m "slow and not gpu and not all_cores" $(SPREAD)
	$(PYTEST) -m "all_cores"
	$(PYTEST) -m gpu  # in one process; without a GPU it skips them all

test-fast: env
	$(FAST)

drift: env
	$(BIN)/python -m varient drift

lint: env
	$(BIN)/ruff check .
	$(BIN)/python -m snakefmt --check Snakefile workflow/rules
	$(BIN)/python -m snakemake --lint
	$(BIN)/lint-imports
	$(BIN)/mypy

clean:
	rm -rf runs .snakemake
