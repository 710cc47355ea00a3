"""Gradients of the custom ops: those of their reference implementations, recomputed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._library.custom_ops import CustomOpDef


def register_gradient(op: CustomOpDef, reference: Callable[..., Tensor]) -> None:
    """Give `op` the gradient of `reference`, a differentiable function of the same arguments.

    Only the inputs are kept for the backward pass, which computes `reference` again and has
    autograd differentiate it. An optional input that was left out is None and gets no gradient.
    """

    def setup_context(
        ctx: Any, inputs: tuple[Tensor | None, ...], keyword_only_inputs: Any, output: Tensor
    ) -> None:
        ctx.save_for_backward(*inputs)
        ctx.attributes = keyword_only_inputs

    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        with torch.enable_grad():
            inputs = [
                None if tensor is None else tensor.detach().requires_grad_(needed)
                for tensor, needed in zip(ctx.saved_tensors, ctx.needs_input_grad, strict=False)
            ]
            y = reference(*inputs, **ctx.attributes)
        wanted = [tensor for tensor in inputs if tensor is not None and tensor.requires_grad]
        grads = iter(torch.autograd.grad(y, wanted, grad))
        return tuple(next(grads) if t is not None and t.requires_grad else None for t in inputs)

    op.register_autograd(backward, setup_context=setup_context)
