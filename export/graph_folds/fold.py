"""Apply the folds of the captured graph, and prove each of them in float64."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from deblur_export.errors import CheckFailedError
from deblur_export.export.capture import Capture
from deblur_export.export.float64 import NotFloat64Error, run_float64
from deblur_export.export.graph_folds import GRAPH_PASSES, GraphPass
from deblur_export.export.graph_folds.program import Program
from deblur_export.export.reparam.infra import TOLERANCE
from deblur_export.manifest_blocks import PassReport
from deblur_export.models.image_spec import ImageSpec
from deblur_export.shown import shown

Progress = Callable[[str], None]


def fold(
    captured: Capture,
    images: ImageSpec,
    passes: Sequence[GraphPass] = GRAPH_PASSES,
    progress: Progress = lambda step: None,
) -> tuple[Capture, list[PassReport]]:
    """Fold a captured network.

    After each pass that changed something, the program runs in float64 beside what it gave before,
    with the trained weights and with those that are moved away from 0 and 1; see `Program`. At the
    end the weights are rounded once to float32.

    Args:
        captured: what `capture` gave; it is not changed.
        images: which images it accepts.
        passes: rewrites of the graph, in order.
        progress: called with the name of each pass.

    Returns:
        The folded program, and a report of each pass. A network that does not compute in float64,
        or that a pass fails on, is left as it is, which the reports say.

    Raises:
        CheckFailedError: a pass changed the output by more than `TOLERANCE`.
    """
    try:
        return _folded(captured, images, passes, progress)
    except CheckFailedError:
        raise
    except NotFloat64Error as rounded:
        reason = str(rounded)
    except Exception as failure:  # operators of a network that nobody here has seen
        said = " ".join(str(failure).split())
        reason = f"a pass fails on this network: {type(failure).__name__}: {shown(said)}"
    return captured, [_declined(p.__name__, reason) for p in passes]


def _folded(
    captured: Capture, images: ImageSpec, passes: Sequence[GraphPass], progress: Progress
) -> tuple[Capture, list[PassReport]]:
    program = Program(captured.program)
    image = _image(captured, images)
    expected, macs = _run(program, image)
    if not all(bool(torch.isfinite(output).all()) for output in expected):
        raise NotFloat64Error("with its zeros and ones moved away it gives NaN or infinity")
    reports: list[PassReport] = []
    parameters = _count(program)
    for rewrite in passes:
        name = rewrite.__name__
        progress(f"verifying {name}")
        size = len(program.graph.nodes)
        changes = rewrite(program)
        program.graph.eliminate_dead_code()
        error, after, macs_after = 0.0, _count(program), macs
        if changes.changed or len(program.graph.nodes) != size:
            program.module.recompile()
            found, macs_after = _run(program, image)
            error = max(_error(name, *pair) for pair in zip(found, expected, strict=True))
        reports.append(
            PassReport(
                name=name,
                changed=tuple(changes.changed),
                declined=tuple(changes.declined),
                parameters_before=parameters,
                parameters_after=after,
                macs_before=macs,
                macs_after=macs_after,
                max_error=error,
            )
        )
        parameters, macs = after, macs_after
    return dataclasses.replace(captured, program=program.rounded()), reports


def folded_weights(captured: Capture) -> list[Tensor]:
    """The float32 weights of a program after all folds, which are not proved here again."""
    program = Program(captured.program)
    for rewrite in GRAPH_PASSES:
        rewrite(program)
        program.graph.eliminate_dead_code()
    folded = program.rounded()
    values = [*folded.state_dict.values(), *folded.constants.values()]
    return [v.detach() for v in values if isinstance(v, Tensor) and v.dtype == torch.float32]


def _image(captured: Capture, images: ImageSpec) -> Tensor:
    """An image of another size than the one that was captured, where sizes are free."""
    shape = captured.shape
    if "height" in captured.free:
        height, width = shape[2:]
        more = images.multiple
        shape = (*shape[:2], height + more, width + (more if images.square else 0))
    generator = torch.Generator().manual_seed(1)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


def _run(program: Program, image: Tensor) -> tuple[list[Tensor], int]:
    """The outputs with both sets of weights, and the multiply-adds."""
    trained, moved = (_Call(program, weights) for weights in program.weights)
    with FlopCounterMode(display=False) as counter:
        first = run_float64(trained, image)
    return [first, run_float64(moved, image)], counter.get_total_flops() // 2


class _Call(torch.nn.Module):
    """A program with one set of weights."""

    def __init__(self, program: Program, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.program, self.values = program, weights

    def forward(self, image: Tensor) -> Tensor:
        return self.program.run(self.values, image)


def _count(program: Program) -> int:
    """How many learnable values the graph reads."""
    values = program.live().values()
    return sum(value.numel() for value in values if value.is_floating_point())


def _error(name: str, found: Tensor, expected: Tensor) -> float:
    """The largest change relative to the largest output.

    Raises:
        CheckFailedError: it is above `TOLERANCE`.
    """
    error: float = ((found - expected).abs().max() / expected.abs().max()).item()
    if not error <= TOLERANCE:  # also catches NaN
        raise CheckFailedError(
            f"pass {name} changed the output by {error:.1e} of its range in float64 (tolerance "
            f"{TOLERANCE:.0e}); export with --no-reparam and report this network"
        )
    return error


def _declined(name: str, reason: str) -> PassReport:
    return PassReport(name, (), (("", reason),), 0, 0, 0, 0, 0.0)
