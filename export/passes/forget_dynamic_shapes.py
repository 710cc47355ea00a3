"""Leave out the symbolic shapes of inner values.

ONNX Runtime plans memory by them: a buffer is kept for whatever has the same symbols later, so
that an encoder's buffers wait for the decoder. Without them it frees a buffer after its last use,
which halves the peak of NAFNet and ALGNet or does better.
"""

from __future__ import annotations

import onnx_ir as ir


def forget_dynamic_shapes(model: ir.Model) -> None:
    """Drop the shape of every inner value with a dynamic dimension, in place; types stay."""
    ends = {*model.graph.inputs, *model.graph.outputs}
    for node in model.graph:
        for value in node.outputs:
            if value not in ends and value.shape is not None and not value.shape.is_static():
                value.shape = None
