# featcache: `make help` lists what can be made.
# Everything runs in .venv, which `make setup` fills; nothing has to be installed before.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RECIPE ?= pipelines/quickstart.toml
SAMPLE := data/digits
# Two processes, whatever the cores: each builds networks, which take a gigabyte or two. What a file's tests
# share is made once, so each file goes to one of them.
PARALLEL := -n 2 --dist loadfile
# Any further words for the command, e.g. make heads ARGS="--head LogisticRegression"
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup sample features heads sweep finetune test test-all lint format bench clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'
	@echo "  RECIPE=FILE chooses the recipe (now $(RECIPE)), ARGS=... goes to the command."

$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

setup: $(VENV)/.installed  ## install featcache and its tools into .venv

# the folder is renamed into place when it is whole, so that its presence means it is
$(SAMPLE): | $(VENV)/.installed
	$(BIN)/featcache sample digits $(SAMPLE)

sample: $(SAMPLE)  ## write the sample photos (scikit-learn's digits) to data/digits

features: $(SAMPLE)  ## stage 1: photos -> features.h5
	$(BIN)/featcache features $(RECIPE) $(ARGS)

heads: $(SAMPLE)  ## stage 2: features.h5 -> trained heads, scored
	$(BIN)/featcache heads $(RECIPE) $(ARGS)

sweep: $(SAMPLE)  ## stage 2b: features.h5 -> the best of many heads; run again, it goes on
	$(BIN)/featcache sweep $(RECIPE) $(ARGS)

finetune: $(SAMPLE)  ## stage 3: the base's top layers, trained from features cached below them
	$(BIN)/featcache finetune $(RECIPE) $(ARGS)

test: $(VENV)/.installed  ## run the tests
	$(BIN)/python -m pytest $(PARALLEL)

test-all: $(VENV)/.installed  ## run the tests, the slow ones too
	$(BIN)/python -m pytest $(PARALLEL) -m ''

lint: $(VENV)/.installed  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed  ## put the code into the house's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed  ## measure speed, memory and start-up beside what is run otherwise (ARGS=--quick)
	$(BIN)/python -m benchmarks.extraction $(ARGS)
	$(BIN)/python -m benchmarks.heads $(filter --quick,$(ARGS))
	$(BIN)/python -m benchmarks.finetuning $(filter --quick,$(ARGS))
	$(BIN)/python -m benchmarks.streaming $(filter --quick,$(ARGS))
	$(BIN)/python -m benchmarks.memory $(filter --quick,$(ARGS))
	$(BIN)/python -m benchmarks.startup $(filter --quick,$(ARGS))
	$(BIN)/python -m benchmarks.reading $(filter --quick,$(ARGS))
	$(BIN)/python -m benchmarks.serving $(filter --quick,$(ARGS))

clean:  ## remove what was made here: .venv, sample, runs (the feature cache stays)
	rm -rf $(VENV) $(SAMPLE) runs .pytest_cache .mypy_cache .ruff_cache .hypothesis
