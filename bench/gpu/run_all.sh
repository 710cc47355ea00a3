#!/usr/bin/env bash
# Everything that needs a GPU, in at most nine minutes: builds the CUDA kernels for it, compares them
# and whole networks with float64, times both, and asks the profilers why.
#
#   bench/gpu/run_all.sh [--out FOLDER] [--only STEP]... [--dry-run]
#
# Needs Python with torch, numpy, onnx and pytest, and nvcc; nothing is installed. See run_all.py.
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2
PYTHONPATH=src:. exec "${PYTHON:-python3}" bench/gpu/run_all.py "$@"
