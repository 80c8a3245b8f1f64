# make quickstart and make test need Python ≥ 3.10 and nothing else: they build .venv once and install into it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed
DOCS := $(VENV)/docs-installed
MINUTES ?= 10
BENCH ?= selectors iterit learner

.PHONY: quickstart test lint docs bench clean faults fuzz audit gpu-check

quickstart: $(STAMP)  ## the whole loop on this machine, offline: choose, finetune, evaluate, beside random choice
	$(BIN)/python -m dsel.run -m experiments=quickstart sweeps=quickstart

test: $(STAMP)  ## everything but the tests marked slow (make test ARGS='-m slow' runs those), on up to 8 cores
	$(BIN)/python -m pytest --numprocesses logical --maxprocesses 8 --dist worksteal $(ARGS)

faults: $(STAMP)  ## every fault into real runs: kills, damaged files, full disks, races; writes docs/faults.md
	$(BIN)/python -m tests.faults $(ARGS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(DOCS)  ## the site of docs/, into build/docs; a broken link ends it
	$(BIN)/python .ci/options.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --quiet --strict --config-file .ci/mkdocs.yml

fuzz: $(STAMP)  ## make fuzz MINUTES=10: inputs that nobody thought of, for readers, records, reports and compare
	$(BIN)/python -m tests.faults.fuzz --minutes $(MINUTES) $(ARGS)

audit: $(STAMP)  ## known vulnerabilities of what is installed, where the service that knows them can be reached
	$(BIN)/python .ci/audit.py

bench: $(STAMP)  ## make bench BENCH=learner ARGS='--help'
	for name in $(BENCH); do $(BIN)/python -m tests.bench.bench_$$name $(ARGS) || exit 1; done

gpu-check: $(STAMP)  ## whether all runs on this machine's GPU, and how fast: a table in under 20 minutes, offline
	$(BIN)/python -m tests.gpu $(ARGS)

$(STAMP): pyproject.toml .ci/constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("dsel needs Python 3.10 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 10) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint .ci/constraints.txt --editable '.[dev]'
	touch $(STAMP)

$(DOCS): $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint .ci/constraints.txt --editable '.[docs]'
	touch $(DOCS)

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .mypy_cache
