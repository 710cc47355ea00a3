"""The export without this package, for comparison: only `torch.onnx.export`."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch._library.custom_ops import OPDEFS  # torch has no public access to the definitions

from deblur_export.errors import DeblurExportError
from deblur_export.export.timing.coverage import ForcedChoice, mask_shape
from deblur_export.export.timing.jobs import FORCED_CHOICE, OWN_CHOICE
from deblur_export.models.loading import NetworkChoice
from deblur_export.plugins.libraries import cpu
from deblur_export.plugins.ops import OPS
from deblur_export.plugins.ops.pruned_conv import pruned_conv_reference

OPSET = 18  # the newest that the torch exporter writes without conversion
REASON_LENGTH = 160


def export_plain(
    network: NetworkChoice, height: int, width: int, decision: str | None, path: Path
) -> None:
    """Export the original network for a fixed image size, with its custom ops as plain PyTorch.

    Args:
        network: the network to export.
        height, width: of the image in pixels.
        decision: the mask decision that becomes a second input, or None.
        path: the file to write.

    Raises:
        DeblurExportError: `torch.onnx.export` fails; the message is one line.
    """
    model = network.load()
    net = model.net
    samples: tuple[torch.Tensor, ...] = (torch.zeros(1, model.images.channels, height, width),)
    inputs, outputs = ["image"], ["restored"]
    if decision is not None:
        mask = torch.zeros(1, 1, *mask_shape(net, decision, height, width))
        net = ForcedChoice(net, decision).eval()
        samples, inputs, outputs = (
            (*samples, mask),
            [*inputs, FORCED_CHOICE],
            [*outputs, OWN_CHOICE],
        )
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with torch.no_grad(), cpu.switched_off(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.export.export(net, samples, strict=False)
            program = program.run_decompositions(definitions())
            exported = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=OPSET,
                input_names=inputs,
                output_names=outputs,
                verbose=False,
            )
        assert exported is not None
        exported.save(path)
    except Exception as error:  # the exporter raises many types of errors
        raise DeblurExportError(f"cannot be exported: {root_cause(error)}") from error


def definitions() -> dict[Any, Callable[..., Any]]:
    """The definition of each custom op in plain PyTorch."""
    ops = [spec.torch_op for spec in OPS.values() if spec.torch_op is not None]
    table = {op: OPDEFS[op.name()]._init_fn for op in ops}
    # Its eager form reads the mask to choose between two implementations, which cannot be traced.
    table[torch.ops.deblur.pruned_conv.default] = lambda *tensors, group: pruned_conv_reference(
        *tensors
    )
    return table


def root_cause(error: BaseException) -> str:
    """The innermost exception as one short line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    return text if len(text) <= REASON_LENGTH else text[: REASON_LENGTH - 3] + "..."
