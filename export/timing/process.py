"""Start worker processes and send them requests; they end with the parent, even if it is killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from deblur_export import child
from deblur_export.errors import DeblurExportError

WORKER = "from deblur_export.export.timing.worker import main; main()"
LOG_LENGTH = 300  # largest number of characters of the last line of a log
KILLED = -9
OOM_FIRST = "1000"  # oom_score_adj: if memory runs out, Linux kills a worker and not the parent


def environment(threads: int, folder: Path) -> dict[str, str]:
    """The environment of a worker: `threads` threads, which wait without spinning."""
    count = str(threads)
    return os.environ | {
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        "OPENBLAS_NUM_THREADS": count,
        "PYTHONIOENCODING": "utf-8",
        "OMP_WAIT_POLICY": "PASSIVE",
        "KMP_BLOCKTIME": "0",
        # Nothing is cached and the worker itself compiles, so that its first run includes the cost.
        "TORCHINDUCTOR_CACHE_DIR": str(folder / "inductor"),
        "TORCHINDUCTOR_COMPILE_THREADS": "1",
    }


class WorkerProcess:
    """A worker process as a context manager; at its end the process and its children are killed."""

    def __init__(self, threads: int, folder: Path) -> None:
        self.log = folder / f"worker-{os.urandom(4).hex()}.log"
        self.late = False
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                child.python(WORKER),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                encoding="utf-8",
                env=environment(threads, folder),
                # Ctrl-C is for the parent, which then ends the workers.
                start_new_session=True,
            )
        with contextlib.suppress(OSError):
            Path(f"/proc/{self.process.pid}/oom_score_adj").write_text(OOM_FIRST, encoding="utf-8")

    def ask(self, request: str, limit: float | None = None, **fields: Any) -> dict[str, Any]:
        """Send a request and wait for its reply.

        Args:
            request: a method of `worker.Worker`.
            limit: seconds after which the worker is killed; None is no limit.
            fields: arguments of the request.

        Raises:
            DeblurExportError: the worker replies with an error, or has died.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        timer = threading.Timer(limit, self._too_late) if limit is not None else None
        try:
            if timer is not None:
                timer.start()
            self.process.stdin.write(json.dumps({"do": request, **fields}) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            if timer is not None:
                timer.cancel()
        if not line:
            raise DeblurExportError(
                f"not done after {limit:.0f} s" if self.late else self._cause_of_death()
            )
        reply: dict[str, Any] = json.loads(line)
        if not reply["ok"]:
            raise DeblurExportError(reply["reason"])
        return reply

    def _too_late(self) -> None:
        self.late = True
        self.kill()

    def _cause_of_death(self) -> str:
        code = self.process.wait()
        if code == KILLED:
            return "killed (out of memory?)"
        lines = self.log.read_text(errors="replace", encoding="utf-8").strip().splitlines()
        said = f": {lines[-1].strip()}"[:LOG_LENGTH] if lines else ""
        if code < 0:
            return f"crashed ({signal.Signals(-code).name}){said}"
        return f"ended by itself (exit code {code}){said}"

    def kill(self) -> None:
        """Kill the process and its children, such as compilers."""
        with contextlib.suppress(ProcessLookupError):
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
            else:
                self.process.kill()

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
