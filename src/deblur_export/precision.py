"""The number formats in which a file or an engine computes, one record each.

Every verb, manifest and report uses the same names: fp32, fp16, bf16, int8. Names that a backend
uses are in the file of that backend.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, get_args

PrecisionName = Literal["fp32", "fp16", "bf16", "int8"]
# Precisions of a whole graph; int8 is expressed by QDQ pairs around convolutions.
GraphPrecision = Literal["fp32", "fp16", "bf16"]
# Precisions of an engine; "int8+fp16": what is not int8 is in float16.
EnginePrecision = Literal["fp32", "fp16", "bf16", "int8", "int8+fp16", "int8+bf16"]
GRAPH_PRECISIONS: tuple[GraphPrecision, ...] = get_args(GraphPrecision)


@dataclass(frozen=True)
class Tolerances:
    """The tolerances of a file, compared with its PyTorch network in float32.

    Attributes:
        max_abs: largest absolute error of a pixel, for images in 0..1.
        layer_rms_rel: RMS of the error of a layer, divided by the RMS of the layer.
        psnr: minimum PSNR in dB; 0 for no bound.
        flips: fraction of the entries of one decision that may be flipped.
        flip_distance: largest distance of the score of a flipped entry from the threshold of its
            decision; 0 for the bound of the decision itself, which is for float32.
    """

    max_abs: float
    layer_rms_rel: float
    psnr: float = 0.0
    flips: float = 0.0
    flip_distance: float = 0.0

    def as_dict(self) -> dict[str, float]:
        """The bounds that are set, by name, for reports."""
        return {name: bound for name, bound in asdict(self).items() if bound}


@dataclass(frozen=True)
class Precision:
    """One number format.

    Attributes:
        name: its name for users.
        dtype: its name in NumPy, ml_dtypes and PyTorch.
        onnx: its name among ONNX's types.
        digits: significant binary digits, including the implicit one.
        largest: the largest finite number.
        min_power: the smallest normal number is 2 to the power of this.
        opset: the oldest ONNX opset in which convolutions and similar operators support it.
        timed: whether `bench` measures it, because processors have instructions for it.
        tensorrt: its name among TensorRT's types.
        rtx_since: the oldest compute capability on which TensorRT for RTX computes in it, according
            to the "Support Matrix" of its documentation.
        inspector: regular expression for its spelling in TensorRT's engine inspector.
        tolerances: those of `verify`.
    """

    name: PrecisionName
    dtype: str
    onnx: str
    digits: int
    largest: float
    min_power: int
    opset: int
    timed: bool
    tensorrt: str
    rtx_since: float
    inspector: str
    tolerances: Tolerances

    @property
    def min_subnormal_power(self) -> int:
        """The smallest number above 0 is 2 to the power of this."""
        return self.min_power - self.digits + 1

    @property
    def narrow(self) -> bool:
        """Whether values of a float32 graph may exceed its range."""
        return self.largest < FP32.largest / 2


FP32 = Precision(
    name="fp32",
    dtype="float32",
    onnx="FLOAT",
    digits=24,
    largest=float.fromhex("0x1.fffffep127"),
    min_power=-126,
    opset=1,
    timed=True,
    tensorrt="FLOAT",
    rtx_since=7.5,
    inspector=r"float|fp32",
    # float32 compared with float32: rounding in some hundred layers; the networks stay below 1e-5.
    tolerances=Tolerances(max_abs=1e-4, layer_rms_rel=1e-4, flips=1e-3),
)
# A graph in low precision compared with PyTorch in float32: eleven and eight binary digits, some
# hundred layers. The tiny networks with random weights give at worst 67 dB and 49 dB, and layer
# errors of 1e-2 and 1e-1. Decisions are computed in float32 from rounded features, so that far more
# of them flip: up to 2 % and 6 % of a row of attention logits, with scores 2e-2 and 1.3e-1 from the
# threshold (AIBNet with trained weights).
FP16 = Precision(
    name="fp16",
    dtype="float16",
    onnx="FLOAT16",
    digits=11,
    largest=65504.0,
    min_power=-14,
    opset=1,
    timed=False,
    tensorrt="HALF",
    rtx_since=7.5,
    inspector=r"half|fp16|float16",
    tolerances=Tolerances(1e-2, 3e-2, psnr=60.0, flips=3e-2, flip_distance=0.02),
)
BF16 = Precision(
    name="bf16",
    dtype="bfloat16",
    onnx="BFLOAT16",
    digits=8,
    largest=float.fromhex("0x1.fep127"),
    min_power=-126,
    opset=22,
    timed=True,
    tensorrt="BF16",
    rtx_since=8.0,
    inspector=r"bf16|bfloat16",
    tolerances=Tolerances(8e-2, 2e-1, psnr=42.0, flips=2e-1, flip_distance=0.2),
)
INT8 = Precision(
    name="int8",
    dtype="int8",
    onnx="INT8",
    digits=7,
    largest=127.0,
    min_power=0,
    opset=10,
    timed=False,
    tensorrt="INT8",
    rtx_since=8.0,
    inspector=r"int8",
    # Seven binary digits before every convolution. `calibrate` already keeps the loss within a
    # budget in dB, so that these tolerances only distinguish a coarse graph from a broken one.
    tolerances=Tolerances(2.5e-1, 5e-1, psnr=30.0, flips=2e-1, flip_distance=0.5),
)
PRECISIONS: Mapping[str, Precision] = {p.name: p for p in (FP32, FP16, BF16, INT8)}
# The graph precisions below float32.
LOW: Mapping[str, Precision] = {name: PRECISIONS[name] for name in GRAPH_PRECISIONS[1:]}
# What to do about values beyond the range of a narrow precision.
WIDE = tuple(name for name in reversed(GRAPH_PRECISIONS) if not PRECISIONS[name].narrow)
OVERFLOW_ADVICE = (
    f"export with --precision {' or '.join(WIDE)}, or with --rescale and --images, which divides "
    "residual streams by a power of two"
)
