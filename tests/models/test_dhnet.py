"""DHNet compared with a second implementation, its counts, its frozen prior and its own folds."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deblur_export.export.reparam.infra import TOLERANCE, Rewrite, reparameterize
from deblur_export.export.reparam.merge_experts import merge_experts
from deblur_export.export.reparam.merge_routers import merge_routers
from deblur_export.export.reparam.merge_volterra import merge_volterra
from deblur_export.models import get
from deblur_export.models.blocks.ddre import DDRE
from deblur_export.models.blocks.volterra import VBlock, VolterraFilter
from deblur_export.models.complexity import count_macs, count_parameters
from deblur_export.models.dhnet import DHNet, DHStage
from deblur_export.models.random_weights import randomize
from tests.models.test_nafnet import (
    attention,
    block_formula,
    filled,
    gate,
    layer_norm,
    pointwise,
    rand,
)
from tests.tolerances import (
    MACS_PURE,
    NETWORK_FLOAT32,
    NETWORK_FLOAT64,
    NOTICEABLE,
    OP_FLOAT64,
    RANDOM_RESIDUAL_STD,
)

SPEC = get("dhnet")
TINY = ["tiny", "tiny-prior"]


def tiny(variant: str = "tiny", seed: int = 0, **arguments: Any) -> DHNet:
    net = SPEC.build(**{**SPEC.variants[variant], **arguments})
    assert isinstance(net, DHNet)
    randomize(net, SPEC, seed)
    return net.eval()


def image(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


def grouped(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """Sum over shifted copies of the zero-padded image; output o reads its group's channels."""
    outputs, each, kernel, _ = conv.weight.shape
    height, width = x.shape[-2:]
    around = kernel // 2
    padded = F.pad(x, (around,) * 4)
    per_group = outputs // (x.shape[1] // each)
    assert conv.bias is not None
    y = conv.bias.view(1, -1, 1, 1).expand(len(x), -1, height, width).clone()
    for o in range(outputs):
        for i in range(each):
            source = padded[:, o // per_group * each + i]
            for dy in range(kernel):
                for dx in range(kernel):
                    tap = source[:, dy : dy + height, dx : dx + width]
                    y[:, o] += conv.weight[o, i, dy, dx] * tap
    return y


def volterra(x: Tensor, block: VolterraFilter) -> Tensor:
    y = grouped(x, block.w1)
    for a, b in zip(block.wa, block.wb, strict=True):
        assert isinstance(a, nn.Conv2d) and isinstance(b, nn.Conv2d)
        y = y + grouped(x, a) * grouped(x, b)
    return y


def vblock(x: Tensor, block: VBlock) -> Tensor:
    assert isinstance(block.volterra, VolterraFilter)
    xs = grouped(pointwise(layer_norm(x, block.norm1), block.conv1), block.conv2)
    y = x + block.beta * pointwise(attention(volterra(xs, block.volterra), block), block.conv3)
    ffn = pointwise(gate(pointwise(layer_norm(y, block.norm2), block.conv4)), block.conv5)
    return y + block.gamma * ffn


def mixture(x: Tensor, ddre: DDRE, prior: Tensor | None) -> Tensor:
    """For each image and router: softmax of a linear layer of the means, then weighted experts."""
    rows = []
    for number, sample in enumerate(x):
        means = sample.mean(dim=(1, 2))
        if prior is not None:
            means = torch.cat([means, prior[number].flatten()])
        y = sample
        for router, experts in zip(ddre.routers, ddre.grid, strict=True):
            assert isinstance(router, nn.Linear)
            score = (router.weight @ means + router.bias).exp()
            for weight, expert in zip(score / score.sum(), experts, strict=True):
                assert expert.depthwise is not None
                mapped = grouped(sample[None], expert.depthwise)
                y = y + weight * pointwise(mapped, expert.pointwise)[0]
        rows.append(y)
    return torch.stack(rows)


def key_patterns() -> dict[str, str]:
    """Every name outside the prior and its shape; C and P are the channels of stage and prior."""
    stage = r"(?:encoders\.[0-3]|middle|decoders\.[0-3])"
    block = stage + r"\.blocks\.\d+\."
    patterns = {
        r"intro\.weight": "w 3 3 3",
        r"intro\.bias": "w",
        r"ending\.weight": "3 w 3 3",
        r"ending\.bias": "3",
        r"downs\.[0-3]\.weight": "* * 2 2",
        r"downs\.[0-3]\.bias": "*",
        r"ups\.[0-3]\.0\.weight": "* * 1 1",
        block + r"volterra\.(?:w1|w[ab]\.[0-3])\.weight": "C 2 3 3",
        block + r"volterra\.(?:w1|w[ab]\.[0-3])\.bias": "C",
        block + r"(?:beta|gamma)": "1 C 1 1",
        block + r"norm[12]\.(?:weight|bias)": "C",
        block + r"conv2\.weight": "2C 1 3 3",
        block + r"conv[14]\.weight": "2C C 1 1",
        block + r"conv[124]\.bias": "2C",
        block + r"(?:conv[35]|sca\.1)\.weight": "C C 1 1",
        block + r"(?:conv[35]|sca\.1)\.bias": "C",
        stage + r"\.ddre\.routers\.[0-2]\.weight": "5 C+P",
        stage + r"\.ddre\.routers\.[0-2]\.bias": "5",
        stage + r"\.ddre\.experts\.[0-2]\.[0-4]\.pointwise\.weight": "C C 1 1",
        stage + r"\.ddre\.experts\.[0-2]\.[0-4]\.(?:depth|point)wise\.bias": "C",
    }
    depthwise = stage + r"\.ddre\.experts\.[0-2]\.%d\.depthwise\.weight"
    return patterns | {depthwise % e: f"C 1 {k} {k}" for e, k in enumerate((1, 3, 5, 7, 9))}


def channels_of(key: str, width: int) -> int:
    order = [*(f"encoders.{i}" for i in range(4)), "middle", *(f"decoders.{i}" for i in range(4))]
    at = [number for number, stage in enumerate(order) if key.startswith(stage)]
    return width * 2 ** min(at[0], 8 - at[0]) if at else 0


@pytest.mark.parametrize(("variant", "width", "prior"), [("32", 32, 0), ("64", 64, 1)])
def test_names_and_shapes(variant: str, width: int, prior: int) -> None:
    with torch.device("meta"):
        state = SPEC.build(**SPEC.variants[variant]).state_dict()
    own = {key: value for key, value in state.items() if not key.startswith("prior.")}
    assert (len(own) < len(state)) == bool(prior)
    for key, value in own.items():
        (pattern,) = (p for p in key_patterns() if re.fullmatch(p, key))
        c = channels_of(key, width)
        sizes = {"w": width, "C": c, "2C": 2 * c, "C+P": (1 + prior) * c}
        for size, text in zip(value.shape, key_patterns()[pattern].split(), strict=True):
            assert text == "*" or size == sizes.get(text) or str(size) == text, (key, value.shape)
    assert all(any(re.fullmatch(p, key) for key in own) for p in key_patterns())


def test_prior_has_the_names_of_ufpnet() -> None:
    with torch.device("meta"):
        ours = SPEC.build(**SPEC.variants["64"]).state_dict()
        official = get("ufpnet").build().state_dict()
    prior = {key[6:]: value.shape for key, value in ours.items() if key.startswith("prior.")}
    assert prior.items() <= {key: value.shape for key, value in official.items()}.items()
    left_out = {key.split(".")[0] for key in official.keys() - prior.keys()}
    assert left_out == {"ups", "decoders", "ending", "kernel_down"}


@pytest.mark.parametrize(
    ("arguments", "parameters", "gmacs", "published"),
    [
        ({"width": 32}, 25_883_946, 31.415, 32),
        *(
            pytest.param(*row, marks=pytest.mark.slow)
            for row in (
                ({"width": 64}, 98_519_498, 112.093, 111),
                ({"width": 64, "rank": 0}, 95_652_170, 107.209, 106),
                ({"width": 64, "rank": 1}, 96_607_946, 108.837, 107),
                ({"width": 64, "rank": 2}, 97_245_130, 109.922, 109),
                ({"width": 64, "rank": 8}, 101_068_234, 116.434, 119),
            )
        ),
    ],
)
def test_counts(arguments: dict[str, int], parameters: int, gmacs: float, published: int) -> None:
    with torch.device("meta"):
        net = DHNet(**arguments)
    assert count_parameters(net) == parameters
    pure = count_macs(net, 256, 256).pure
    assert pure == pytest.approx(gmacs * 1e9, rel=MACS_PURE)
    # The paper's last rank fits no filter of rank Q, see models/dhnet.py.
    assert pure == pytest.approx(published * 1e9, rel=0.022 if published == 119 else 0.02)


def test_the_prior_is_outside_the_published_count() -> None:
    with torch.device("meta"):
        net = SPEC.build(**SPEC.variants["64"])
    wider = 15 * sum(64 * 2**level for level in (0, 1, 2, 3, 4, 3, 2, 1, 0))  # routers' inputs
    assert count_parameters(net, ["prior"]) == 98_519_498 + wider
    assert count_parameters(net) - count_parameters(net, ["prior"]) == 74_044_562
    assert count_macs(net, 256, 256, ["prior"]).pure == 112_092_990_592 + wider


@pytest.mark.parametrize(("n", "h", "w"), [(2, 6, 5), (1, 1, 1)])
@pytest.mark.parametrize("rank", [1, 4])
def test_block_is_the_formula(rank: int, n: int, h: int, w: int) -> None:
    block, x = filled(VBlock(3, rank=rank)), rand(n, 3, h, w, seed=9)
    with torch.no_grad():
        torch.testing.assert_close(block(x), vblock(x, block), **OP_FLOAT64)


def test_rank_zero_is_the_block_of_nafnet() -> None:
    block, x = filled(VBlock(3, rank=0)), rand(2, 3, 4, 5, seed=9)
    torch.testing.assert_close(block(x), block_formula(block, x), **OP_FLOAT64)


@pytest.mark.parametrize(("n", "h", "w", "prior"), [(2, 11, 6, 3), (1, 1, 1, 0)])
def test_mixture_is_the_formula(n: int, h: int, w: int, prior: int) -> None:
    ddre, x = filled(DDRE(4, prior, routers=2)), rand(n, 4, h, w, seed=9)
    means = rand(n, prior, 1, 1, seed=5) if prior else None
    with torch.no_grad():
        torch.testing.assert_close(ddre(x, means), mixture(x, ddre, means), **OP_FLOAT64)


@pytest.mark.parametrize("variant", TINY)
def test_network_is_its_stages(variant: str) -> None:
    net, x = tiny(variant).double(), image(2, 3, 16, 32)
    with torch.no_grad():
        priors: list[Tensor | None] = [None] * 5
        if net.prior is not None:
            priors = [p.mean(dim=(2, 3), keepdim=True) for p in net.prior(x)]

        def stage(module: nn.Module, y: Tensor, scale: int) -> Tensor:
            assert isinstance(module, DHStage)
            for block in module.blocks:
                y = block(y)
            return module.ddre(y, priors[scale])  # type: ignore[no-any-return]

        y, skips = F.conv2d(x, net.intro.weight, net.intro.bias, padding=1), []
        for level in range(4):
            skips.append(stage(net.encoders[level], y, level))
            y = net.downs[level](skips[-1])
        y = stage(net.middle, y, 4)
        for level in (3, 2, 1, 0):
            y = stage(net.decoders[3 - level], net.ups[3 - level](y) + skips[level], level)
        y = F.conv2d(y, net.ending.weight, net.ending.bias, padding=1) + x
        torch.testing.assert_close(net(x), y, **NETWORK_FLOAT64)


def test_the_prior_receives_the_image_padded_with_zeros_and_no_noise() -> None:
    net, x = tiny("tiny-prior").double(), image(1, 3, 21, 30)
    assert net.prior is not None
    seen: list[tuple[Tensor, ...]] = []
    net.prior.register_forward_pre_hook(lambda module, inputs: seen.append(inputs))
    net(x)
    ((canvas,),) = seen
    assert canvas.shape == (1, 3, 32, 32)
    assert torch.equal(canvas[..., :21, :30], x)
    assert torch.count_nonzero(canvas) == torch.count_nonzero(x)


@pytest.mark.parametrize("variant", TINY)
@pytest.mark.parametrize("size", [(1, 1), (5, 3), (16, 16), (33, 17)])
def test_any_size_and_a_batch_is_its_images(variant: str, size: tuple[int, int]) -> None:
    net, x = tiny(variant).double(), image(2, 3, *size)
    with torch.no_grad():
        y = net(x)
        alone = torch.cat([net(x[:1]), net(x[1:])])
    assert y.shape == x.shape
    assert y.isfinite().all()
    torch.testing.assert_close(y, alone, **NETWORK_FLOAT64)


@pytest.mark.parametrize("variant", TINY)
def test_training_is_the_same_function_with_a_frozen_prior(variant: str) -> None:
    net, x = tiny(variant).double(), image(2, 3, 20, 33)
    before = net(x)
    net.train()
    y = net(x)
    torch.testing.assert_close(y, before, **NETWORK_FLOAT64)
    y.backward(rand(*y.shape))
    for name, parameter in net.named_parameters():
        assert parameter.requires_grad != name.startswith("prior."), name
        assert (parameter.grad is None) == name.startswith("prior."), name
    assert net.ending.training
    if net.prior is not None:
        assert not any(module.training for module in net.prior.modules())
        means = net.prior_means(image(1, 3, 16, 16).requires_grad_())
        assert not any(mean is None or mean.requires_grad for mean in means)


@pytest.mark.parametrize("variant", TINY)
def test_every_parameter_matters(variant: str) -> None:
    """To first order; of a router's weights, those for the stage and those for the prior."""
    net, x = tiny(variant).double(), image(1, 3, 32, 48)
    net(x).backward(rand(*x.shape))
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None
            change = (parameter.grad * parameter).abs()
            parts = change.chunk(2, dim=1) if re.search(r"routers\.\d\.weight", name) else [change]
            assert all(part.max() > NOTICEABLE for part in parts), name


def test_every_parameter_of_the_prior_matters() -> None:
    net, x = tiny("tiny-prior").double(), image(1, 3, 32, 48)
    assert net.prior is not None
    net.prior.requires_grad_(True)
    means = [features.mean(dim=(2, 3)) for features in net.prior(x)]
    torch.autograd.backward(means, [rand(*mean.shape) for mean in means])
    for name, parameter in net.prior.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad * parameter).abs().max() > NOTICEABLE, name


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("variant", TINY)
def test_random_weights_exercise_every_branch(variant: str, seed: int) -> None:
    net, x = tiny(variant, seed), image(1, 3, 64, 80, seed=seed).float()
    weights: list[Tensor] = []
    for module in net.modules():
        if isinstance(module, DDRE):
            module.register_forward_pre_hook(
                lambda ddre, inputs: weights.append(ddre.router_weights(*inputs))
            )
    with torch.no_grad():
        y = net(x)
        exact = tiny(variant, seed).double()(x.double())
    low, high = RANDOM_RESIDUAL_STD
    assert low < (y - x).std() < high
    torch.testing.assert_close(y, exact.float(), **NETWORK_FLOAT32)
    assert len(weights) == 9
    assert all(weight.min() > 0.005 and weight.max() < 0.9 for weight in weights)
    assert max(weight.max() for weight in weights) > 0.25, "equal weights would test little"


def test_local_pooling_is_in_the_attention_only() -> None:
    """Beyond the window the local form differs; the routers pool over the whole image in both."""
    local, net, x = tiny(train_size=32), tiny(), image(1, 3, 64, 80).float()
    assert all(m.pool.window is None for m in local.modules() if isinstance(m, DDRE))
    with torch.no_grad():
        assert (local(x) - net(x)).abs().max() > NOTICEABLE
        small = x[..., :32, :48]
        torch.testing.assert_close(local(small), net(small), **NETWORK_FLOAT32)
    with_prior = tiny("tiny-prior", train_size=32)
    assert with_prior.prior is not None
    windows = {m.window for m in with_prior.prior.modules() if hasattr(m, "window")}
    assert windows == {48, 24, 12, 6, 3}


@pytest.mark.parametrize("shape", [(1, 4, 16, 16), (3, 16)])
def test_wrong_input_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises((RuntimeError, ValueError, IndexError)):
        tiny()(torch.rand(shape))


# What each fold changes, and the keys that disappear with it.
GONE = {
    "volterra": ({"blocks.0.volterra", "blocks.1.volterra"}, r".*\.w[ab]\.\d\.(weight|bias)"),
    "routers": ({"ddre"}, r".*\.routers\.[12]\.(weight|bias)"),
    "experts": ({"ddre"}, r".*\.experts\.\d\.0\.depthwise\.(weight|bias)"),
}
FOLDS: dict[str, Rewrite] = {
    "volterra": merge_volterra,
    "routers": merge_routers,
    "experts": merge_experts,
}


@pytest.mark.parametrize("order", [list(FOLDS.items()), list(FOLDS.items())[::-1]])
def test_own_folds(order: list[tuple[str, Rewrite]]) -> None:
    """Verified one after the other in both orders; a second time they change nothing."""
    net = filled(DHStage(4, 2, None, rank=4, routers=3, prior_channels=5)).eval()
    probe = (rand(2, 4, 9, 6), rand(2, 5, 1, 1))
    folded, reports = reparameterize(net, order, probe)
    gone = net.state_dict().keys() - folded.state_dict().keys()
    assert not folded.state_dict().keys() - net.state_dict().keys()
    for report in reports:
        changed, pattern = GONE[report.name]
        assert set(report.changed) == changed
        assert report.max_error <= TOLERANCE
        keys = {key for key in net.state_dict() if re.fullmatch(pattern, key)}
        assert keys and keys <= gone
        gone -= keys
    assert not gone
    other = (rand(1, 4, 3, 11, seed=3), rand(1, 5, 1, 1, seed=4))
    with torch.no_grad():
        torch.testing.assert_close(folded(*other), net(*other), **NETWORK_FLOAT64)
        for name, rewrite in order:
            again = rewrite(folded, probe)
            assert not again.changed
            already = {where for where, why in again.declined if why == "already folded"}
            assert already == GONE[name][0]


def test_merged_experts_save_products() -> None:
    """One C x C product instead of R, and no depth-wise 1x1; the matrix itself costs R C^2."""
    ddre = filled(DDRE(4, routers=3)).eval()
    _, (report,) = reparameterize(ddre, [("it", merge_experts)], (rand(1, 4, 6, 5),))
    saved = 30 * (3 * (16 + 4) - 16) - 3 * 16 - 3 * 4
    assert report.macs_before - report.macs_after == saved
    assert "keep their own 1x1" in report.declined[0][1]
