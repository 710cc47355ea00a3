"""What every session of ONNX Runtime here has in common."""

from __future__ import annotations

import onnxruntime

FATAL = 4


def session_options(threads: int = 0) -> onnxruntime.SessionOptions:
    """Options of a session with a number of threads, 0 for one for each core.

    Its errors are raised and so not logged as well; its warnings, like those about nodes that it
    did not fold, are for its own developers. Threads that spin while they wait slow a busy machine
    down tenfold and gain nothing here.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.intra_op_num_threads = threads
    return options
