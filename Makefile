# The environment is a venv: requirements*.in say what is used and why, constraints.txt pins every version.
VENV := .venv
BIN := $(VENV)/bin
CONFIG ?= config/config.yaml
ARGS ?=
FAULTS ?=
EXPERIMENT = $(shell sed -n 's/^experiment: *//p' $(CONFIG))
SNAKEMAKE = $(BIN)/snakemake --cores all --configfile $(CONFIG) $(ARGS)
PYTEST = OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile

PAIR ?= test1
CHROMIUM ?= chromium

.PHONY: help run figures report screenshot peers test test-fast test-slurm test-faults lint bench

help:  ## List these commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 13
	@echo 'All but peers, the tests, lint and bench take CONFIG=FILE (default: $(CONFIG)) and ARGS="further arguments of snakemake"'

run: $(VENV)/installed  ## Run the workflow: Table 2.1 and all figures
	$(SNAKEMAKE) --resources gpu=1

figures: $(VENV)/installed  ## Redraw the figures from the tables of the last run
	$(SNAKEMAKE) --resources gpu=1 -- figures

report: $(VENV)/installed  ## Write results/<experiment>/report.html about the last run
	$(SNAKEMAKE) --report results/$(EXPERIMENT)/report.html --report-html-stylesheet-path workflow/report/report.css

screenshot:  ## Take docs/images/viewer.png of the viewer of PAIR (default: test1) with Chromium
	$(CHROMIUM) --headless --no-sandbox --use-gl=angle --use-angle=swiftshader --enable-unsafe-swiftshader --hide-scrollbars \
		--window-size=1400,760 --virtual-time-budget=20000 --screenshot=docs/images/viewer.png \
		"file://$(CURDIR)/results/$(EXPERIMENT)/viewers/$(PAIR).html"

peers: $(VENV)/installed  ## Install the packages of the methods in config/peers.yaml
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-peers.in -c constraints.txt -c constraints-peers.txt

test: $(VENV)/installed  ## Run the tests
	$(PYTEST)

test-fast: $(VENV)/installed  ## Run the tests that are not marked slow, in under 4 minutes on two cores
	$(PYTEST) -m 'not slow'

test-slurm: $(VENV)/installed  ## Run the tests of profiles/slurm on a Slurm started here (root; Debian or Ubuntu); 15 minutes
	which slurmctld slurmd sbatch munged > /dev/null || { apt-get -qq update && \
		apt-get -qq install -y --no-install-recommends slurmctld slurmd slurm-client munge > /dev/null; }
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-slurm.in -c constraints.txt -c constraints-slurm.txt
	TEST_SLURM=1 $(BIN)/pytest tests/slurm

test-faults: $(VENV)/installed  ## Kill jobs, fill disks, damage files: reruns have to end alike. FAULTS="arguments of tests/faults/run.py"
	$(BIN)/python tests/faults/run.py $(FAULTS)

lint: $(VENV)/installed  ## Check format, style and types of code and workflow
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile workflow
	$(BIN)/mypy
	$(BIN)/snakemake --lint

bench: $(VENV)/installed  ## Measure speed and memory beside the direct ways: results/benchmarks/*.csv
	@for script in $(filter-out %/harness.py,$(wildcard benchmarks/*.py)); do PYTHONPATH=workflow/scripts:benchmarks:tests $(BIN)/python $$script || exit; done

$(VENV)/installed: pyproject.toml requirements.in requirements-workflow.in requirements-dev.in constraints.txt
	python3 -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]' -c constraints.txt
	touch $@
