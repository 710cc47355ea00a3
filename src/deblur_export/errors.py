"""The one error type that reaches people: what was wrong, and what to do about it."""

from __future__ import annotations


class DeblurExportError(Exception):
    """Bad input or a failed step, described for a person.

    The command line prints the message on one line and exits with 2; from Python it is an
    ordinary exception.
    """


class CheckFailedError(DeblurExportError):
    """A check ran and did not hold (parity, a pass's tolerance). The command line exits with 1."""
