"""Files that other tools edited: verified and run on both runtimes, or refused in one line."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from deblur_export.artifact import sidecar_path
from tests import needs
from tests.conftest import FIXED_SIZE, Exported
from tests.edits import EDITS
from tests.test_cli import Invoke, assert_refused, invoke, photo

__all__ = ["invoke"]  # a fixture
pytestmark = pytest.mark.matrix
BODIES, SCAN = "dropped the bodies of its custom ops", "Conversion is failed for: Scan"
LAYOUT = "No conversion rule found for operations: com.microsoft.nchwc"
# What is refused, and the words. All else must be right.
REFUSED = {
    ("opset 21", network, runtime): BODIES
    for network in ("m2aenet", "algnet")
    for runtime in ("onnxruntime", "openvino")
}
REFUSED |= {(edit, "algnet", "openvino"): SCAN for edit in ("inlined", "inlined, opset 21")}


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


@pytest.mark.parametrize("network", ["nafnet", "m2aenet", "algnet"])
@pytest.mark.parametrize("edit", EDITS)
def test_edited_files(
    exported: Exported, invoke: Invoke, tmp_path: Path, edit: str, network: str
) -> None:
    source, net = exported(network).path, tmp_path / "net.onnx"
    shutil.copy(source, net)
    EDITS[edit](net)
    photo(tmp_path / "a.png", size=FIXED_SIZE.get(network, (1, 3, 33, 47))[:1:-1])
    for runtime in ("onnxruntime", "openvino"):
        if runtime == "openvino" and not needs.OPENVINO.installed():
            continue
        shutil.copy(sidecar_path(source), sidecar_path(net))
        on = ("--runtime", runtime)
        mask = ("--mask",) * (network == "m2aenet")
        ran = invoke("run", net, "a.png", "-o", "edited", *on, *mask)
        # A page compares layers too, once is enough.
        page = ("--html", "report.html") * (runtime == "onnxruntime")
        verified = invoke("verify", net, *on, *page)
        words = REFUSED.get((edit, network, runtime))
        if edit.endswith("processor") and runtime == "openvino" and ran[0]:
            words = LAYOUT  # which layout, depends on the processor
        if words:
            assert_refused(ran, words)
            assert_refused(verified, words)
            continue
        assert (ran[0], ran[2]) == (verified[0], verified[2]) == (0, "")
        changed = net.read_bytes() != source.read_bytes()
        assert changed or (edit, network) == ("inlined", "nafnet"), "has no custom ops"
        assert ("was edited after its export" in ran[1]) == changed
        assert ("was edited after its export" in verified[1]) == changed
        assert invoke("run", source, "a.png", "-o", "own", *on)[0] == 0
        difference = np.abs(pixels(tmp_path / "edited/a.png") - pixels(tmp_path / "own/a.png"))
        assert difference.max() <= 1  # rounding to 8 bits
        assert (tmp_path / "edited/a_mask.png").exists() == bool(mask)
        shutil.rmtree(tmp_path / "edited")
        shutil.rmtree(tmp_path / "own")
