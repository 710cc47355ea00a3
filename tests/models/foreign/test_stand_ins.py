"""Networks whose packages are not installed run, and are exported, with the stand-ins."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deblur_export.errors import DeblurExportError
from deblur_export.export.precision.cast import lower_precision
from deblur_export.models.foreign.deformable import deform_conv2d, of_operator
from deblur_export.models.foreign.locate import locate
from deblur_export.models.foreign.stand_ins import contents, names_of, selective_scan_fn
from deblur_export.models.image_spec import ImageSpec
from tests.export.foreign import Padded
from tests.export.loading import assert_close, assert_every_target_is, run_onnxruntime
from tests.plugins.harness import rand
from tests.tolerances import OP_FLOAT16

SCAN = """
import torch
from torch import nn
from timm.models.layers import DropPath, to_2tuple, trunc_normal_
from mamba_ssm.ops.selective_scan_interface import selective_scan_fn, selective_scan_ref
from basicsr.utils.registry import ARCH_REGISTRY

@ARCH_REGISTRY.register()
class SS2D(nn.Module):
    # rows and columns, forwards and backwards
    def __init__(self, dim=4, states=3):
        super().__init__()
        self.states = states
        self.project = nn.Conv2d(3, dim, to_2tuple(1))
        self.x_proj = nn.Parameter(trunc_normal_(torch.empty(4, dim + 2 * states, dim)))
        self.A_logs = nn.Parameter(torch.rand(4 * dim, states))
        self.Ds, self.bias = nn.Parameter(torch.rand(4 * dim)), nn.Parameter(torch.rand(4 * dim))
        self.out, self.drop = nn.Conv2d(dim, 3, 1), DropPath(0.1)

    def forward(self, image):
        x = self.project(image)
        b, c, h, w = x.shape
        both = torch.stack([x.flatten(2), x.transpose(2, 3).flatten(2)], 1)
        xs = torch.cat([both, both.flip(-1)], 1)
        made = torch.einsum("bkdl,kcd->bkcl", xs, self.x_proj)
        dts, Bs, Cs = made.split([c, self.states, self.states], 2)
        ys = selective_scan_fn(
            xs.reshape(b, -1, h * w), dts.reshape(b, -1, h * w), -self.A_logs.exp(), Bs, Cs,
            self.Ds, z=None, delta_bias=self.bias, delta_softplus=True, return_last_state=False)
        ys = ys.view(b, 4, c, h * w)
        rows, columns = (ys[:, :2] + ys[:, 2:].flip(-1)).unbind(1)
        columns = columns.reshape(b, c, w, h).transpose(2, 3).flatten(2)
        return image + self.drop(self.out((rows + columns).view(b, c, h, w)))
"""

DEFORMABLE = """
import torch
from torch import nn
from torchvision.ops import DeformConv2d, deform_conv2d

class Aligned(nn.Module):
    def __init__(self):
        super().__init__()
        self.offset = nn.Conv2d(3, 2 * 18 + 18, 3, padding=1)
        self.widen = nn.Conv2d(3, 8, 1)
        self.deform = DeformConv2d(8, 3, 3, padding=2, dilation=2)

    def forward(self, x):
        offset, mask = self.offset(x).split([36, 18], 1)
        return x + self.deform(self.widen(x), offset, mask.sigmoid())
"""


class Wrapped(Padded):
    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.net(x)
        return result


def missing(*packages: str) -> pytest.MarkDecorator:
    installed = [name for name in packages if importlib.util.find_spec(name)]
    return pytest.mark.skipif(bool(installed), reason=f"{installed} are installed")


@pytest.mark.parametrize(
    ("code", "name"),
    [
        # Four static bodies of scans for each target: ten seconds.
        pytest.param(
            SCAN, "SS2D", marks=[missing("timm", "mamba_ssm", "basicsr"), pytest.mark.matrix]
        ),
        pytest.param(DEFORMABLE, "Aligned", marks=missing("torchvision")),
    ],
)
def test_a_network_without_its_packages(tmp_path: Path, code: str, name: str) -> None:
    file = tmp_path / "arch.py"
    file.write_text(code, encoding="utf-8")
    net = Wrapped(locate(f"{file}:{name}").build({})).eval()
    single = {key: value.clone() for key, value in net.state_dict().items()}
    graphs = assert_every_target_is(net, ImageSpec(2), ((1, 3, 8, 10), (1, 3, 11, 6)))
    lowered, _ = lower_precision(graphs["portable"], "fp16", "portable")
    image = torch.rand(1, 3, 12, 14, generator=torch.Generator().manual_seed(0))
    net.load_state_dict(single)
    with torch.no_grad():
        expected = net.double()(image.double())
    assert_close(run_onnxruntime(lowered, image), expected, OP_FLOAT16, "fp16")


def test_scan_is_that_of_mamba() -> None:
    """The recurrence, step by step, with two groups of B and C."""
    n, d, s, length = 2, 6, 3, 5
    u, delta, z = (rand(n, d, length, seed=i) for i in range(3))
    rates, skip, bias = -rand(d, s).abs(), rand(d), rand(d, seed=5)
    entry, read = (rand(n, 2, s, length, seed=i) for i in (3, 4))
    step = F.softplus(delta + bias[:, None])
    wide_b, wide_c = (m.repeat_interleave(3, 1) for m in (entry, read))
    h, ys = torch.zeros(n, d, s).double(), []
    for t in range(length):
        decay = (step[..., t, None] * rates).exp()
        h = decay * h + (step * u)[..., t, None] * wide_b[..., t]
        ys.append((h * wide_c[..., t]).sum(-1) + skip * u[..., t])
    expected = torch.stack(ys, -1) * F.silu(z)
    found = selective_scan_fn(u, delta, rates, entry, read, skip, z, bias, delta_softplus=True)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    plain = selective_scan_fn(u, delta.exp(), rates, entry[:, 0], read[:, 0])
    assert plain.shape == u.shape


@pytest.mark.parametrize(("groups", "parts"), [(1, 1), (2, 1), (1, 2), (2, 4), (4, 2)])
def test_deformable_groups(groups: int, parts: int) -> None:
    """With whole offsets, each group and part by itself is an ordinary convolution of a shift."""
    x, weight = rand(1, 8, 9, 10), rand(4, 8 // groups, 3, 3)
    shifts = [(p - 1, 1 - p) for p in range(parts)]
    offset = torch.tensor(shifts).double().repeat_interleave(9, 0).view(1, -1, 1, 1)
    mask = torch.arange(1.0, parts + 1).double().repeat_interleave(9).view(1, -1, 1, 1)
    padded = F.pad(x, (5, 5, 5, 5))
    moved = torch.cat(
        [
            (p + 1)
            * padded[:, p * 8 // parts : (p + 1) * 8 // parts, 4 + dy : 15 + dy, 4 + dx : 16 + dx]
            for p, (dy, dx) in enumerate(shifts)
        ],
        1,
    )
    expected = F.conv2d(moved, weight, groups=groups)
    found = deform_conv2d(
        x, offset.expand(1, -1, 9, 10), weight, padding=1, mask=mask.expand(1, -1, 9, 10)
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_exported_is_refused() -> None:
    x, offset, weight = rand(1, 2, 8, 8), rand(1, 18, 4, 4), rand(2, 2, 3, 3)
    with pytest.raises(DeblurExportError, match="stride 2"):
        deform_conv2d(x, offset, weight, stride=2, padding=1)
    with pytest.raises(DeblurExportError, match="another size"):
        deform_conv2d(x, offset, weight)
    sequence, matrix = rand(1, 2, 4), rand(2, 3)
    with pytest.raises(DeblurExportError, match="last state"):
        selective_scan_fn(sequence, sequence, matrix, matrix, matrix, return_last_state=True)
    with pytest.raises(DeblurExportError, match="depend on the input"):
        selective_scan_fn(sequence, sequence, matrix, matrix, matrix)


class ByOperator(Padded):
    """A deformable convolution as torchvision captures it."""

    def __init__(self) -> None:
        super().__init__()
        self.offset, self.weight = nn.Conv2d(3, 18, 1), nn.Parameter(torch.rand(3, 3, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        factors, bias = x.new_ones(x.shape[0], 0), self.weight.new_zeros(3)
        sizes = (1, 1, 1, 1, 1, 1, 1, 1)
        operator = torch.ops.torchvision.deform_conv2d.default
        y: Tensor = operator(x, self.weight, self.offset(x), factors, bias, *sizes, False)
        return y


@missing("torchvision")
def test_the_operator_of_torchvision() -> None:
    """Its schema, of torchvision 0.28, with the stand-in for its kernel."""
    library = torch.library.Library("torchvision", "DEF")
    library.define(
        "deform_conv2d(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, "
        "SymInt stride_h, SymInt stride_w, SymInt pad_h, SymInt pad_w, SymInt dilation_h, "
        "SymInt dilation_w, SymInt groups, SymInt offset_groups, bool use_mask) -> Tensor"
    )
    library.impl("deform_conv2d", of_operator, "CPU")
    torch.library.register_fake(
        "torchvision::deform_conv2d",
        lambda x, weight, *_: x.new_empty(x.shape[0], weight.shape[0], *x.shape[2:]),
        lib=library,
    )
    try:
        graphs = assert_every_target_is(ByOperator().eval(), ImageSpec(2), ((1, 3, 8, 10),))
    finally:
        library._destroy()
    assert any(node.op_type == "DeformConv2d" for node in graphs["portable"].graph)


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of modules that were imported."""
    monkeypatch.setitem(sys.modules, "timm.layers", ModuleType("timm.layers"))
    assert "timm.layers.DropPath" in names_of({"timm"})
    assert not names_of({"basicsr"} - {name.partition(".")[0] for name in sys.modules})
    assert not contents("einops")
