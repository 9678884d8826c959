"""F9: a small file that would fill the memory is refused or decoded within 1 GB, in a bounded amount of work."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import SkipTest

from PIL import Image, features

from tests.faults.builds import row
from tests.faults.rows import FaultRow
from tests.image_writers import (
    deflated_zeros,
    encoded,
    exif_bomb,
    many_scans,
    png_file,
    rgb_tags,
    shared_values_tiff,
    tiff_file,
)
from tests.odd_images import odd_images

SHORT = 5
LONG = 40
LIMIT_MB = 1000
LIMIT_SECONDS = 60  # of processor time
SIDE = 8192  # PIXEL_LIMIT is its square
ROOT = Path(__file__).resolve().parent.parent.parent
CHILD = """
import sys, time
from pipeline.build.images import encode_sizes
from pipeline.errors import IntegrityError
from pipeline.records import Item, Recipe
data = open(sys.argv[1], "rb").read()
try:
    encode_sizes(data, Item("", 0), Recipe())
    what = "decoded"
except IntegrityError as error:
    what = "refused"
lines = open("/proc/self/status").read().splitlines()  # ru_maxrss begins with the parent's memory
(peak,) = (int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
print(what, peak // 1024, time.process_time())
"""


def run(points: int, folder: Path) -> FaultRow:
    """Decode each bomb in a process of its own and read its largest memory."""
    if not Path("/proc/self/status").exists():
        raise SkipTest("the largest memory of a process is read from Linux's /proc")
    problems, refused, tried = [], 0, 0
    largest, slowest = (0, ""), (0.0, "")
    for name, data in _bombs():
        if tried == points:
            break
        tried += 1
        path = folder / "bomb"
        path.write_bytes(data())
        child = subprocess.run(
            [sys.executable, "-c", CHILD, str(path)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if child.returncode:
            problems.append(f"{name}: {child.stderr.strip().splitlines()[-1:]}")
            continue
        what, megabytes, seconds = child.stdout.split()
        refused += what == "refused"
        largest, slowest = max(largest, (int(megabytes), name)), max(slowest, (float(seconds), name))
        if int(megabytes) > LIMIT_MB or float(seconds) > LIMIT_SECONDS:
            problems.append(f"{name}: {megabytes} MB, {float(seconds):.1f} s of CPU")
    figure = (
        f"{tried} bombs, {refused} of them refused: at most {largest[0]} MB ({largest[1]}) and "
        f"{slowest[0]:.1f} s of CPU ({slowest[1]})"
    )
    return row(tried, problems, figure)


def _bombs() -> Iterator[tuple[str, Callable[[], bytes]]]:
    """The largest images that are decoded, and what is refused; those that were once worst come first."""
    rows = SIDE * SIDE
    yield "16-bit grey PNG", lambda: png_file((SIDE, SIDE, 16, 0, 0), deflated_zeros(2 * rows + SIDE))
    yield "PNG with alpha", lambda: png_file((SIDE, SIDE, 8, 6, 0), deflated_zeros(4 * rows + SIDE))
    yield "shared values", lambda: shared_values_tiff(4000, 1 << 20)
    yield "repeated EXIF", lambda: exif_bomb(400_000, _jpeg("L", 40))
    yield "many scans", lambda: many_scans(2048, 1000)
    yield "most scans", lambda: many_scans(SIDE, 9)
    yield "16-bit PNG with alpha", lambda: png_file((SIDE, SIDE, 16, 6, 0), deflated_zeros(8 * rows + SIDE))
    yield "progressive JPEG", lambda: _jpeg("RGB", subsampling="4:4:4", progressive=True)
    yield "progressive CMYK", lambda: _jpeg("CMYK", subsampling="4:4:4", progressive=True)
    yield "plain JPEG", lambda: _jpeg("RGB")
    yield "cut progressive JPEG", lambda: _jpeg("RGB", progressive=True)[:-9] + b"\xff\xd9"
    yield "interlaced PNG", lambda: png_file((SIDE, SIDE, 8, 6, 1), deflated_zeros(5 * rows))
    yield "palette GIF", lambda: encoded(Image.new("P", (SIDE, SIDE)), "GIF", transparency=0)
    yield "palette PNG", lambda: encoded(Image.new("P", (SIDE, SIDE)), "PNG", transparency=0)
    yield "TIFF in one strip", lambda: _tiff(SIDE, 8)
    yield "16-bit TIFF in one strip", lambda: _tiff(SIDE, 16)
    yield "BMP", lambda: encoded(Image.new("RGB", (4096, 4096)), "BMP")
    yield "deep PPM", lambda: b"P5 %d %d 65535\n" % (SIDE, SIDE) + bytes(2 * rows)
    yield "text PPM", lambda: b"P3 %d %d 255\n" % (2048, 2048) + b"7 " * (3 * 2048 * 2048)
    if features.check("webp"):
        yield (
            "lossless WebP",
            lambda: encoded(Image.new("RGBA", (8191, 4096)), "WEBP", lossless=True, method=0),
        )
        yield "too large a WebP", lambda: encoded(Image.new("RGB", (8192, 8191)), "WEBP", method=0)
    for image in odd_images():
        if image.outcome == "rejected":
            yield image.name, lambda data=image.data: data  # type: ignore[misc]


def _jpeg(mode: str, side: int = SIDE, **options: object) -> bytes:
    return encoded(Image.new(mode, (side, side)), "JPEG", **options)


def _tiff(side: int, bits: int) -> bytes:
    """An RGBA image of zeros, deflated into one strip."""
    strip = deflated_zeros(side * side * 4 * bits // 8)
    tags = [tag for tag in rgb_tags(side, side, 8) if tag[0] not in (258, 277)]
    tags += [(258, 3, [bits] * 4), (277, 3, [4]), (338, 3, [2])]
    return tiff_file([*tags, (273, 4, [8]), (278, 4, [side]), (279, 4, [len(strip)])], strip)
