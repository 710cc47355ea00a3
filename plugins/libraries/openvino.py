"""The custom ops as an OpenVINO extension (csrc/openvino/, libdeblur_openvino.so); optional.

    core = openvino.Core()
    core.add_extension("libdeblur_openvino.so")
    model = core.read_model("network.onnx")

`deblur-export plugins build` makes the library where OpenVINO is installed; it fits that release,
no other. The environment variable DEBLUR_OPENVINO_LIBRARY says where else it lies, or `none` for
no library.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Any

from deblur_export.plugins.compile.cpu import EXTENSION
from deblur_export.plugins.libraries.cpu import VERSION
from deblur_export.plugins.libraries.library_file import Found, LibraryFile
from deblur_export.plugins.ops import OPS

FILE = LibraryFile(EXTENSION, "DEBLUR_OPENVINO_LIBRARY")
# csrc/openvino/extension.cpp puts it there.
MADE_FOR = re.compile(rb"deblur ops (\d+) for OpenVINO ([\d.]+)")
# Positions of the inputs that the ops also take as bfloat16, when their channels lie last.
FEATURES = {
    spec.name: positions
    for spec in OPS.values()
    if (positions := tuple(i for i, t in enumerate(spec.inputs.values()) if t.channels_last))
}
# Where SelectiveScan has z; without z, delta_bias is there.
Z = list(OPS["SelectiveScan"].inputs).index("z")
TO_NCHW, TO_NHWC = [0, 3, 1, 2], [0, 2, 3, 1]


@cache
def shared_core() -> Any:
    """The one openvino.Core of this process.

    The CPU plugin of each core gives the process an alternate signal stack, and restores the one
    before when the core is destroyed, whether or not another core has set its own since (2025.3,
    2026.4). Two cores that are destroyed in the order in which they were made leave a stack that is
    no longer mapped, and the next signal with a handler, such as Ctrl-C, is a segmentation fault.
    """
    import openvino

    return openvino.Core()


def find(release: str) -> Found:
    """The library, if it fits a release of OpenVINO such as 2026.4.1 (openvino.__version__)."""
    release = release.split("-")[0]

    def fault(version: str, other: str) -> str:
        if other != release:
            return f"is for OpenVINO {other}, not {release}"
        return "" if int(version) == VERSION else f"has version {version} of the ops, not {VERSION}"

    return FILE.find_marked(MADE_FOR, fault)


def adapt(model: Any, precision: str) -> None:
    """Rewrite a model with native ops for its compilation, in place.

    With fixed shapes, the library transposes features from NCHW to NHWC before an op and back after
    it; OpenVINO removes both where a convolution stands next to them. Around nodes that it does not
    know OpenVINO keeps float32, whatever the precision. So channel attention moves before the
    transpose, and the ops get bfloat16.

    Args:
        model: an openvino.Model.
        precision: "f32" or "bf16".
    """
    for node in model.get_ordered_ops():
        if node.get_type_name() in FEATURES and node.get_attributes().get("last"):
            if node.get_type_name() == "PrunedConv":
                _transpose_later(node)
            if precision == "bf16":
                _convert_features(node)
    model.validate_nodes_and_infer_types()


def _transpose_later(node: Any) -> None:
    """Means over rows of the transposed result, and its products with one factor per channel, are
    computed before the transpose."""
    from openvino import opset13 as ops

    result = node.output(0)
    (transpose,) = (reader.get_node() for reader in result.get_target_inputs())
    for reader in list(transpose.output(0).get_target_inputs()):
        user = reader.get_node()
        if _averages_rows(user):
            early = ops.reduce_mean(result, [2], keep_dims=True)
        elif (factor := _factor(user, reader.get_index())) is not None:
            early = ops.multiply(result, ops.transpose(factor, TO_NHWC))
        else:
            continue
        readers = list(user.output(0).get_target_inputs())
        transposed = ops.transpose(early, TO_NCHW)
        for port in readers:
            port.replace_source_output(transposed.output(0))


def _averages_rows(node: Any) -> bool:
    if node.get_type_name() != "ReduceMean" or not node.get_attributes()["keep_dims"]:
        return False
    axes = node.input_value(1).get_node()
    return bool(axes.get_type_name() == "Constant" and axes.get_vector().tolist() == [3])


def _factor(node: Any, position: int) -> Any:
    """What a product multiplies its input `position` by, if that is one number per channel."""
    if node.get_type_name() != "Multiply":
        return None
    factor = node.input_value(1 - position)
    shape = factor.get_partial_shape()
    return factor if shape.is_static and list(shape.to_shape())[2:] == [1, 1] else None


def _convert_features(node: Any) -> None:
    from openvino import opset13 as ops

    gate = node.get_attributes().get("gate", 1)
    for position in FEATURES[node.get_type_name()]:
        if position == Z and not gate:
            continue
        low = ops.convert(node.input_value(position), "bf16")
        node.input(position).replace_source_output(low.output(0))
    readers = list(node.output(0).get_target_inputs())
    wide = ops.convert(node.output(0), "f32")
    for reader in readers:
        reader.replace_source_output(wide.output(0))
