"""Where the time of a file goes: seconds a run by type of operator, as its runtime tells."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from deblur_export.export.timing.engines import Feed
from deblur_export.export.timing.jobs import Job

LARGEST = 10
RUNS = 3  # after one that warms up


def profile(job: Job, feed: Feed) -> dict[str, float]:
    """The operators that take most of the time, at most `LARGEST`, the largest first.

    Raises:
        DeblurExportError: OpenVINO cannot load the file.
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
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
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
    from deblur_export.export.runtimes.openvino_session import OpenVinoSession

    assert job.file is not None
    session = OpenVinoSession(
        Path(job.file), precision=job.precision, threads=job.threads, counting=True
    )
    seconds: Counter[str] = Counter()
    for run in range(2 + RUNS):  # the second compiles for the size
        session.run(feed)
        if run > 1:
            for name, time in session.seconds_by_type():
                seconds[name] += time / RUNS
    return seconds
