"""Numbers that several modules share, each with its unit and its reason."""

from __future__ import annotations

from typing import Final

SHARD_FORMAT: Final = 1  # raised when older shards can no longer be read

DEFAULT_SIZES: Final = (84, 224)  # pixels; what the papers train on, and what LITE makes possible
JPEG_QUALITY: Final = 95  # ORBIT's own 224 px release uses it
JPEG_BEST: Final = 100
DEFAULT_ENCODINGS: Final[dict[int, str]] = {
    84: "raw",
    224: "jpeg:95",
}  # measured: docs/decisions/0005-encoding.md
BYTES_PER_PIXEL: Final = {"jpeg": 0.5, "png": 2.2, "raw": 3.0}  # of photographs, to estimate disk
SHARD_SAMPLES: Final = 4096  # 224 px JPEGs: about 100 MB, one minute of work that a kill can cost
FEWEST_SHARDS: Final = 16  # webdataset wants a shard for each reader and worker
FEWEST_SAMPLES: Final = 64  # below this a tar is mostly padding
PIXEL_LIMIT: Final = 64 * 2**20  # pixels; Pillow's own limit is 179 M, but workers must stay small
READ_BLOCK: Final = 1 << 20  # bytes; large enough that the disk, not Python, is the limit
OPEN_FILES: Final = 32  # source files that one worker keeps open; `ulimit -n 256` must suffice

MEMBER_NAME_BYTES: Final = 100  # USTAR's name field; wids reads nothing beyond it
BOX_FRAME: Final = 1080  # pixels; ORBIT's boxes are annotated in frames of this side
QUALITY_ISSUES: Final = (  # ORBIT's annotations of a frame, in the order of every tuple of them
    "object_not_present_issue",
    "framing_issue",
    "viewpoint_issue",
    "blur_issue",
    "occlusion_issue",
    "overexposed_issue",
    "underexposed_issue",
)
