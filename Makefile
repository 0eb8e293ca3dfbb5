# Every target works on a fresh machine with Python 3.10+, gcc and make; `make help` lists them.
SHELL := /bin/bash
VENV ?= .venv
PYTHON ?= python3
PY := $(VENV)/bin/python
# A worker a core, from two to four: more would want more memory than most machines have.
WORKERS ?= $(shell cores=$$(nproc 2>/dev/null || echo 2); echo $$((cores < 2 ? 2 : cores > 4 ? 4 : cores)))
# uv installs in a third of pip's time; --compile-bytecode because importing Lightning otherwise takes three times as long.
UV := $(VENV)/bin/uv

.DEFAULT_GOAL := help

$(UV):
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check uv

$(VENV)/.installed: pyproject.toml requirements.lock | $(UV)
	VIRTUAL_ENV=$(abspath $(VENV)) $(UV) pip install --quiet --compile-bytecode -r requirements.lock
	VIRTUAL_ENV=$(abspath $(VENV)) $(UV) pip install --quiet --no-deps -e .
	touch $@

# What the demo and the study need: no Ray, W&B, MLflow or browser.
$(VENV)/.experiments: pyproject.toml requirements.lock | $(UV)
	test -e $(VENV)/.installed || VIRTUAL_ENV=$(abspath $(VENV)) $(UV) pip install --quiet --compile-bytecode -c requirements.lock -e ".[experiments]"
	touch $@

install: $(VENV)/.installed ## make .venv and install everything, locked

study: DIR := runs/study/$(shell date +%Y-%m-%d_%H-%M-%S)
study: install ## all eight families through their whole life at tiny, then the report (about 10 minutes on two cores)
	$(PY) -m experiments.run -m study=tiny hydra.sweep.dir=$(DIR)/lifecycle
	$(PY) -m experiments.run -m study=scratch hydra.sweep.dir=$(DIR)/scratch
	$(PY) -m experiments.report $(DIR) --unit J

bench: install ## what the callback costs, how true a batch's joules are, both beside the peers, and whether steps wait for videos
	VIRTUAL_ENV=$(abspath $(VENV)) $(UV) pip install --quiet -e ".[bench]"
	@# Zeus brings it and does without; where there is no AMD driver it keeps Ray from being imported.
	VIRTUAL_ENV=$(abspath $(VENV)) $(UV) pip uninstall --quiet amdsmi
	$(PY) -m experiments.bench.overhead
	$(PY) -m tests.growth
	$(PY) -m experiments.bench.fidelity
	$(PY) -m experiments.bench.peers
	$(PY) -m experiments.bench.decoding

gpu-evidence: install ## on a machine with a GPU: what it says about the rules of measuring (8 minutes)
	$(PY) -m experiments.bench.gpu_evidence --parts latency,tick,timestamp,samples,lag,bias,sum,sync,fidelity,overhead

gpu-families: install ## on a machine with a GPU: the eight families at small, a minute each
	$(PY) -m experiments.bench.gpu_evidence --parts families --limit 560

demo: $(VENV)/.experiments ## train a small ResNet on real digits and say what it cost
	$(PY) -m experiments.run model=resnet phase=pretrain data=digits scale=tiny

test: install ## run the whole test suite, WORKERS files at a time
	@# A file's tests stay in one process; the slow files are named first in the alphabet, and begin first.
	$(PY) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

# The oldest Python too, if there is one.
LOWEST_PYTHON ?= $(shell python3.10 -c 'import sys; print(sys.executable)' 2>/dev/null || echo $(PYTHON))
LOWEST := .venv-lowest
test-lowest: | $(UV) ## the library at the oldest versions that pyproject.toml allows, in an environment of 6 GB (long, so not in CI)
	$(UV) venv --quiet --allow-existing --python $(LOWEST_PYTHON) $(LOWEST)
	VIRTUAL_ENV=$(abspath $(LOWEST)) $(UV) pip install --quiet --compile-bytecode --upgrade --resolution lowest-direct -e ".[tensorboard,dev]"
	@# Without the study, whose packages ask for a newer Lightning.
	$(LOWEST)/bin/python -m pytest tests/unit --ignore tests/unit/experiments \
	  tests/integration/test_{budget,hparams,metrics,record,restarts,stages,ways_in}.py

test-versions: | $(UV) ## the unit tests over Python 3.10 to 3.14, torch, Lightning and NumPy, each row in an environment of 6 GB (long)
	$(PY) -m tests.versions --uv $(abspath $(UV))

PROGRAMS := .venv-programs
test-programs: | $(UV) ## programs of other people under LIGHTNING_WATT, in an environment of their packages (long, so not in CI)
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(PROGRAMS)
	VIRTUAL_ENV=$(abspath $(PROGRAMS)) $(UV) pip install --quiet --compile-bytecode --upgrade -c requirements.lock --group programs -e .
	$(PROGRAMS)/bin/python -m pytest -rP -m programs tests/programs

lightning-suite: install ## Lightning's own tests with and without us in every Trainer: LIGHTNING=a checkout (1 hour on two cores)
	@test -n "$(LIGHTNING)" || { echo "say LIGHTNING=DIR, a checkout of Lightning's repository" >&2; exit 2; }
	$(PY) -m tests.lightning_suite $(LIGHTNING) --confirm $(SUITE_OPTIONS)

lint: install ## ruff: format and rules
	$(VENV)/bin/ruff format --check . && $(VENV)/bin/ruff check .

types: install ## mypy --strict on the library
	$(VENV)/bin/mypy

check: lint types test ## everything CI would complain about

lock: ## renew requirements.lock (names and versions only; holds no addresses)
	$(UV) pip compile --quiet --universal --python-version 3.10 --extra experiments --extra tasks --extra ray --extra dev --no-header --no-annotate \
	  --no-emit-index-url pyproject.toml -o requirements.lock

clean: ## remove what the other targets made, except runs/
	rm -rf $(VENV) $(LOWEST) $(PROGRAMS) .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage* htmlcov
	find . -name __pycache__ -prune -exec rm -rf {} +

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

.PHONY: gpu-evidence gpu-families install study bench demo test test-lowest test-versions test-programs lightning-suite lint types check lock clean help
