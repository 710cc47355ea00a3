"""The folds of ALGNet, and InstanceNorm2d on large images in ONNX Runtime."""

from __future__ import annotations

from functools import cache
from typing import cast

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

from deblur_export.export.reparam import EXACT_PASSES
from deblur_export.export.reparam.fold_feature_aggregation import fold_feature_aggregation
from deblur_export.export.reparam.fold_state_matrix import fold_state_matrix
from deblur_export.export.reparam.infra import reparameterize
from deblur_export.export.to_onnx import to_onnx
from deblur_export.manifest_blocks import PassReport
from deblur_export.models.algnet import ALGNet
from deblur_export.models.blocks.algnet_block import ALGBlock, InstanceNorm2d
from deblur_export.models.checkpoint import load_model
from deblur_export.models.image_spec import ImageSpec
from tests.tolerances import FOLDED_FLOAT32, LAYER_FLOAT32

PROBE = torch.rand(1, 3, 21, 30, generator=torch.Generator().manual_seed(1))
STAGES = [f"{part}.{level}" for part in ("encoders", "decoders") for level in range(4)]
BLOCKS = [f"{stage}.0" for stage in (*STAGES, "middle_blks")]


def tiny() -> ALGNet:
    return cast(ALGNet, load_model("algnet", "tiny", "random:0").net)


def of(*leaves: str) -> set[str]:
    return {f"{block}.{leaf}" for block in BLOCKS for leaf in leaves}


NORMS = of("norm1", "norm2", "g_layer.norm")


@cache
def folded() -> tuple[nn.Module, dict[str, PassReport]]:
    net, reports = reparameterize(tiny(), EXACT_PASSES, (PROBE,))
    return net, {report.name: report for report in reports}


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("fold_layer_norm", NORMS),
        ("fold_residual_scale", of("lamb_l", "beta")),
        ("fold_feature_aggregation", of("lamb_g")),
        ("fold_state_matrix", of("g_layer.mamba.A_log")),
        ("remove_dead_branches", of("gamma", "conv3_2") | {"ConvsOut"}),
    ],
)
def test_each_fold_changes_its_layers(name: str, changed: set[str]) -> None:
    report = folded()[1][name]
    assert changed <= set(report.changed)
    assert not report.declined


def test_folded_network_computes_the_same() -> None:
    net, _ = folded()
    with torch.no_grad():
        torch.testing.assert_close(net(PROBE), tiny()(PROBE), **FOLDED_FLOAT32)


def test_folded_parameters() -> None:
    before, after = tiny().state_dict().keys(), folded()[0].state_dict().keys()
    assert after - before == of("g_layer.mamba.in_proj.bias", "g_layer.mamba.A")
    norms = {f"{norm}.{leaf}" for norm in NORMS for leaf in ("weight", "bias")}
    scales = of("lamb_g", "lamb_l", "inside_all", "beta", "gamma", "g_layer.mamba.A_log")
    unused = of("conv3_2.weight", "conv3_2.bias") | {k for k in before if k.startswith("ConvsOut")}
    assert before - after == norms | scales | unused


def test_the_weight_of_the_global_branch_is_folded_into_out_proj() -> None:
    block = tiny().decoders[3][0]
    assert isinstance(block, ALGBlock)
    assert block.inside_all is not None and block.lamb_g is not None
    scale = (1 + block.inside_all.flatten()) * block.lamb_g
    out_proj = block.g_layer.mamba.out_proj
    expected = scale.view(-1, 1) * out_proj.weight
    changes = fold_feature_aggregation(block, (PROBE,))
    assert changes.changed == ["lamb_g"]
    torch.testing.assert_close(out_proj.weight, expected)
    assert fold_feature_aggregation(block, (PROBE,)).declined == [("lamb_g", "already folded")]


def test_rates_are_computed_once() -> None:
    mamba = tiny().decoders[3][0].g_layer.mamba
    rates = -mamba.A_log.exp()
    assert fold_state_matrix(mamba, (PROBE,)).changed == ["A_log"]
    torch.testing.assert_close(mamba.A.data, rates.data)
    assert fold_state_matrix(mamba, (PROBE,)).declined == [("A_log", "already folded")]


class Normalized(nn.Module):
    """Instance normalization of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = InstanceNorm2d(3)

    def forward(self, image: Tensor) -> Tensor:
        return self.forward_padded(image)

    def forward_padded(self, image: Tensor) -> Tensor:
        return self.norm(image)  # type: ignore[no-any-return]


def test_instance_norm_of_a_large_image_on_onnxruntime() -> None:
    """The mean is ten times the deviation; sequential float32 sums would have an error of 1e-4."""
    net = Normalized().eval()
    model = to_onnx(net, ImageSpec(16), "portable", None)
    session = ort.InferenceSession(ir.to_proto(model).SerializeToString())
    x = 1 + 0.1 * torch.rand(1, 3, 720, 1280, generator=torch.Generator().manual_seed(0))
    (y,) = session.run(None, {"image": x.numpy()})
    with torch.no_grad():
        exact = net.double()(x.double()).numpy()
    assert np.sqrt(np.square(y - exact).mean()) < LAYER_FLOAT32
