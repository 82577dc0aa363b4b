# make demo | make down | make test | make bench NAME=features     (make help lists them all)
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
HOME_DIR ?= .corkboard
DATA   ?= demo-world
NAME   ?= features
WORKERS ?= 2

export PIP_DISABLE_PIP_VERSION_CHECK = 1
export BENTOML_DO_NOT_TRACK = True
export MLFLOW_DISABLE_TELEMETRY = true
export DO_NOT_TRACK = true
# Threads that wait for each other sleep: spinning costs a busy machine several times the CPU.
export OMP_WAIT_POLICY ?= PASSIVE

# What is not compiled beforehand: it is when somebody imports it. pip would compile all, one file after another.
SELDOM := /tests?/|/transformers/models/|/torch/_inductor/|/torch/testing/|/databricks/|/mypyc?/|/pip/|/setuptools/|/_pytest/
SELDOM := $(SELDOM)|/torch_geometric/|/sentence_transformers/|/networkx/|/dask/|/fontTools/|/schemathesis/|/hypothesis/|/optuna/

# uv needs a tenth of pip's time. It is told which indexes, folders of wheels and certificates pip knows; where that
# does not do, pip installs.
PIP_SAYS = $$($(BIN)/pip config list | sed -nE "s/^[^=]*\.$(1)='(.*)'$$/\1/p" | head -1 | sed -E 's/(\\n| )+/ /g; s/^ //')
UV := UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$(call PIP_SAYS,index-url)}" \
  UV_EXTRA_INDEX_URL="$${UV_EXTRA_INDEX_URL:-$(call PIP_SAYS,extra-index-url)}" \
  UV_FIND_LINKS="$${UV_FIND_LINKS:-$$(echo "$(call PIP_SAYS,find-links)" | tr ' ' ,)}" \
  SSL_CERT_FILE="$${SSL_CERT_FILE:-$(call PIP_SAYS,cert)}" \
  UV_INDEX_STRATEGY=unsafe-best-match $(BIN)/uv pip install --quiet --no-deps --python

.PHONY: help demo up down status test lint bench lock milvus-server rectools clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

$(VENV)/.installed: requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info[:2] == (3, 11) else "Corkboard needs Python 3.11, this is %d.%d: make PYTHON=/path/to/python3.11" % sys.version_info[:2])'
	$(PYTHON) -m venv $(VENV)
	@echo "Installing $$(grep -c == requirements.lock) pinned packages (a minute or two)"
	@$(BIN)/pip install --quiet --no-compile --no-deps "$$(grep ^uv== requirements.lock)"
	@$(UV) $(BIN)/python --requirement requirements.lock || { echo "uv could not: pip installs" && \
	  $(BIN)/pip install --quiet --no-compile --no-deps --requirement requirements.lock; } || { \
	  echo; echo "If pip found no torch +cpu build: let it see PyTorch's CPU wheels, by PIP_EXTRA_INDEX_URL=<their index>"; \
	  echo "or PIP_FIND_LINKS=<a folder that holds the wheel>, and run make again. The CUDA build is never installed."; exit 1; }
	@$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m compileall -q -j 0 -x '$(SELDOM)' $(VENV)/lib >/dev/null || true
	@touch $@

demo: $(VENV)/.installed ## the whole job, services left running (DATA=complete-journey for real data)
	$(BIN)/corkboard --home $(HOME_DIR) demo --data $(DATA)

up: $(VENV)/.installed ## start the services of a home that has a champion
	$(BIN)/corkboard --home $(HOME_DIR) up

down: ## stop what demo or up started
	@test -x $(BIN)/corkboard && $(BIN)/corkboard --home $(HOME_DIR) down || echo "nothing installed, nothing running"

status: $(VENV)/.installed ## what runs, where, which release
	$(BIN)/corkboard --home $(HOME_DIR) status

test: $(VENV)/.installed ## the tests, in WORKERS=2 processes (PYTEST_ARGS=... to choose)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: $(VENV)/.installed ## ruff
	$(BIN)/ruff check . && $(BIN)/ruff format --check --diff .

bench: $(VENV)/.installed ## a benchmark: NAME=features
	$(BIN)/python -m tests.benchmarks.$(NAME) $(ARGS)

lock: $(VENV)/.installed ## resolve pyproject.toml into requirements.lock (WHEELS=folder with torch's CPU wheel)
	$(BIN)/uv pip compile pyproject.toml --all-extras --python-version 3.11 $(if $(WHEELS),--find-links $(WHEELS)) \
	  --no-emit-find-links --no-annotate --no-header --upgrade --output-file requirements.lock

milvus-server: .milvus-venv/.installed ## the real Milvus server, in a venv of its own, for the contract tests

.milvus-venv/.installed:
	$(PYTHON) -m venv .milvus-venv
	.milvus-venv/bin/pip install --quiet --no-compile --no-deps 'milvus==2.3.5' 'setuptools<80'
	@touch $@

rectools: .rectools-venv/.installed ## RecTools, whose SASRec `evaluate` compares with, in a venv of its own (it wants numpy < 2)

.rectools-venv/.installed: infra/rectools.lock $(VENV)/.installed
	$(PYTHON) -m venv .rectools-venv
	@$(UV) .rectools-venv/bin/python --requirement infra/rectools.lock || { echo "uv could not: pip installs" && \
	  .rectools-venv/bin/pip install --quiet --no-compile --no-deps --requirement infra/rectools.lock; }
	@touch $@

clean: down ## remove the home and the environments
	rm -rf $(HOME_DIR) $(VENV) .milvus-venv .rectools-venv
