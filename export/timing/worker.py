"""One candidate in its own process, which calls `main`.

Requests are lines of JSON on stdin, {"do": NAME, ...}; each is answered by one line on stdout,
{"ok": true, ...} or {"ok": false, "reason": TEXT}. The end of stdin ends the process at once, even
during a run.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from deblur_export.artifact import ModelFile
from deblur_export.errors import DeblurExportError
from deblur_export.export.runtimes.backend import Opening
from deblur_export.export.runtimes.registry import backend
from deblur_export.export.timing import memory
from deblur_export.export.timing.jobs import TORCH, choice_from, job_from
from deblur_export.export.timing.plain import export_plain, root_cause
from deblur_export.export.timing.runners import Runner, open_runner

SHORT = 0.5  # seconds; before a shorter run comes an untimed one, because caches are cold
PROFILED = 10  # number of operators, those that need most of the time
Fields = Mapping[str, Any]


class Worker:
    """Answers requests; their names are those of the public methods."""

    def __init__(self) -> None:
        self.runner: Runner | None = None
        self.arrays: dict[str, np.ndarray[Any, Any]] = {}
        self.was_reset = False
        self.last = float("inf")
        self.settles = False  # whether the second run of a size compiles for that size

    def load(self, request: Fields) -> Fields:
        start = time.perf_counter()
        job = job_from(request["job"])
        self.runner = open_runner(job)
        self.settles = job.engine != TORCH and backend(job.engine).compiles_second_run
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "title": self.runner.title, "notes": self.runner.notes}

    def first(self, request: Fields) -> Fields:
        """The first run of a case, which compiles, allocates and is checked; the peak memory is
        measured from here on."""
        self.was_reset = memory.reset_peak()
        self.last = float("inf")
        reply = self.run(request)
        if self.settles and self.runner is not None:
            self.runner.run(self._feed(request))
        kind = memory.SINCE_RESET if self.was_reset else memory.SINCE_START
        return {**reply, "memory": kind}

    def run(self, request: Fields) -> Fields:
        assert self.runner is not None
        feed = self._feed(request)
        if self.last < SHORT:
            self.runner.run(feed)
        start = time.perf_counter()
        output = self.runner.run(feed)
        self.last = time.perf_counter() - start
        peak = memory.peak_bytes(self.was_reset)
        if "save" in request:
            np.save(request["save"], output)
        return {"seconds": self.last, "peak_bytes": peak}

    def profile(self, request: Fields) -> Fields:
        job, feed = job_from(request["job"]), self._feed(request)
        assert job.file is not None
        opening = Opening(precision=job.precision, threads=job.threads)
        seconds = backend(job.engine).profile(ModelFile(Path(job.file)), feed, opening)
        return {"seconds": dict(seconds.most_common(PROFILED))}

    def plain(self, request: Fields) -> Fields:
        network, path = choice_from(request["network"]), Path(request["path"])
        height, width = request["size"]
        export_plain(network, height, width, request["decision"], path)
        return {}

    def optimized(self, request: Fields) -> Fields:
        from deblur_export.export.pipeline import ExportOptions, trace_model, write_onnx

        model = choice_from(request["network"]).load()
        traced = trace_model(model, ExportOptions())
        for target, path in request["paths"].items():
            write_onnx(model, ExportOptions(target=target), traced, Path(path))
        return {}

    def _feed(self, request: Fields) -> dict[str, np.ndarray[Any, Any]]:
        for path in request["feed"].values():
            if path not in self.arrays:
                self.arrays[path] = np.load(path)
        return {name: self.arrays[path] for name, path in request["feed"].items()}


def answer(handler: Callable[[Fields], Fields], request: Fields) -> dict[str, Any]:
    """The reply to a request, also if it fails."""
    try:
        return {"ok": True, **handler(request)}
    except DeblurExportError as error:
        reason = str(error)
    except MemoryError:
        reason = "out of memory"
    except Exception as error:  # a candidate may raise anything; the others continue
        reason = root_cause(error)
    return {"ok": False, "reason": " ".join(reason.split())}


def _listen(requests: queue.SimpleQueue[str]) -> None:
    for line in sys.stdin:
        requests.put(line)
    os._exit(0)  # the parent has ended, so that nobody waits for the current run


def main() -> None:
    # Libraries print on stdout, so that the replies use a duplicate of it and prints go to stderr.
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    requests: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(requests,), daemon=True).start()
    worker = Worker()
    while True:
        request = json.loads(requests.get())
        replies.write(json.dumps(answer(getattr(worker, request["do"]), request)) + "\n")
        replies.flush()
