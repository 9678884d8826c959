"""tf.Example: `pipeline.sources.tfrecords.framing.parse_example`, and VTAB's labels of what it accepts."""

from __future__ import annotations

from pipeline.errors import PipelineError
from pipeline.sources.tfrecords.framing import feature_span, parse_example
from pipeline.sources.vtab.source import _label_or_reason
from pipeline.sources.vtab.tasks import VTAB_TASKS
from tests.pipeline.sources.tfrecords.writer import bytes_feature, delimited, example, packed_integers


def seeds() -> list[bytes]:
    floats = delimited(2, delimited(1, b"\0\0\x80?\0\0\0@\0\0 A"))
    return [
        example(image=bytes_feature(b"jpeg"), label=packed_integers(7)),
        example(file_name=bytes_feature(b"a", b"b"), label=packed_integers(-1, 2**40)),
        example(**{"objects/type": packed_integers(0), "objects/location": floats}),
        example(**{"objects/size": packed_integers(1, 1, 1), "objects/pixel_coords": floats}),
        example(label_orientation=packed_integers(39), label_x_position=packed_integers(3)),
        b"",
    ]


def check(data: bytes) -> None:
    """Accepted values lie within the message; each task has a class or a reason for it."""
    try:
        features = parse_example(data)
    except PipelineError:
        features = {}
    assert (
        sum(len(v) for values in features.values() for v in values if isinstance(v, bytes)) <= len(data) ** 2
    )
    try:
        start, length = feature_span(memoryview(data), "image")
        assert 0 <= start <= start + length <= len(data)
    except PipelineError:
        pass
    for task in VTAB_TASKS.values():
        label = _label_or_reason(task, data)
        assert isinstance(label, str) or 0 <= label < task.classes
