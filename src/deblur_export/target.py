"""The export targets of ONNX files, one record each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from deblur_export.precision import PrecisionName

TargetName = Literal["portable", "ort", "openvino", "rtx"]


@dataclass(frozen=True)
class Target:
    """A form of the graph.

    Attributes:
        name: its name in `--target`, manifests and file names.
        description: one sentence for `--help`, without the name.
        opset: the opset of the standard operators. DeformConv appeared in opset 19.
        passes: names of the graph passes that give the traced graph this form, in order; see
            `to_onnx.PASSES`.
        onnxruntime_bodies: whether the function bodies of custom ops use the operators that are
            fastest in ONNX Runtime, among them DeformConv, rather than those of every runtime.
        loops: whether bodies may contain loops over pixels.
        large_topk: whether bodies may contain a TopK above 3840, which TensorRT does not build.
        empty_inputs: whether a node may leave out an input by an empty name. The parser of TensorRT
            for RTX refuses such a node of a custom op.
        belongs_to: name of the runtime for which its files are made; besides it only ONNX Runtime
            is sure to run them. Empty if every runtime does.
        refused: operators that ONNX has in a precision but its builder does not support, by
            precision and operator, with the reason.
    """

    name: TargetName
    description: str
    opset: int = 18
    passes: tuple[str, ...] = ("share_sampling_grid",)
    onnxruntime_bodies: bool = False
    loops: bool = True
    large_topk: bool = True
    empty_inputs: bool = True
    belongs_to: str = ""
    refused: Mapping[PrecisionName, Mapping[str, str]] = field(default_factory=dict)

    @property
    def suffix(self) -> str:
        """The part of a file name that stands for it; empty for the default."""
        return "" if self.name == DEFAULT else f"_{self.name}"


DEFAULT: TargetName = "portable"
TARGETS: Mapping[TargetName, Target] = {
    target.name: target
    for target in (
        Target("portable", "standard operators that every runtime has"),
        Target(
            "ort",
            "the fastest on ONNX Runtime",
            opset=22,
            passes=(),
            onnxruntime_bodies=True,
            belongs_to="onnxruntime",
        ),
        Target(
            "openvino",
            "the fastest on OpenVINO",
            passes=(
                "share_sampling_grid",
                "decompose_layer_norm",
                "convolve_projections",
                "split_gates",
                "remove_unused_nodes",
            ),
            loops=False,
            belongs_to="openvino",
        ),
        Target(
            "rtx",
            "for TensorRT for RTX",
            loops=False,
            large_topk=False,
            empty_inputs=False,
            refused={
                "bf16": {
                    "ConvTranspose": "TensorRT for RTX builds no transposed convolution in bfloat16"
                }
            },
        ),
    )
}
