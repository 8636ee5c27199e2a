# `make demo` and `make test` set everything up first; a second run only does what changed.
PYTHON ?= python3
# DALI's build: 13 or 12, for the CUDA version of the GPU's driver; either runs without a GPU
CUDA ?= 13
VENV ?= .venv
BIN = $(VENV)/bin
SOURCES = softops pipelines train benchmarks examples tests

.PHONY: demo test test-gpu test-slow check format bench bench-gpu clean

demo: $(VENV)/.installed
	$(BIN)/softfeed demo --output demo-output

test: $(VENV)/.installed
	$(BIN)/python -m pytest -n auto -m "not slow"

# the tests that need an NVIDIA GPU, one process, so that they do not crowd its memory
test-gpu: $(VENV)/.installed
	$(BIN)/python -m pytest -m gpu

test-slow: $(VENV)/.installed
	$(BIN)/python -m pytest -m slow

check: $(VENV)/.installed-dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

# DATA=image folder or shard set; SUITE=steps, operations, peers, storage, scaling or memory; OUTPUT=JSON file (optional)
SUITE ?= steps
bench: $(VENV)/.installed
	$(BIN)/softfeed bench $(DATA) --suite $(SUITE) $(if $(OUTPUT),--output $(OUTPUT))

# all that needs a GPU to be measured; DATA=image folder, RESULTS=folder for the JSON files and charts
RESULTS ?= benchmarks/results
bench-gpu: test-gpu
	$(BIN)/python -m softfeed.benchmarks.gpu_runs $(DATA) --results $(RESULTS)
	$(BIN)/softfeed tune $(DATA) --batch-size 256 --seconds 180

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("softfeed needs Python 3.10 or newer, %s is %d.%d; try make PYTHON=python3.11" % (sys.executable, *sys.version_info[:2]) if sys.version_info < (3, 10) else 0)'
	@echo "setting up $(VENV); torch and DALI are several gigabytes, so the first time takes minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[cuda$(CUDA),test]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[cuda$(CUDA),test,dev]'
	@touch $@

clean:
	rm -rf $(VENV) demo-output *.egg-info .pytest_cache .ruff_cache .hypothesis
