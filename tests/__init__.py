"""The tests. The package comes first, because it turns the telemetry of the runtimes off."""

import deblur_export  # noqa: F401
