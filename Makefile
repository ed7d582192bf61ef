# make run    open infraxa            make test   run the tests
# make check  lint and types         make bench  speed and memory, as ratios
# make attacks  hostile peers, at full size, and a fuzz of every decoder
# make audit-study  how sure audits of answers are, of 3000 honest ones and 300 lies of each kind of four claims:
#                   2 hours, and 12 more for the model of 0.6B; goes on where it was stopped;
#                   STUDY_FLAGS="medium" in minutes, STUDY_FLAGS="long --only 22M"
# make soak   an hour of 20 streams while providers come, go, die and freeze; SOAK_FLAGS="--minutes 5"
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev

.PHONY: run test check bench attacks audit-study soak wheel guide pictures clean

run: $(STAMP)
	@$(BIN)/infraxa

# A file stays with one worker: its tests share an engine. They wait much, so there is one worker more than cores.
# What failed is run once more; why it failed is shown, also when it then passed.
test: $(DEV_STAMP)
	$(BIN)/python -m pytest -n $$(($$(getconf _NPROCESSORS_ONLN) + 1)) --dist loadfile --reruns 1 --rerun-show-tracebacks

check: $(DEV_STAMP) build/dev/infraxa
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p infraxa.app -p infraxa.engine -p infraxa.net -p infraxa.store
	$(BIN)/mypy tests

bench: $(DEV_STAMP)
	$(BIN)/python -m tests.bench

attacks: $(DEV_STAMP)
	$(BIN)/python -m tests.attacks

audit-study: $(DEV_STAMP)
	$(BIN)/python -m tests.bench.audit_study $(or $(STUDY_FLAGS),long) --kept build/audit-study

soak: $(DEV_STAMP)
	$(BIN)/python -m tests.soak $(SOAK_FLAGS)

# Trains the built-in model again, into build/guide: about 35 minutes on two cores. GUIDE_FLAGS=--from-scratch
# forgets the shipped weights. Needs torch (extra `guide`).
guide: $(DEV_STAMP)
	$(BIN)/python -m pip install --quiet --editable ".[guide]"
	$(BIN)/python -m infraxa.engine.guide $(GUIDE_FLAGS)

# The pictures of the README, from the app itself.
pictures: $(DEV_STAMP)
	$(BIN)/python docs/pictures.py

wheel: $(DEV_STAMP)
	$(BIN)/python -m build --wheel

clean:
	rm -rf build dist *.egg-info

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "infraxa needs Python 3.11 or newer: make PYTHON=python3.12 run" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(STAMP): pyproject.toml | $(BIN)/python
	@echo "Installing infraxa into $(VENV). The first time, llama.cpp is compiled: about 4 minutes on two cores."
	$(BIN)/python -m pip install --editable .
	@touch $@

$(DEV_STAMP): pyproject.toml | $(BIN)/python
	@echo "Installing infraxa with its development tools into $(VENV). The first time, llama.cpp is compiled: about 4 minutes on two cores."
	$(BIN)/python -m pip install --editable ".[dev]"
	@touch $@ $(STAMP)

# Type checkers and editors find `infraxa` through this link to the folder itself.
build/dev/infraxa:
	mkdir -p build/dev
	ln -sfn ../.. build/dev/infraxa
