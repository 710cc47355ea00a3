"""The folds of the captured graph find what the folds of our own classes find."""

from __future__ import annotations

import pytest
import torch

from deblur_export.export.capture import capture_again
from deblur_export.export.graph_folds.fold import fold
from deblur_export.export.reparam.fold_layer_norm import fold_layer_norm
from deblur_export.export.reparam.fold_residual_scale import fold_residual_scale
from deblur_export.export.reparam.infra import reparameterize
from deblur_export.export.to_onnx import without_padding
from deblur_export.models.checkpoint import load_model


@pytest.mark.parametrize("name", ["nafnet", pytest.param("m2aenet", marks=pytest.mark.slow)])
def test_same_places_and_output(name: str) -> None:
    model = load_model(name, "tiny", "random:0")
    passes = [("norms", fold_layer_norm), ("scales", fold_residual_scale)]
    probe = torch.rand(1, 3, 41, 37, generator=torch.Generator().manual_seed(0))
    net, (norms, scales) = reparameterize(model.net, passes, (probe,))
    core = without_padding(model.net)
    free = ("batch", "height", "width")
    found, reports = fold(capture_again(core, model.images, free, (1, 3, 64, 64)), model.images)
    changed = {report.name: set(report.changed) for report in reports}
    assert set(norms.changed) <= changed["fold_norm_affine"]
    assert set(scales.changed) <= changed["fold_scale"]
    image = torch.rand(1, 3, 64, 48, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        torch.testing.assert_close(
            found.program.module(check_guards=False)(image),
            without_padding(net)(image),
            rtol=0,
            atol=1e-4,
        )
