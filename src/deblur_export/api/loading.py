"""Load networks of this package and of users: `load_model` and `adapt`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from deblur_export.api.common import TORCH_LOCK, PathLike, Progress, quiet
from deblur_export.engine_record import FixedShape
from deblur_export.errors import DeblurExportError
from deblur_export.models import foreign
from deblur_export.models.checkpoint import LoadedModel
from deblur_export.models.foreign.arguments import as_literal
from deblur_export.models.foreign.examine import Given
from deblur_export.models.loading import NetworkChoice

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Given", "adapt", "load_choice", "load_model"]


def load_model(
    model: str | None = None,
    weights: PathLike | None = None,
    *,
    variant: str | None = None,
    local: bool = False,
    ema: bool | None = None,
    arguments: Mapping[str, Any] | None = None,
    given: Given | None = None,
    shape: FixedShape | None = None,
    progress: Progress = quiet,
) -> LoadedModel:
    """Build a network and load its weights; the options of `deblur-export onnx`.

    Args:
        model: a name that `deblur-export models` lists; `package.module:callable` or
            `path/file.py:Name` of your own, whose code is run; None recognises a checkpoint of the
            former by its keys, or of any architecture that an installed spandrel knows.
        weights: a checkpoint (what `torch.save` or safetensors wrote), "demo" or "random:SEED".
            None takes the demo weights of a variant that has any, else "random:0"; of your own
            network those that the callable gives it.
        variant: the network's variant; None reads it from the shapes of the weights.
        local: pool over windows around each pixel (TLC) in place of the whole image.
        ema: of a checkpoint, True takes the weights averaged over the training, False the others.
            None takes the others where both are there, as the official evaluation of NAFNet does.
        arguments, given: of your own network, as of `adapt`; `arguments` are the callable's.
        shape, progress: as of `adapt`.

    Returns:
        The network in eval mode (`.net`, a torch.nn.Module from [N, C, H, W] to [N, C, scale H,
        scale W], RGB in 0..1) with its specification, variant and the SHA-256 of its weights;
        `.key` tells under which key of the checkpoint they stood, `.notes` what was chosen and
        left out, `.facts` what is known of the images that it accepts, and how.

    Raises:
        DeblurExportError: unknown network or variant, a callable that fails, or weights that are
            missing, damaged, of another network or not of the kind that `ema` asks for.
    """
    if model is None and weights is None:
        raise DeblurExportError("load_model needs a network's name, weights, or both")
    choice = NetworkChoice(
        model,
        None if weights is None else str(weights),
        variant,
        local,
        ema,
        as_literal(arguments or {}),
        given or Given(),
    )
    return load_choice(choice, shape, progress)


def load_choice(
    choice: NetworkChoice, shape: FixedShape | None = None, progress: Progress = quiet
) -> LoadedModel:
    """The same for a choice."""
    with TORCH_LOCK:
        return choice.load(shape, progress)


def adapt(
    net: nn.Module,
    *,
    name: str | None = None,
    weights: PathLike | None = None,
    given: Given | None = None,
    shape: FixedShape | None = None,
    progress: Progress = quiet,
) -> LoadedModel:
    """Take a network of your own, which is run to find out what images it accepts.

    Args:
        net: a torch.nn.Module on the CPU in float32 that maps images [N, C, H, W] to one image or
            several tensors. It is copied; the copy is put into eval mode.
        name: of the network and its files; None takes the class's.
        weights: a checkpoint or "random:SEED"; None keeps those that it has.
        given: what you know of it; the rest is found out or assumed, see `.facts` of the result.
        shape: (N, C, H, W) that it is known to accept; None tries common sizes.
        progress: called with a description of each step.

    Returns:
        The network as `load_model` gives it.

    Raises:
        DeblurExportError: it cannot be run, gives no image, or the weights do not fit.
    """
    with TORCH_LOCK:
        return foreign.adapt(
            net,
            name=name,
            weights=None if weights is None else str(weights),
            given=given,
            shape=shape,
            progress=progress,
        )
