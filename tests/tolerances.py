"""The tolerances of the test suite, each with its reason."""

# Two float64 formulations of one op: rounding of a few thousand terms of size 1.
OP_FLOAT64 = {"rtol": 1e-10, "atol": 1e-11}

# A float32 body against float64: sums of up to 9*C terms of size 1; measured 2e-6.
OP_FLOAT32 = {"rtol": 2e-5, "atol": 2e-5}

# Counted against published multiply-adds, relative: they are printed with five digits.
MACS_PURE = 1e-4
# ... and figures of the ptflops tool, which are printed with three.
MACS_PTFLOPS = 1e-3
