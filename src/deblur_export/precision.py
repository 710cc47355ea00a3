"""The number formats that a file or an engine computes in, one record each.

Every verb, manifest and report spells them alike: fp32, fp16, bf16, int8. What a runtime calls them
stays in the file of that runtime.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal, get_args

PrecisionName = Literal["fp32", "fp16", "bf16", "int8"]
# What a graph as a whole may be in; int8 is in it by pairs around convolutions.
GraphPrecision = Literal["fp32", "fp16", "bf16"]
# Of an engine; "int8+fp16": what int8 leaves is in float16.
EnginePrecision = Literal["fp32", "fp16", "bf16", "int8", "int8+fp16", "int8+bf16"]
GRAPH_PRECISIONS: tuple[GraphPrecision, ...] = get_args(GraphPrecision)


@dataclass(frozen=True)
class Tolerances:
    """How far a file may be from its PyTorch network in float32.

    Attributes:
        max_abs: largest difference of a pixel, of images in 0..1.
        layer_rms_rel: RMS of a layer's difference by the RMS of the layer.
        psnr: least, in dB; 0 for no bound.
        flips: fraction of the entries of one decision that may be flipped.
        flip_distance: how far from the threshold of a decision the score of a flipped entry may be;
            0 for the decision's own bound, which is for float32.
    """

    max_abs: float
    layer_rms_rel: float
    psnr: float = 0.0
    flips: float = 0.0
    flip_distance: float = 0.0

    def as_dict(self) -> dict[str, float]:
        """The bounds that there are, by name, for reports."""
        return {name: bound for name, bound in asdict(self).items() if bound}


@dataclass(frozen=True)
class Precision:
    """One number format.

    Attributes:
        name: as users spell it.
        dtype: its name in NumPy, ml_dtypes and PyTorch.
        onnx: its name among ONNX's types.
        digits: significant binary digits, the implicit one included.
        largest: the largest finite number.
        least_power: the smallest normal number is 2 to the power of this.
        opset: the oldest ONNX opset in which convolutions and the like take it.
        timed: whether `bench` measures it: processors have arithmetic for it.
        tensorrt: its name among TensorRT's types.
        inspector: regular expression of how TensorRT's engine inspector spells it.
        tolerances: of `verify`.
    """

    name: PrecisionName
    dtype: str
    onnx: str
    digits: int
    largest: float
    least_power: int
    opset: int
    timed: bool
    tensorrt: str
    inspector: str
    tolerances: Tolerances

    @property
    def least_subnormal_power(self) -> int:
        """The smallest number above 0 is 2 to the power of this."""
        return self.least_power - self.digits + 1

    @property
    def narrow(self) -> bool:
        """Whether values of a float32 graph may leave its range."""
        return self.largest < FP32.largest / 2


FP32 = Precision(
    name="fp32",
    dtype="float32",
    onnx="FLOAT",
    digits=24,
    largest=float.fromhex("0x1.fffffep127"),
    least_power=-126,
    opset=1,
    timed=True,
    tensorrt="FLOAT",
    inspector=r"float|fp32",
    # float32 against float32: rounding of some hundred layers; the networks stay below 1e-5.
    tolerances=Tolerances(max_abs=1e-4, layer_rms_rel=1e-4, flips=1e-3),
)
# A graph in low precision against PyTorch in float32: eleven and eight binary digits, some hundred
# layers. The tiny networks with random weights give 67 dB and 49 dB at worst, layers 1e-2 and 1e-1.
# Choices are made in float32, from rounded features: far more of them turn, up to 2 % and 6 % of a
# row of attention logits, 2e-2 and 1.3e-1 from the threshold (AIBNet with trained weights).
FP16 = Precision(
    name="fp16",
    dtype="float16",
    onnx="FLOAT16",
    digits=11,
    largest=65504.0,
    least_power=-14,
    opset=1,
    timed=False,
    tensorrt="HALF",
    inspector=r"half|fp16|float16",
    tolerances=Tolerances(1e-2, 3e-2, psnr=60.0, flips=3e-2, flip_distance=0.02),
)
BF16 = Precision(
    name="bf16",
    dtype="bfloat16",
    onnx="BFLOAT16",
    digits=8,
    largest=float.fromhex("0x1.fep127"),
    least_power=-126,
    opset=22,
    timed=True,
    tensorrt="BF16",
    inspector=r"bf16|bfloat16",
    tolerances=Tolerances(8e-2, 2e-1, psnr=42.0, flips=2e-1, flip_distance=0.2),
)
INT8 = Precision(
    name="int8",
    dtype="int8",
    onnx="INT8",
    digits=7,
    largest=127.0,
    least_power=0,
    opset=10,
    timed=False,
    tensorrt="INT8",
    inspector=r"int8",
    # Seven binary digits before every convolution; `calibrate` has held a budget in dB already, so
    # that this only tells a coarse graph from a broken one.
    tolerances=Tolerances(2.5e-1, 5e-1, psnr=30.0, flips=2e-1, flip_distance=0.5),
)
PRECISIONS: Mapping[str, Precision] = {p.name: p for p in (FP32, FP16, BF16, INT8)}
# The graph precisions below float32.
LOW: Mapping[str, Precision] = {name: PRECISIONS[name] for name in GRAPH_PRECISIONS[1:]}
