# make demo    swap, train and score offline on the bundled sample corpus
# make test    all tests
# make help    everything else
.DEFAULT_GOAL := help
SHELL := /bin/bash

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

TRAIN_FILE ?= data/sample/train.jsonl
TEST_FILE ?= data/sample/test.jsonl
# The sample's training file says nothing about another test file.
SCORED_WITH = $(if $(filter data/sample/test.jsonl,$(TEST_FILE)),$(TRAIN_FILE),$(filter-out data/sample/%,$(TRAIN_FILE)))
CONFIG ?= accelerate_configs/$(if $(shell command -v nvidia-smi),single_gpu,cpu).yaml
ARGS ?=
DATA ?=
TEXT ?=
RELATED ?=
RECIPE ?= recipes/real_corpus.yaml
FOLDS ?= 0
JOBS ?= 1
WORKERS ?= 2
BASE ?= span
SIZE ?= full
KIND := $(if $(filter span,$(BASE)),,-$(BASE))
MODEL ?= outputs/demo/best
# The workers take one test at a time, so that the order, slowest first, is kept.
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --maxschedchunk 1

# Installed once; again when a requirement changes.
$(BIN)/.installed: requirements.txt requirements-dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $@

.PHONY: help install demo demo-tasks test test-fast lint format train dry-run eval serve doctor verify real-corpus gpu-check \
	gliner clean

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

install: $(BIN)/.installed  ## the virtual environment in .venv

demo: $(BIN)/.installed  ## swap, train and score offline on the bundled sample corpus; BASE=boundary: a GLiNER2.5
	$(BIN)/python scripts/make_starter_pair.py --output_dir outputs/starter$(KIND) --architecture $(BASE)
	$(BIN)/accelerate launch --quiet --config_file $(CONFIG) scripts/train_gliner2_korean_encoder.py recipes/demo.yaml \
		--base_model outputs/starter$(KIND)/base --korean_encoder outputs/starter$(KIND)/korean-encoder \
		--output_dir outputs/demo$(KIND)
	$(BIN)/python scripts/eval.py --model outputs/demo$(KIND)/best --test_file data/sample/test.jsonl \
		--train_file data/sample/train.jsonl --min_f1 0.75

demo-tasks: $(BIN)/.installed  ## the same with classes, relations and structures beside the entities
	$(BIN)/python scripts/make_starter_pair.py --output_dir outputs/starter-tasks --architecture $(BASE) \
		--train_file data/sample/tasks/train.jsonl
	$(BIN)/accelerate launch --quiet --config_file $(CONFIG) scripts/train_gliner2_korean_encoder.py recipes/demo_tasks.yaml
	$(BIN)/python scripts/eval.py --model outputs/demo-tasks/best --test_file data/sample/tasks/test.jsonl \
		--train_file data/sample/tasks/train.jsonl

test: $(BIN)/.installed  ## all tests, two at a time: make test WORKERS=8
	$(PYTEST)

test-fast: $(BIN)/.installed  ## without the slow tests: some minutes
	$(PYTEST) -m "not slow"

lint: $(BIN)/.installed  ## ruff, as CI runs it
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(BIN)/.installed  ## fix what ruff can fix
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

train: $(BIN)/.installed  ## train the published pair: make train TRAIN_FILE=train.jsonl ARGS="--num_train_epochs 20"
	$(BIN)/accelerate launch --quiet --config_file $(CONFIG) scripts/train_gliner2_korean_encoder.py \
		--train_file $(TRAIN_FILE) $(ARGS)

dry-run: $(BIN)/.installed  ## all checks and a plan of time, memory and disk: make dry-run TRAIN_FILE=train.jsonl
	$(BIN)/accelerate launch --quiet --config_file $(CONFIG) scripts/train_gliner2_korean_encoder.py \
		--train_file $(TRAIN_FILE) --dry_run $(ARGS)

eval: $(BIN)/.installed  ## score the latest model of outputs/: make eval TEST_FILE=test.jsonl TRAIN_FILE=train.jsonl
	$(BIN)/python scripts/eval.py --test_file $(TEST_FILE) $(if $(SCORED_WITH),--train_file $(SCORED_WITH)) $(ARGS)

serve: $(BIN)/.installed  ## the page and service of a model: make serve MODEL=outputs/medical/best
	$(BIN)/pip install --quiet --disable-pip-version-check -e .[demo]
	$(BIN)/python scripts/demo.py --model $(MODEL) $(ARGS)

doctor: $(BIN)/.installed  ## look at a corpus before training: make doctor DATA=train.jsonl
	@test -n "$(DATA)" || { echo "say which documents: make doctor DATA=train.jsonl"; exit 2; }
	$(BIN)/python scripts/doctor.py --train_file $(DATA) $(ARGS)

verify: $(BIN)/.installed  ## judge the encoder swap: every check, on your --data_file
	$(BIN)/python scripts/verify_encoder_swap.py $(ARGS)

real-corpus: $(BIN)/.installed  ## everything from nothing on your documents: make real-corpus DATA=train.jsonl TEXT="a.txt"
	@test -n "$(DATA)" || { echo "say which documents: make real-corpus DATA=train.jsonl"; exit 2; }
	$(BIN)/python scripts/cross_validate.py $(RECIPE) --train_file $(DATA) $(if $(TEXT),--text_file $(TEXT)) \
		$(if $(RELATED),--related_file $(RELATED)) --only $(FOLDS) --jobs $(JOBS)

gpu-check: $(BIN)/.installed  ## what only a GPU can show, in eight minutes; a rehearsal: make gpu-check SIZE=tiny
	$(BIN)/python benchmarks/gpu_check.py --size $(SIZE) $(ARGS)

gliner: $(BIN)/.installed  ## the optional package for GLiNER v1 models in eval.py --compare
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps gliner==0.2.29  # its bound on transformers is dated

clean:  ## remove what runs made, and the virtual environment
	rm -rf outputs $(VENV) build *.egg-info .pytest_cache .ruff_cache
