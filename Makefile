# `make demo` and `make test` set everything up first; a second run only does what changed.
PYTHON ?= python3
# DALI's build: 13 or 12, for the CUDA version of the GPU's driver; either runs without a GPU
CUDA ?= 13
VENV ?= .venv
BIN = $(VENV)/bin
# RUN=python3: an interpreter with torch, DALI and the other packages, for test-gpu and bench-gpu; nothing is installed
RUN ?=
# more options of test-gpu and bench-gpu, such as "-n 4" and "--limit 9"
OPTIONS ?=
ifeq ($(RUN),)
READY = $(VENV)/.installed
WITH = $(BIN)/python
else
READY = .linked/softfeed
WITH = PYTHONPATH="$(CURDIR)/.linked$${PYTHONPATH:+:$$PYTHONPATH}" $(RUN)
endif
SOURCES = softops pipelines train benchmarks examples tests

.PHONY: demo test test-gpu test-slow check format bench bench-gpu clean

demo: $(VENV)/.installed
	$(BIN)/softfeed demo --output demo-output

# A test that takes ten minutes hangs: its process then says where, and ends; the others are run when its children have
# ended, too.
test: $(VENV)/.installed
	$(BIN)/python -m pytest -n auto -m "not slow" -o faulthandler_timeout=600 -o faulthandler_exit_on_timeout=true

# The tests that need an NVIDIA GPU, one file after the other, so that they do not crowd its memory.
test-gpu: $(READY)
	$(WITH) tests/on_a_gpu.py $(OPTIONS)

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
	@test -n "$(DATA)" || { echo "name an image folder or shard set: make bench DATA=photos/train" >&2; exit 2; }
	$(BIN)/softfeed bench $(DATA) --suite $(SUITE) $(if $(OUTPUT),--output $(OUTPUT))

# all that is worth measuring on a GPU, the same command again goes on; DATA=image folder, RESULTS=folder for results
RESULTS ?= benchmarks/results
bench-gpu: $(READY)
	$(WITH) -m softfeed.benchmarks.gpu_runs $(DATA) --results $(RESULTS) $(OPTIONS)

$(VENV)/.installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("softfeed needs Python 3.10 or newer, %s is %d.%d; try make PYTHON=python3.11" % (sys.executable, *sys.version_info[:2]) if sys.version_info < (3, 10) else 0)'
	@echo "setting up $(VENV); torch and DALI are several gigabytes, so the first time takes minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[cuda$(CUDA),test]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[cuda$(CUDA),test,dev]'
	@touch $@

# the checkout as a package, with the version that is asked of installed ones
.linked/softfeed: pyproject.toml
	@mkdir -p $@ .linked/softfeed.dist-info
	@ln -sfn $(addprefix ../../,softops pipelines train benchmarks) $@
	@sed -n 's/^version = "\(.*\)"/Metadata-Version: 2.1\nName: softfeed\nVersion: \1/p' $< > .linked/softfeed.dist-info/METADATA
	@touch $@

clean:
	rm -rf $(VENV) .linked demo-output *.egg-info .pytest_cache .ruff_cache .hypothesis
