"""AIBNet's blocks compared with their formulas, and the folding of their channel attentions."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deblur_export.export.reparam.fold_batch_norm import fold_batch_norm
from deblur_export.export.reparam.fold_channel_attention import fold_channel_attention
from deblur_export.export.reparam.fold_layer_norm import fold_layer_norm
from deblur_export.export.reparam.fold_residual_scale import fold_residual_scale
from deblur_export.export.reparam.infra import TOLERANCE, reparameterize
from deblur_export.models.blocks.aibnet_attention import ChannelAttention
from deblur_export.models.blocks.aibnet_decoupler import Decoupler
from deblur_export.models.blocks.aibnet_hfs import Degrees, HFSBlock, sparse_softmax, top_counts
from deblur_export.models.blocks.aibnet_sfem import SFEM, SFDHBlock
from deblur_export.plugins.ops.dynamic_filter import DYNAMIC_FILTER
from tests.models.test_nafnet import (
    attention,
    depthwise,
    filled,
    gate,
    layer_norm,
    pointwise,
    rand,
)
from tests.tolerances import NOTICEABLE, OP_FLOAT64

SIZES = [(2, 9, 12), (1, 2, 2), (1, 1, 1), (1, 1, 7)]
# Error of logits in float32 relative to the largest: sums of 262,144 products in blocks; measured
# 2e-6 to 5e-6, depending on the matrix library.
LOGITS_FLOAT32 = 2e-5


def vary_statistics(norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.copy_(rand(norm.num_features, seed=11))
    norm.running_var.copy_(rand(norm.num_features, seed=12).abs() + 0.5)


def decoupler(channels: int, kernel_size: int) -> Decoupler:
    block = filled(Decoupler(channels, kernel_size)).double().eval()
    vary_statistics(block.bn)
    return block


def hfs_block(channels: int, normalize_qk: bool = False) -> HFSBlock:
    block = filled(HFSBlock(channels, 5, normalize_qk)).double().eval()
    vary_statistics(block.decoupler.bn)
    return set_scale(block)


def set_scale(block: ChannelAttention) -> ChannelAttention:
    """Avoid saturation: the logits are sums over some hundred pixels of terms near 100."""
    assert block.b is not None
    block.b.data.fill_(-7e3)
    return block


def unfold_formula(block: Decoupler, x: Tensor) -> Tensor:
    """The high-pass part as in FSNet's code: unfold, softmax over the taps, eight groups."""
    n, c, h, w = x.shape
    k, bn = block.bn.num_features // 8, block.bn
    side = round(k**0.5)
    z = torch.einsum("nc,oc->no", x.mean(dim=(2, 3)), block.conv.weight[:, :, 0, 0])
    assert bn.running_mean is not None and bn.running_var is not None
    z = (z - bn.running_mean) / (bn.running_var + 1e-5).sqrt() * bn.weight + bn.bias
    kernels = z.view(n, 8, 1, k, 1).exp()
    kernels = kernels / kernels.sum(dim=3, keepdim=True)
    patches = F.unfold(nn.ReflectionPad2d(side // 2)(x), side).view(n, 8, c // 8, k, h * w)
    return x - (patches * kernels).sum(dim=3).view(n, c, h, w)


@pytest.mark.parametrize(("channels", "kernel_size"), [(8, 5), (24, 5), (16, 3)])
def test_decoupler_computes_the_same_as_fsnets(channels: int, kernel_size: int) -> None:
    block, x = decoupler(channels, kernel_size), rand(2, channels, 6, 9)
    torch.testing.assert_close(block(x), unfold_formula(block, x), **OP_FLOAT64)


def test_decoupler_removes_constants() -> None:
    x = rand(2, 8, 1, 1).expand(2, 8, 5, 4)
    assert decoupler(8, 5)(x).abs().max() < NOTICEABLE


def test_decoupler_in_training_uses_the_batch() -> None:
    block, x = decoupler(8, 5).train(), rand(3, 8, 5, 6)
    pooled = torch.einsum("nc,oc->no", x.mean(dim=(2, 3)), block.conv.weight[:, :, 0, 0])
    high = block(x)
    block.eval()
    block.bn.running_mean = pooled.mean(dim=0).detach()
    block.bn.running_var = pooled.var(dim=0, unbiased=False).detach()
    torch.testing.assert_close(high, block(x), **OP_FLOAT64)


def test_decoupler_refuses_one_image_in_training_and_odd_widths() -> None:
    with pytest.raises(ValueError, match="at least two images"):
        decoupler(8, 5).train()(rand(1, 8, 5, 6))
    for channels, kernel_size in ((12, 5), (8, 4), (8, 7)):
        with pytest.raises(ValueError, match="multiple of 8 channels"):
            Decoupler(channels, kernel_size)


def test_dynamic_filter_gradients_and_refusals() -> None:
    x, weight = rand(2, 2, 3, 4).requires_grad_(), rand(2, 2, 9).requires_grad_()
    assert torch.autograd.gradcheck(lambda *a: DYNAMIC_FILTER[3](*a, group=2), (x, weight))
    for wrong, group, said in (
        (rand(2, 2, 25), 2, "weight is (2, 2, 25), not (2, 2, 9)"),
        (rand(2, 1, 9), 2, "weight is (2, 1, 9), not (2, 2, 9)"),
        (rand(2, 2, 9), 1, "group is 1, not C = 2"),
    ):
        with pytest.raises(ValueError, match=re.escape(said)):
            DYNAMIC_FILTER[3](x, wrong, group=group)


def parts(block: ChannelAttention, x: Tensor, count: int) -> list[Tensor]:
    wide = depthwise(pointwise(x, block.qkv), block.dw).flatten(2)
    c = wide.shape[1] // count
    return [wide[:, i * c : (i + 1) * c] for i in range(count)]


def logits(block: ChannelAttention, query: Tensor, key: Tensor) -> Tensor:
    return torch.einsum("ncp,ndp->ncd", query, key) / block.b


def softmax(z: Tensor) -> Tensor:
    e = (z - z.amax(dim=-1, keepdim=True)).exp()
    return e / e.sum(dim=-1, keepdim=True)


def sfem_formula(block: SFEM, x: Tensor) -> Tensor:
    q1, k1, q2, k2, v = parts(block, x, 5)
    first, second = (softmax(logits(block, q, k)) for q, k in ((q1, k1), (q2, k2)))
    a = (block.a_q1 @ block.a_k1).exp() - (block.a_q2 @ block.a_k2).exp() + 0.8
    y = torch.einsum("ncd,ndp->ncp", first - a * second, v).view_as(x)
    return pointwise(y, block.out)


def small_factor(block: SFEM) -> SFEM:
    for name in ("a_q1", "a_k1", "a_q2", "a_k2"):
        block.get_parameter(name).data.mul_(0.3)
    return block


@pytest.mark.parametrize(("n", "h", "w"), SIZES)
def test_sfem_formula(n: int, h: int, w: int) -> None:
    block = small_factor(set_scale(filled(SFEM(6)).double()))
    x = 5 * rand(n, 6, h, w)
    torch.testing.assert_close(block(x), sfem_formula(block, x), **OP_FLOAT64)


def test_initial_values() -> None:
    """b = sqrt(C), a near 0.8, W = 1, lambda = 0.2; an untrained block adds only SFEM."""
    block = SFDHBlock(16)
    assert block.sfem.b is not None and block.W is not None
    assert block.sfem.b.tolist() == [4.0]
    assert 0.5 < block.sfem.factor().item() < 1.1
    x = rand(1, 16, 4, 5).float()
    torch.testing.assert_close(block(x), x + block.sfem(block.norm1(x)))
    high = HFSBlock(16, 5)
    assert high.b is not None
    assert high.b.tolist() == [4.0]
    torch.testing.assert_close(high.lambda_.data, torch.full((4,), 0.2))


@pytest.mark.parametrize(("n", "h", "w"), SIZES)
def test_sfdh_block_formula(n: int, h: int, w: int) -> None:
    block, x = filled(SFDHBlock(6)).double(), rand(n, 6, h, w)
    small_factor(set_scale(block.sfem))
    normed = layer_norm(x, block.norm1)
    y = x + block.beta * pointwise(
        attention(gate(depthwise(pointwise(normed, block.conv1), block.conv2)), block), block.conv3
    )
    y = y + block.W * sfem_formula(block.sfem, normed)
    hidden = depthwise(pointwise(layer_norm(y, block.norm2), block.conv4), block.conv4_dw)
    expected = y + block.gamma * pointwise(gate(hidden), block.conv5)
    torch.testing.assert_close(block(x), expected, **OP_FLOAT64)


def test_top_counts() -> None:
    assert top_counts(64) == (32, 42, 48, 51)
    assert top_counts(8) == (4, 5, 6, 6)


def sparse_formula(z: Tensor, scale: Tensor) -> Tensor:
    """For each row: sort, keep the largest, softmax, sum."""
    channels, rows = z.shape[-1], []
    for row in z.flatten(0, 1):
        total = torch.zeros_like(row)
        order = row.argsort(descending=True)
        for i in range(4):
            best = order[: channels * (i + 1) // (i + 2)]
            total = total.index_add(0, best, scale[i] * softmax(row[best]))
        rows.append(total)
    return torch.stack(rows).view_as(z)


@pytest.mark.parametrize("spread", [0.01, 1.0, 300.0])
@pytest.mark.parametrize("channels", [8, 16])
def test_sparse_softmax_formula(channels: int, spread: float) -> None:
    z, scale = spread * rand(2, channels, channels), rand(4, seed=3)
    y = sparse_softmax(z, Degrees()(z, z, z, None), scale)
    torch.testing.assert_close(y, sparse_formula(z, scale), **OP_FLOAT64)
    torch.testing.assert_close(y.sum(dim=-1), scale.sum().expand(2, channels), **OP_FLOAT64)
    assert ((y == 0).sum(dim=-1) >= channels - top_counts(channels)[-1]).all()


def test_sparse_softmax_of_equal_logits_keeps_all() -> None:
    z = torch.zeros(1, 8, 8)
    y = sparse_softmax(z, Degrees()(z, z, z, None), torch.full((4,), 0.2))
    torch.testing.assert_close(y, torch.full((1, 8, 8), 0.1))


@pytest.mark.parametrize(("n", "h", "w"), [(2, 9, 12), (1, 3, 3)])
def test_hfs_block_formula(n: int, h: int, w: int) -> None:
    block, x = hfs_block(8), 5 * rand(n, 8, h, w)
    assert isinstance(block, HFSBlock)
    q, k, v = parts(block, unfold_formula(block.decoupler, x), 3)
    weights = sparse_formula(logits(block, q, k), block.lambda_)
    expected = x + torch.einsum("ncd,ndp->ncp", weights, v).view_as(x)
    torch.testing.assert_close(block(x), expected, **OP_FLOAT64)


@pytest.mark.parametrize("size", [(2, 2), (1, 1), (1, 5), (3, 2)])
def test_hfs_block_supports_any_size(size: tuple[int, int]) -> None:
    block, x = hfs_block(8), rand(2, 8, *size)
    y = block(x)
    assert y.isfinite().all()
    torch.testing.assert_close(y, torch.cat([block(x[:1]), block(x[1:])]), **OP_FLOAT64)


def test_normalized_queries_and_keys() -> None:
    block = SFEM(6, normalize_qk=True).double()
    q, k = rand(2, 6, 40), rand(2, 6, 40, seed=1)
    q[0, 0] = 0
    expected = torch.einsum("ncp,ndp->ncd", F.normalize(q, dim=-1), F.normalize(k, dim=-1))
    torch.testing.assert_close(block.logits(q, k), expected / block.b, **OP_FLOAT64)


def test_logits_of_the_paper_grow_with_the_image() -> None:
    """The paper's form implies this, and normalization avoids it."""
    once, twice = rand(1, 6, 40), rand(1, 6, 40).repeat(1, 1, 2)
    for normalize_qk, factor in ((False, 2.0), (True, 1.0)):
        block = SFEM(6, normalize_qk).double()
        torch.testing.assert_close(
            block.logits(twice, twice), factor * block.logits(once, once), **OP_FLOAT64
        )


def test_float32_logits_of_a_large_image() -> None:
    block = SFEM(8)
    q, k = 0.3 + rand(1, 8, 512 * 512), 0.2 + rand(1, 8, 512 * 512, seed=1)
    exact = SFEM(8).double().logits(q.float().double(), k.float().double())
    error = (block.logits(q.float(), k.float()) - exact).abs().max() / exact.abs().max()
    assert error < LOGITS_FLOAT32


class Pair(nn.Module):
    """One block of each kind, as in a sub-decoder."""

    def __init__(self, normalize_qk: bool) -> None:
        super().__init__()
        self.block = filled(SFDHBlock(8, normalize_qk=normalize_qk)).double()
        small_factor(set_scale(self.block.sfem))
        self.hfs = hfs_block(8, normalize_qk)

    def forward(self, x: Tensor) -> Tensor:
        return self.hfs(self.block(x))  # type: ignore[no-any-return]


PASSES = (
    ("fold_batch_norm", fold_batch_norm),
    ("fold_layer_norm", fold_layer_norm),
    ("fold_residual_scale", fold_residual_scale),
    ("fold_channel_attention", fold_channel_attention),
)


@pytest.mark.parametrize("normalize_qk", [False, True])
def test_folds_are_exact_and_complete(normalize_qk: bool) -> None:
    net, probe = Pair(normalize_qk).eval(), (rand(2, 8, 11, 9),)
    folded, reports = reparameterize(net, PASSES, probe)
    changed = {report.name: set(report.changed) for report in reports}
    assert changed["fold_batch_norm"] == {"hfs.decoupler.bn"}
    assert changed["fold_layer_norm"] == {"block.norm1", "block.norm2"}
    assert changed["fold_residual_scale"] == {"block.beta", "block.gamma", "block.W"}
    scales = set() if normalize_qk else {"block.sfem.b", "hfs.b"}
    assert changed["fold_channel_attention"] == scales | {"block.sfem.a", "block.sfem.out"}
    assert all(report.max_error < TOLERANCE for report in reports)
    leaves = {name.rsplit(".", 1)[-1] for name, _ in folded.named_parameters()}
    assert leaves == {"weight", "bias", "a", "lambda_"} | ({"b"} if normalize_qk else set())
    if normalize_qk:
        declined = dict(reports[-1].declined)
        assert set(declined) == {"block.sfem.b", "hfs.b"}
        assert "normalizing the queries" in declined["hfs.b"]


def test_second_fold_changes_nothing() -> None:
    net, probe = Pair(False).eval(), (rand(2, 8, 11, 9),)
    folded, first = reparameterize(net, PASSES[-1:], probe)
    _, second = reparameterize(folded, PASSES[-1:], probe)
    assert not second[0].changed
    assert dict(second[0].declined) == dict.fromkeys(first[0].changed, "already folded")


def test_projecting_first_saves_products_on_large_images_only() -> None:
    for size, saves in (((16, 16), True), ((2, 3), False)):
        _, (report,) = reparameterize(Pair(False).eval(), PASSES[-1:], (rand(1, 8, *size),))
        difference = 8 * 8 * (size[0] * size[1] - 8)
        assert report.macs_before - report.macs_after == difference
        assert (difference > 0) == saves
