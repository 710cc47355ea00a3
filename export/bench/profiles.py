"""Where the time of a file goes: seconds a run by type of operator, as its runtime tells."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deblur_export.errors import DeblurExportError
from deblur_export.export.bench.engines import Feed
from deblur_export.export.bench.jobs import Job

LARGEST = 10
RUNS = 3  # after one that warms up


def profile(job: Job, feed: Feed) -> dict[str, float]:
    """The operators that take most of the time, at most `LARGEST`, the largest first.

    Raises:
        DeblurExportError: the runtime cannot load the file.
    """
    seconds = _openvino(job, feed) if job.engine == "openvino" else _onnxruntime(job, feed)
    return dict(seconds.most_common(LARGEST))


def _onnxruntime(job: Job, feed: Feed) -> Counter[str]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.intra_op_num_threads = job.threads
    options.enable_profiling = True
    with TemporaryDirectory() as folder:
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(
            job.file, options, providers=["CPUExecutionProvider"]
        )
        for _ in range(1 + RUNS):
            session.run(None, dict(feed))
        events = json.loads(Path(session.end_profiling()).read_text())
    return _by_operator(events)


def _by_operator(events: list[dict[str, Any]]) -> Counter[str]:
    """Seconds a run from ONNX Runtime's trace (microseconds), the first run left out."""
    runs = sorted((e for e in events if e.get("name") == "model_run"), key=lambda e: e["ts"])
    start = runs[0]["ts"] + runs[0]["dur"]
    seconds: Counter[str] = Counter()
    for event in events:
        name = event.get("args", {}).get("op_name")
        # An If or Scan contains its body, whose nodes have entries of their own.
        if name and event["ts"] >= start and name not in ("If", "Scan", "Loop"):
            seconds[name] += event["dur"] / 1e6 / (len(runs) - 1)
    return seconds


def _openvino(job: Job, feed: Feed) -> Counter[str]:
    import onnx
    import openvino

    from deblur_export.export.runtimes import inlined
    from deblur_export.plugins.openvino_extension import find

    assert job.file is not None
    core, file = openvino.Core(), onnx.load(job.file)
    extension = find(openvino.__version__).path
    if extension is not None:
        core.add_extension(str(extension))
    elif file.functions:
        file = inlined(file)
    config = {
        "INFERENCE_PRECISION_HINT": job.precision,
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": str(job.threads),
        "PERF_COUNT": True,
    }
    try:
        model = core.compile_model(core.read_model(file.SerializeToString()), "CPU", config)
    except RuntimeError as error:
        raise DeblurExportError(str(error).strip().splitlines()[-1]) from error
    request = model.create_infer_request()
    seconds: Counter[str] = Counter()
    for run in range(1 + RUNS):
        request.infer(dict(feed))
        if run:
            for node in request.get_profiling_info():
                seconds[node.node_type] += node.real_time.total_seconds() / RUNS
    return seconds
