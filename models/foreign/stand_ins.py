"""What works of packages that are not installed: the few of their names that restoration networks
call, computed by PyTorch or by ops of this package.

`absent` puts them into its empty modules, so that a package that is installed is never shadowed.

    mamba_ssm.ops.selective_scan_interface   selective_scan_fn, selective_scan_ref
    torchvision.ops, torchvision.ops.deform_conv   deform_conv2d, DeformConv2d
    timm.layers, timm.models.layers, timm.models.layers.*   DropPath, to_2tuple, trunc_normal_
    basicsr.utils.registry   ARCH_REGISTRY
    basicsr.archs.arch_util   to_2tuple, trunc_normal_, default_init_weights, make_layer, ...
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from deblur_export.errors import DeblurExportError
from deblur_export.models.foreign.deformable import DeformConv2d, deform_conv2d
from deblur_export.models.foreign.selective_scan_fn import selective_scan_fn


def contents(module: str) -> Mapping[str, object]:
    """The names that a module of a missing package has; none for most."""
    return _CONTENTS.get(module, {})


def names_of(packages: Iterable[str]) -> list[str]:
    """The names that work of the modules of these packages that were imported, in full."""
    return [
        f"{module}.{name}"
        for module, names in _CONTENTS.items()
        if module.partition(".")[0] in packages and module in sys.modules
        for name in names
    ]


class DropPath(nn.Module):
    """Stochastic depth: the identity outside training, which is all that an export sees."""

    def __init__(self, drop_prob: float = 0.0, scale_by_keep: bool = True) -> None:
        super().__init__()
        self.drop_prob, self.scale_by_keep = drop_prob, scale_by_keep

    def forward(self, x: Tensor) -> Tensor:
        if self.training and self.drop_prob:
            raise DeblurExportError("DropPath is stood in for, and does not train: install timm")
        return x


def to_2tuple(value: Any) -> tuple[Any, ...]:
    """A number twice; a sequence as it is."""
    return (value, value) if isinstance(value, int | float | str) else tuple(value)


def default_init_weights(
    modules: nn.Module | list[nn.Module], scale: float = 1, bias_fill: float = 0, **kwargs: Any
) -> None:
    """Kaiming's initial weights times `scale`; a checkpoint replaces them."""
    for root in modules if isinstance(modules, list) else [modules]:
        for module in root.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, **kwargs)
                module.weight.data.mul_(scale)
                if module.bias is not None:
                    nn.init.constant_(module.bias, bias_fill)


def make_layer(basic_block: Callable[..., nn.Module], num_basic_block: int, **kwargs: Any) -> Any:
    """The same block several times."""
    return nn.Sequential(*(basic_block(**kwargs) for _ in range(num_basic_block)))


class ResidualBlockNoBN(nn.Module):
    """x + res_scale conv2(relu(conv1(x)))."""

    def __init__(
        self, num_feat: int = 64, res_scale: float = 1, pytorch_init: bool = False
    ) -> None:
        super().__init__()
        self.res_scale = res_scale
        self.conv1 = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.conv2 = nn.Conv2d(num_feat, num_feat, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x + self.res_scale * self.conv2(self.relu(self.conv1(x)))
        return result


class Registry:
    """Hands back what is registered."""

    def register(self, obj: Any = None, **kwargs: Any) -> Any:
        """As a decorator, with or without parentheses."""
        return obj if obj is not None else (lambda registered: registered)


_LAYERS: Mapping[str, object] = {
    "DropPath": DropPath,
    "to_2tuple": to_2tuple,
    "trunc_normal_": nn.init.trunc_normal_,
}
_DEFORMABLE: Mapping[str, object] = {"deform_conv2d": deform_conv2d, "DeformConv2d": DeformConv2d}
_CONTENTS: Mapping[str, Mapping[str, object]] = {
    "mamba_ssm.ops.selective_scan_interface": {
        "selective_scan_fn": selective_scan_fn,
        "selective_scan_ref": selective_scan_fn,
    },
    "torchvision.ops": _DEFORMABLE,
    "torchvision.ops.deform_conv": _DEFORMABLE,
    "timm.layers": _LAYERS,
    "timm.models.layers": _LAYERS,
    "timm.models.layers.drop": {"DropPath": DropPath},
    "timm.models.layers.helpers": {"to_2tuple": to_2tuple},
    "timm.models.layers.weight_init": {"trunc_normal_": nn.init.trunc_normal_},
    "basicsr.utils.registry": {"ARCH_REGISTRY": Registry(), "Registry": Registry},
    "basicsr.archs.arch_util": {
        "to_2tuple": to_2tuple,
        "trunc_normal_": nn.init.trunc_normal_,
        "default_init_weights": default_init_weights,
        "make_layer": make_layer,
        "ResidualBlockNoBN": ResidualBlockNoBN,
    },
}
