# `make demo` and `make test` set up their own virtual environment; Python 3.10 or newer and make
# are enough. CPU-only machines save several GB with
#   make demo TORCH_INDEX="--extra-index-url https://download.pytorch.org/whl/cpu"
PYTHON ?= python3
VENV ?= .venv
TORCH_INDEX ?=
DEMO ?= demo
# What the tests use: the first of these sets of extras that can be installed on this machine.
EXTRAS ?= dev,rtx,openvino dev,openvino dev,rtx dev

BIN = $(VENV)/bin
NATIVE = $(shell find plugins/csrc tests/plugins -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh')
PIP = $(BIN)/pip install --quiet --disable-pip-version-check
DEMO_READY = $(VENV)/.ready-for-demo
TESTS_READY = $(VENV)/.ready-for-tests
KERNELS = $(VENV)/.native-kernels

# Seconds of each fuzz test.
FUZZ_SECONDS ?= 600
.PHONY: demo test matrix fuzz test-all lint style types

$(DEMO_READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH_INDEX) -r constraints.txt
	$(PIP) -e ".[dev]"
	touch $@

$(TESTS_READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH_INDEX) -r constraints.txt
	@for extras in $(EXTRAS); do \
		echo "installing the project with $$extras"; \
		if $(PIP) -e ".[$$extras]"; then exit 0; fi; \
		echo "$$extras cannot be installed here"; \
	done; exit 1
	@# Without its dependencies: torchvision would replace torch, and is not needed.
	@$(PIP) --no-deps "spandrel>=0.4.2,<0.5" einops || \
		echo "spandrel cannot be installed here: its tests will be skipped"
	touch $(DEMO_READY) $@

# The install compiled the kernels before OpenVINO was there, whose extension is made of them too.
$(KERNELS): $(TESTS_READY) $(shell find plugins/csrc -type f)
	$(BIN)/deblur-export plugins build || echo "no native kernels: their tests will be skipped"
	touch $@

# Blur photos, export M2AENet with its demo weights, prove it equal to PyTorch, restore the photos.
demo: $(DEMO_READY)
	$(BIN)/python bench/photos.py $(DEMO)
	$(BIN)/deblur-export onnx --model m2aenet --weights demo --local -o $(DEMO)/m2aenet.onnx
	$(BIN)/deblur-export verify $(DEMO)/m2aenet.onnx --images $(DEMO)/blurred --html $(DEMO)/parity.html
	$(BIN)/deblur-export run $(DEMO)/m2aenet.onnx $(DEMO)/blurred/* --mask --overwrite -o $(DEMO)/restored
	$(BIN)/python bench/demo_picture.py $(DEMO)

# worksteal: neighbouring tests share exports and caches, and so stay in one process.
test: $(KERNELS)
	$(BIN)/python -m pytest -n 2 --dist worksteal

# Files that other tools edited, and the oldest runtimes.
matrix: $(KERNELS)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m matrix

# Hostile checkpoints, ONNX files, manifests and photos.
fuzz: $(KERNELS)
	DEBLUR_FUZZ_SECONDS=$(FUZZ_SECONDS) $(BIN)/python -m pytest -n 2 --dist worksteal -m fuzz

# The slow tests too: matrices, installs, long runs.
test-all: $(KERNELS)
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not gpu"

lint: style types

style: $(DEMO_READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(NATIVE)

types: $(DEMO_READY)
	$(BIN)/mypy
