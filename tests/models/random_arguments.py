"""Random constructor arguments of each network, to test that they are read from a state dict."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

Arguments = dict[str, Any]


def unet(rng: random.Random) -> Arguments:
    return {
        "width": rng.choice([4, 12, 20, 24]),
        "encoder_blocks": [rng.randint(1, 4) for _ in range(4)],
        "middle_blocks": rng.randint(1, 12),
        "decoder_blocks": [rng.randint(1, 4) for _ in range(4)],
    }


def prior(rng: random.Random) -> Arguments:
    return {"kernel_size": rng.choice([5, 9]), "prior_width": rng.choice([4, 12])}


def aibnet(rng: random.Random) -> Arguments:
    encoder = unet(rng) | prior(rng) | {"width": rng.choice([8, 16])}
    del encoder["decoder_blocks"]
    return encoder | {
        "sub_decoders": rng.randint(1, 3),
        "blocks": rng.randint(1, 3),
        "filter_size": rng.choice([3, 5]),
    }


def dhnet(rng: random.Random) -> Arguments:
    arguments = unet(rng) | {"rank": rng.choice([0, 1, 3]), "routers": rng.choice([1, 2, 4])}
    if rng.random() < 0.5:
        return arguments
    encoder = unet(rng) | prior(rng)
    del encoder["decoder_blocks"]
    return arguments | {"prior": encoder}


def saphn(rng: random.Random) -> Arguments:
    return {
        "widths": [8 * rng.randint(1, 4) for _ in range(4)],
        "encoder_blocks": rng.randint(1, 3),
        "decoder_blocks": rng.randint(1, 3),
        "nonuniform": rng.random() < 0.5,
    }


OF_NETWORK: dict[str, Callable[[random.Random], Arguments]] = {
    "aibnet": aibnet,
    "algnet": unet,
    "dhnet": dhnet,
    "m2aenet": unet,
    "nafnet": unet,
    "saphn": saphn,
    "ufpnet": lambda rng: unet(rng) | prior(rng),
}


def random_arguments(name: str, seed: int) -> Arguments:
    """Random arguments of the network called `name` that are not those of a variant."""
    return OF_NETWORK[name](random.Random(seed))
