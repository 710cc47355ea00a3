"""Operators of other libraries that a captured program has, as ops of ours."""

from __future__ import annotations

from torch.export import ExportedProgram

from deblur_export.models.foreign.deformable import of_operator

DECOMPOSITIONS = {"torchvision::deform_conv2d": of_operator}


def with_own_ops(program: ExportedProgram) -> ExportedProgram:
    """The program with ops of ours in place of torchvision's deformable convolution.

    Raises:
        DeblurExportError: it is one of another stride, kernel or padding than ours.
    """
    found = {
        node.target: DECOMPOSITIONS[name]
        for node in program.graph.nodes
        if node.op == "call_function"
        and (name := getattr(node.target, "name", str)().split(".")[0]) in DECOMPOSITIONS
    }
    return program.run_decompositions(found) if found else program
