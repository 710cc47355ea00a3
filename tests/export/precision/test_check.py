"""How much of a graph has to be in a precision to be called that."""

from __future__ import annotations

import onnx
import onnx_ir as ir
import pytest

from deblur_export.errors import CheckFailedError
from deblur_export.export.precision.check import check_precision
from deblur_export.precision import LOW, PRECISIONS, GraphPrecision


def mixed(precision: str, lowered: int, wide: int) -> ir.Model:
    """Two 1x1 convolutions of one image, of so many channels in a precision and in float32: the
    multiply-adds are to each other as the channels."""
    low = PRECISIONS[precision].onnx.lower()
    text = f"""
    <ir_version: 10, opset_import: ["": 22]>
    g (float[1, 3, 8, 8] image, {low}[{lowered}, 3, 1, 1] a, float[{wide}, 3, 1, 1] b)
      => (float[1, {wide}, 8, 8] wide, {low}[1, {lowered}, 8, 8] lowered) {{
        rounded = Cast<to = {int(ir.DataType[PRECISIONS[precision].onnx])}>(image)
        lowered = Conv(rounded, a)
        wide = Conv(image, b)
    }}"""
    model = onnx.parser.parse_model(text)
    for info in model.graph.input[1:]:
        shape = [dim.dim_value for dim in info.type.tensor_type.shape.dim]
        size = shape[0] * shape[1]
        kind = info.type.tensor_type.elem_type
        model.graph.initializer.append(
            onnx.helper.make_tensor(info.name, kind, shape, [1.0] * size)
        )
    del model.graph.input[1:]
    return ir.from_proto(model)


@pytest.mark.parametrize("precision", LOW)
def test_at_least_95_percent_of_the_multiply_adds(precision: GraphPrecision) -> None:
    """Heads of offsets, masks and rankings stay float32 and are below 5 % of every network here;
    a layer of features is more than that in most."""
    assert check_precision(mixed(precision, 95, 5), precision).convolutions == 0.95
    with pytest.raises(CheckFailedError, match=r"only 94\.9% .* not 95%"):
        check_precision(mixed(precision, 949, 51), precision)
