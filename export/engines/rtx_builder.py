"""TensorRT for RTX: builds without a GPU; the engine is compiled on the machine that runs it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from deblur_export.artifact import Artifact
from deblur_export.engine_record import Profile
from deblur_export.errors import DeblurExportError
from deblur_export.export.engines import nvinfer
from deblur_export.export.engines.nvinfer import Built, CannotBuildHereError, Listener
from deblur_export.export.engines.options import BuildOptions
from deblur_export.export.engines.stored_weights import stored_weights
from deblur_export.export.runtimes import nvinfer_log
from deblur_export.export.runtimes.probe import version_tuple
from deblur_export.precision import PRECISIONS
from deblur_export.target import TARGETS

MIN_VERSION = (1, 7)
# What an engine is for if no compute capability is named, as NVIDIA documents it ("CPU-Only AOT and
# TensorRT-RTX Engines" of its documentation); the library itself does not say.
# https://docs.nvidia.com/deeplearning/tensorrt-rtx/latest/inference-library/cpu-engines.html
DEFAULT_GPUS = "8.0, 8.6, 8.9, 12.0 and later"


def open_builder(options: BuildOptions) -> RtxBuilder:
    """TensorRT for RTX.

    Raises:
        CannotBuildHereError: it is not installed, or too old.
        DeblurExportError: it is asked for what it does not have.
    """
    try:
        import tensorrt_rtx
    except ImportError as error:
        raise CannotBuildHereError(
            "TensorRT for RTX is not installed; pip install 'deblur-export[rtx]'"
        ) from error
    builder = RtxBuilder(tensorrt_rtx)
    _refuse_options(builder.title, options)
    builder.capabilities(options)
    return builder


class RtxBuilder:
    """See `builder.Builder`."""

    reason = "installed, and needs no GPU to build"
    suffix = ".rtx.engine"  # TensorRT does not load it

    def __init__(self, trt: ModuleType) -> None:
        self.trt = trt
        self.version = str(trt.__version__)
        self.title = f"TensorRT for RTX {self.version}"
        self.covers = (
            f"can be asked for compute capability {', '.join(self._known_capabilities())}; without "
            f"--compute-capability, NVIDIA documents, an engine is for {DEFAULT_GPUS}; none was "
            "ever executed by the authors of this package"
        )
        if version_tuple(self.version) < MIN_VERSION:
            least = ".".join(map(str, MIN_VERSION))
            raise CannotBuildHereError(
                f"{self.title} is too old, {least} or newer is needed; "
                "pip install -U 'deblur-export[rtx]'"
            )

    def capabilities(self, options: BuildOptions) -> list[Any]:
        """The compute capabilities asked for, as the library names them; empty for its default.

        Raises:
            DeblurExportError: one that the library does not have.
        """
        known = self._known_capabilities()
        strange = [text for text in options.compute_capabilities if text not in known]
        if strange:
            raise DeblurExportError(
                f"{self.title} builds for compute capability {', '.join(known)}, not for "
                f"{', '.join(strange)}; other GPUs need TensorRT"
            )
        return [known[text] for text in options.compute_capabilities]

    def _known_capabilities(self) -> Mapping[str, Any]:
        """ "8.9" -> ComputeCapability.SM89."""
        found = {}
        for name, value in self.trt.ComputeCapability.__members__.items():
            digits = re.fullmatch(r"SM(\d+)(\d)", name)
            if digits:
                found[f"{digits[1]}.{digits[2]}"] = value
        return dict(sorted(found.items(), key=lambda item: float(item[0])))

    def check(self, artifact: Artifact) -> None:
        target = artifact.manifest.target
        form, ops = TARGETS[target], artifact.manifest.custom_ops
        if form.belongs_to or (ops and (form.loops or form.large_topk)):
            raise DeblurExportError(
                f"{artifact.path}: exported with --target {target}, which {self.title} cannot "
                "build; export it with deblur-export onnx --target rtx"
            )

    def build(
        self, artifact: Artifact, profile: Profile | None, options: BuildOptions, listener: Listener
    ) -> Built:
        self.check(artifact)
        path = artifact.path
        log = nvinfer_log.message_log(self.trt)
        self._refuse_precision(options)
        parsed = nvinfer.parse(self.trt, artifact.content, log, str(path))
        config = nvinfer.configure(self.trt, parsed, profile, options)
        capabilities = self.capabilities(options)
        if capabilities:
            config.num_compute_capabilities = len(capabilities)
            for index, capability in enumerate(capabilities):
                config.set_compute_capability(capability, index)
        data = nvinfer.serialize(self.trt, parsed, config, listener, str(path))
        census = nvinfer.census(self.trt, parsed.network)
        gpus = ", ".join(options.compute_capabilities)
        note = f"for compute capability {gpus or DEFAULT_GPUS}"
        if not gpus:
            note += " (NVIDIA's documentation of the default; older ones must be asked for)"
        stored, expected = stored_weights(data, artifact) or (None, None)
        return Built(data, census, stored, notes=(note,), expected=expected)

    def _refuse_precision(self, options: BuildOptions) -> None:
        """Older GPUs do not compute in every precision."""
        for text in options.compute_capabilities:
            parts = options.precision.split("+")
            strange = [part for part in parts if PRECISIONS[part].rtx_since > float(text)]
            if strange:
                raise DeblurExportError(
                    f"{self.title} has no {' and no '.join(strange)} on compute capability {text}; "
                    "build an engine of its own for that"
                )


def _refuse_options(title: str, options: BuildOptions) -> None:
    """What only TensorRT has."""
    given = {
        "--plugins": options.plugins,
        "--timing-cache": options.timing_cache,
        "--version-compatible": options.version_compatible,
        "--hardware-compatible": options.hardware_compatible,
    }
    strange = [name for name, value in given.items() if value]
    if strange:
        raise DeblurExportError(f"{title} has no {', '.join(strange)}; leave that out")
