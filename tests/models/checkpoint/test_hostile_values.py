"""Tensors that are no weights, values that are no numbers, and keys that command a terminal: each
is refused in one line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from deblur_export.models.checkpoint import fingerprint, load_model
from tests.models.checkpoint_files import (
    State,
    random_state,
    refusal,
    save,
)

STATE = random_state("nafnet")
DAMAGED = "truncated, corrupt or not a checkpoint; copy or download it again"
UNSAFE = "which could run code; refused. Save only the state dict: torch.save(model.state_dict(), "


def load(path: Path) -> str:
    return load_model(None, None, str(path)).sha256


KINDS: dict[str, tuple[Callable[[Tensor], object], str]] = {
    "int8": (lambda v: v.to(torch.int8), "int8 instead of float32"),
    "uint8": (lambda v: v.abs().to(torch.uint8), "uint8 instead of float32"),
    "int64": (Tensor.long, "int64 instead of float32"),
    "bool": (Tensor.bool, "bool instead of float32"),
    "complex64": (lambda v: v.to(torch.complex64), "complex64"),
    "complex128": (lambda v: v.to(torch.complex128), "complex128"),
    "float8_e4m3fn": (lambda v: v.to(torch.float8_e4m3fn), "float8_e4m3fn"),
    "float8_e5m2": (lambda v: v.to(torch.float8_e5m2), "float8_e5m2"),
    "float8_e8m0fnu": (lambda v: v.to(torch.float8_e8m0fnu), "float8_e8m0fnu"),
    "float4": (
        lambda v: torch.zeros(v.shape, dtype=torch.uint8).view(torch.float4_e2m1fn_x2),
        "float4_e2m1fn_x2",
    ),
    "uint16": (lambda v: v.to(torch.uint16), "uint16"),
    "sparse": (Tensor.to_sparse, "sparse"),
    "sparse CSR": (lambda v: v.flatten(1).to_sparse_csr(), "sparse"),
    "meta": (lambda v: v.to("meta"), "on the meta device, without values"),
    "quantized": (lambda v: torch.quantize_per_tensor(v, 0.1, 0, torch.qint8), "quantized"),
    "nested": (lambda v: torch.nested.nested_tensor([v, v[:1]]), "nested"),
    "negated": (lambda v: torch.complex(v, v).conj().imag, "lazily negated"),
    "NumPy": (lambda v: v.numpy(), ""),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("key", ["intro.weight", "decoders.0.0.conv4.weight"])
@pytest.mark.filterwarnings("ignore")
def test_tensors_that_are_no_weights(key: str, kind: str, tmp_path: Path) -> None:
    convert, why = KINDS[kind]
    path = tmp_path / "net.pth"
    torch.save({"state_dict": {**STATE, key: convert(STATE[key])}}, path)
    for name in (None, "nafnet"):
        message = refusal(lambda name=name: load_model(name, None, str(path)))
        if why:
            assert f"(state_dict.{key}: {why})" in message
        else:
            assert "1 missing" in message or "none of the known models" in message


@pytest.mark.parametrize("kind", ["int8", "uint8", "bool", "float8_e4m3fn", "complex64"])
def test_safetensors_that_are_no_weights(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    state = {key: KINDS[kind][0](value) for key, value in STATE.items()}
    safetensors.torch.save_file(state, path)
    message = refusal(lambda: load(path))
    assert f"{len(STATE)} tensors" in message
    assert "beta: " in message


def damaged(value: float, **dtype: Any) -> State:
    state = {key: tensor.to(**dtype) if dtype else tensor.clone() for key, tensor in STATE.items()}
    state["encoders.3.1.conv4.weight"][0, 0] = value
    return state


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite(value: float, tmp_path: Path) -> None:
    path = save(damaged(value), tmp_path / "net.pth")
    message = refusal(lambda: load(path))
    assert "1 tensors contain NaN or infinity (encoders.3.1.conv4.weight); the training" in message


def test_values_beyond_float32(tmp_path: Path) -> None:
    path = save(damaged(1e300, dtype=torch.float64), tmp_path / "net.pth")
    message = refusal(lambda: load(path))
    assert (
        "1 tensors have values beyond the range of float32 (encoders.3.1.conv4.weight)" in message
    )


def test_other_weights_may_be_damaged(tmp_path: Path) -> None:
    content = {"params": STATE, "params_ema": damaged(float("nan"))}
    path = save(content, tmp_path / "net.pth")
    assert load(path) == fingerprint(STATE)
    assert "NaN or infinity" in refusal(lambda: load_model(None, None, str(path), ema=True))


@pytest.mark.parametrize("key", ["\x1b[2J\x1b]0;title\x07", "a" * 10_000_000, "\u202egnp"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_keys_are_escaped_and_cut(key: str, suffix: str, tmp_path: Path) -> None:
    path = save({**STATE, key: torch.ones(3)}, tmp_path / f"net{suffix}")
    message = refusal(lambda: load(path))
    assert "1 unexpected (" in message
    assert message.isprintable()
    assert len(message) < 1000
    path = save({key: torch.ones(3)}, path)
    message = refusal(lambda: load(path))
    assert "none of the known models" in message
    assert message.isprintable()
    assert len(message) < 1000
