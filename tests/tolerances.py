"""The tolerances of the test suite, each with its reason."""

# Two float64 formulations of one op: rounding of a few thousand terms of size 1.
OP_FLOAT64 = {"rtol": 1e-10, "atol": 1e-11}

# A float32 body against float64: sums of up to 9*C terms of size 1; measured 2e-6.
OP_FLOAT32 = {"rtol": 2e-5, "atol": 2e-5}

# A body in a graph of low precision against float64, as a share of the largest output: data that
# the precision holds exactly, one rounding of the output and some inside.
OP_FLOAT16, OP_BFLOAT16 = 2e-3, 1.6e-2

# A native kernel against float64, as a share of the largest output: float32 sums of up to 9*C
# terms or of a thousand steps; measured 7e-7.
NATIVE_FLOAT32 = 3e-6
# ... with tensors in bfloat16 and float16 at its border: eight and eleven bits an input.
NATIVE_BFLOAT16, NATIVE_FLOAT16 = 3e-2, 4e-3

# Counted against published multiply-adds, relative: they are printed with five digits.
MACS_PURE = 1e-4
# ... and figures of the ptflops tool, which are printed with three.
MACS_PTFLOPS = 1e-3

# A whole network, ONNX Runtime against PyTorch, both float32; measured 1e-6 (tiny) to 4e-6 (base).
NETWORK_FLOAT32 = {"rtol": 0.0, "atol": 2e-5}
# ... under PyTorch's autocast to bfloat16, whose convolutions round to eight bits; measured 1e-2.
NETWORK_BFLOAT16 = {"rtol": 0.0, "atol": 4e-2}
# ... and figures whose counting rule is not stated: the rules in use differ by up to 1 %.
MACS_ANY_RULE = 1e-2

# A whole network in float64, two formulations or two batch sizes: rounding of some hundred layers.
NETWORK_FLOAT64 = {"rtol": 1e-9, "atol": 1e-10}
# What a changed parameter must move the output by, in float64: far above NETWORK_FLOAT64.
NOTICEABLE = 1e-6

# Standard deviation of what a random network adds to an image in 0..1: large enough that a wrong
# network is seen in 8 bits (1/256), small enough that the output stays near the range.
RANDOM_RESIDUAL_STD = (0.01, 0.6)

# A folded network against the original, both float32, outputs of size 1: other roundings of the
# same sums; measured 4e-7 on the tiny networks.
FOLDED_FLOAT32 = {"rtol": 2e-5, "atol": 2e-5}

# Relative RMS of one layer, ONNX Runtime against PyTorch, float32; measured 2e-6, and 7e-5 with a
# mean over height and width in one reduction.
LAYER_FLOAT32 = 1e-5
