"""Where graphs cross between onnx-ir, in which they are changed, and ONNX's own messages."""

from __future__ import annotations

import onnx
import onnx_ir as ir

from deblur_export.artifact import ModelFile


def graph_of(file: ModelFile) -> ir.Model:
    """The graph of a file, to read and to change: it shares nothing with `file.proto`.

    Raises:
        DeblurExportError: the file is not ONNX.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(file.proto)
    return ir.from_proto(copy)
