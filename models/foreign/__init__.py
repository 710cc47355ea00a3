"""Networks that users bring: found by name, put behind the interface of all networks here, and
loaded with their weights."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from deblur_export.engine_record import FixedShape
from deblur_export.errors import DeblurExportError
from deblur_export.models.checkpoint import RANDOM, Foreign, LoadedModel, fingerprint
from deblur_export.models.checkpoint.files import read_checkpoint
from deblur_export.models.checkpoint.fit import Wanted, fit
from deblur_export.models.foreign.absent import stood_in
from deblur_export.models.foreign.adapter import Adapter
from deblur_export.models.foreign.examine import Examined, Given, described, examine
from deblur_export.models.foreign.locate import Located, is_foreign, locate
from deblur_export.models.foreign.stand_ins import names_of
from deblur_export.models.random_weights import perturb
from deblur_export.models.spec import ModelSpec

OWN = "own"  # weights: those that the callable gives its network
Progress = Callable[[str], None]


def load_foreign(
    model: str,
    weights: str | None = None,
    arguments: Mapping[str, Any] | None = None,
    given: Given | None = None,
    ema: bool | None = None,
    shape: FixedShape | None = None,
    progress: Progress = lambda step: None,
) -> LoadedModel:
    """Load a user's network, which runs his code.

    Args:
        model: `package.module:callable`, `path/file.py:Name` or an entry point, see `locate`.
        weights: a checkpoint, "random:SEED", or None or "own" for those that the callable gives.
        arguments: of the callable, by name.
        given: what is known of the network; the rest is found out or assumed.
        ema: which weights of a checkpoint with two sets, as of `checkpoint.load_model`.
        shape: (N, C, H, W) that the network is known to accept.
        progress: called with a line for each step.

    Raises:
        DeblurExportError: the network is not found, cannot be built or run, or the weights do not
            fit.
    """
    found = locate(model)
    seed = RANDOM.fullmatch(weights or "")
    net = checked(found.build(arguments or {}, int(seed[1]) if seed else 0), found.where)
    return foreign_model(net, found, weights or OWN, arguments or {}, given, ema, shape, progress)


def adapt(
    net: nn.Module,
    *,
    name: str | None = None,
    weights: str | None = None,
    given: Given | None = None,
    shape: FixedShape | None = None,
    progress: Progress = lambda step: None,
) -> LoadedModel:
    """Put a network behind the interface of all networks here.

    Args:
        net: on the CPU in float32; it is copied and put into eval mode.
        name: of the network and its files; None takes the class's.
        weights, given, shape, progress: as of `load_foreign`.

    Raises:
        DeblurExportError: the network cannot be run, or the weights do not fit.
    """
    kind = type(net)
    net = copy.deepcopy(checked(net, kind.__name__))
    found = Located(f"{kind.__module__}:{kind.__qualname__}", name or kind.__name__, net, None)
    return foreign_model(net, found, weights or OWN, {}, given, None, shape, progress)


def foreign_model(
    net: nn.Module,
    found: Located,
    weights: str,
    arguments: Mapping[str, Any],
    given: Given | None,
    ema: bool | None,
    shape: FixedShape | None,
    progress: Progress,
) -> LoadedModel:
    """A network with the weights that are named, behind its interface; `net` is changed."""
    net = net.eval().requires_grad_(False)
    key, averaged = "", None
    notes: tuple[str, ...] = ()
    seed = RANDOM.fullmatch(weights)
    if seed:
        perturb(net, int(seed[1]))
    elif weights != OWN:
        if not Path(weights).exists():
            raise DeblurExportError(
                f"{weights}: no such file; the weights of {found.name} are a checkpoint, "
                f"random:SEED or {OWN} (those that {found.where} gives)"
            )
        checkpoint = read_checkpoint(Path(weights))
        progress(f"reading {weights}")
        fitted = fit(checkpoint, Wanted.of(found.name, net.state_dict()), ema, lambda: "")
        net.load_state_dict(fitted.state)
        key, averaged, notes = fitted.key, fitted.ema, fitted.notes
    given = given or Given()
    examined = described(given) if given.complete else examine(net, given, shape, progress)
    return finished(
        net,
        examined,
        found,
        origin="callable" if is_foreign(found.where) else "plugin",
        arguments=arguments,
        weights=weights,
        key=key,
        ema=averaged,
        notes=notes,
    )


def finished(
    net: nn.Module,
    examined: Examined,
    found: Located,
    *,
    origin: Literal["callable", "plugin", "spandrel"],
    arguments: Mapping[str, Any] | None = None,
    weights: str,
    key: str,
    ema: bool | None,
    notes: tuple[str, ...],
) -> LoadedModel:
    """A network with its weights behind the interface that was found out; the rest is for the
    manifest."""
    return LoadedModel(
        spec=_spec(found, examined),
        variant="",
        arguments=dict(arguments or {}),
        net=Adapter(net, examined.interface).eval(),
        weights=weights,
        sha256=fingerprint(net.state_dict()),
        key=key,
        ema=ema,
        notes=(*notes, *_stand_ins(), *examined.notes),
        foreign=Foreign(
            origin=origin,
            where=found.where,
            source=None if found.source is None else str(found.source),
            source_sha256=found.source_sha256,
            facts=examined.facts,
        ),
    )


def checked(net: nn.Module, name: str) -> nn.Module:
    """The network, if it can be run here.

    Raises:
        DeblurExportError: it is on another device, or not in float32.
    """
    tensors: list[tuple[str, Tensor]] = [*net.named_parameters(), *net.named_buffers()]
    for key, tensor in tensors:
        if tensor.device.type != "cpu":
            raise DeblurExportError(
                f"{name}: {key} is on the device {tensor.device}; return the network on the CPU "
                "(net.cpu())"
            )
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise DeblurExportError(
                f"{name}: {key} is {dtype}; return the network in float32 (net.float()), and give "
                "the precision of the file with --precision"
            )
    return net


def _stand_ins() -> tuple[str, ...]:
    packages = ", ".join(stood_in())
    if not packages:
        return ()
    names = ", ".join(names_of(stood_in()))
    working = (f"computed by deblur-export in their place: {names}",) if names else ()
    return (f"not installed, and not needed so far: {packages}", *working)


def _spec(found: Located, examined: Examined) -> ModelSpec:
    name = re.sub(r"[^a-z0-9]+", "_", found.name.lower()).strip("_") or "network"
    return ModelSpec(
        name=name,
        title=found.name,
        source=found.where,
        build=_not_built,
        variants={},
        keys_present=(),
        keys_absent=(),
        hyperparameters=lambda state: {},
        images=examined.interface.images,
    )


def _not_built(**arguments: Any) -> nn.Module:
    raise AssertionError("a network of a user is built by its callable")
