# Both commands set up their own virtual environment; nothing else has to be installed first but
# Python 3.10 or newer and make.
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= dev
# CPU-only machines save several GB with
#   make demo TORCH_INDEX="--extra-index-url https://download.pytorch.org/whl/cpu"
TORCH_INDEX ?=
DEMO ?= demo

BIN = $(VENV)/bin
READY = $(VENV)/.installed-$(EXTRAS)
NATIVE = $(shell find plugins/csrc tests/plugins -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')

.PHONY: demo test test-all lint

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check $(TORCH_INDEX) -r constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[$(EXTRAS)]"
	touch $@

# Blur photos, export M2AENet with its demo weights, prove it equal to PyTorch, restore the photos.
demo: $(READY)
	$(BIN)/python bench/photos.py $(DEMO)
	$(BIN)/deblur-export onnx --model m2aenet --weights demo --local -o $(DEMO)/m2aenet.onnx
	$(BIN)/deblur-export verify $(DEMO)/m2aenet.onnx --images $(DEMO)/blurred --html $(DEMO)/parity.html
	$(BIN)/deblur-export run $(DEMO)/m2aenet.onnx $(DEMO)/blurred/* --mask -o $(DEMO)/restored
	$(BIN)/python bench/demo_picture.py $(DEMO)

# worksteal: neighbouring tests share exports and caches, and so stay in one process.
test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal

# Also the slow tests: the paper variant of M2AENet, long runs.
test-all: $(READY)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not gpu"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(NATIVE)
	$(BIN)/mypy
