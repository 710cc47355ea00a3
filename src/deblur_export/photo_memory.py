"""How large a photo may be: as large as memory allows, and not as Pillow's protection against
decompression bombs has it, whose 179 megapixels panoramas and scans exceed."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deblur_export.errors import DeblurExportError

MEMINFO = Path("/proc/meminfo")
CGROUP = Path("/sys/fs/cgroup")
TEXT = 1 << 26  # bytes of a text or profile inside a PNG file
_LOCK = threading.RLock()


@contextmanager
def without_pixel_limit() -> Iterator[None]:
    """Pillow opens images of any size inside, and PNG files with long texts. Its limits belong to
    the process, so that one thread at a time is inside, and they are put back."""
    from PIL import Image, PngImagePlugin

    with _LOCK:
        before = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = None, TEXT
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = before


def check_memory(width: int, height: int, pixel_bytes: int) -> None:
    """Check that an image fits into the memory that is free.

    Args:
        width, height: of the image in pixels.
        pixel_bytes: needed for each pixel.

    Raises:
        DeblurExportError: it does not; the message does not contain the name of the file.
    """
    needed, free = width * height * pixel_bytes, free_memory()
    if free is not None and needed > free:
        raise DeblurExportError(
            f"{width}x{height} pixels need about {needed / 1e9:.1f} GB of memory, and "
            f"{free / 1e9:.1f} GB are free; close other programs, or crop or shrink the photo"
        )


def free_memory() -> int | None:
    """Bytes that this process can still have, swap included; None where the system does not say."""
    try:
        lines = MEMINFO.read_text(encoding="ascii").splitlines()
        entries = {
            name: int(rest.split()[0]) for name, _, rest in (s.partition(":") for s in lines)
        }
        free = 1024 * (entries["MemAvailable"] + entries.get("SwapFree", 0))
    except (OSError, ValueError, KeyError, IndexError):
        return None
    try:  # the limit of a container; what it caches of files can be given back
        limit = int((CGROUP / "memory.max").read_text(encoding="ascii"))
        used = int((CGROUP / "memory.current").read_text(encoding="ascii"))
        stat = (CGROUP / "memory.stat").read_text(encoding="ascii").split()
        cached = int(stat[stat.index("inactive_file") + 1])
    except (OSError, ValueError, IndexError):
        return free
    return min(free, limit - used + cached)
