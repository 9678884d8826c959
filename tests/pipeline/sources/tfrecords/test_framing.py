"""The framing and the Example parser, against an independent writer and against TensorFlow's."""

from __future__ import annotations

import importlib.util
import os
import random
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import IntegrityError
from pipeline.sources.tfrecords.framing import (
    check_record,
    feature_span,
    masked_crc,
    parse_example,
    read_records,
)
from tests.pipeline.sources.tfrecords.writer import (
    bytes_feature,
    delimited,
    example,
    framed,
    masked,
    packed_integers,
    slow_crc,
    varint,
)

# ----------------------------------------------------------------------------- checksums


def test_checksums_are_those_of_the_published_vectors() -> None:
    # RFC 3720, appendix B.4, and the check value of the CRC catalogue
    vectors = {
        b"123456789": 0xE3069283,
        b"": 0,
        bytes(32): 0x8A9136AA,
        b"\xff" * 32: 0x62A8AB43,
        bytes(range(32)): 0x46DD794E,
        bytes(reversed(range(32))): 0x113FDB5C,
    }
    assert {data: slow_crc(data) for data in vectors} == vectors
    assert [struct.pack("<L", masked_crc(data)) for data in vectors] == list(map(masked, vectors))


@pytest.mark.parametrize("length", [1, 3, 4, 63, 64, 65, 10_000])
def test_the_checksum_is_the_slow_one_at_any_length(length: int) -> None:
    data = random.Random(length).randbytes(length)
    assert struct.pack("<L", masked_crc(data)) == masked(data)


# ----------------------------------------------------------------------------- framing


def test_records_are_found_where_they_lie(tmp_path: Path) -> None:
    contents = [b"first", b"", bytes(70_000), b"last"]
    path = tmp_path / "0.tfrecords"
    path.write_bytes(b"".join(map(framed, contents)))
    for verify in (False, True):
        spans = list(read_records(path, verify=verify))
        whole = path.read_bytes()
        assert [whole[start : start + length] for start, length in spans] == contents


def test_an_empty_file_has_no_records(tmp_path: Path) -> None:
    (tmp_path / "0.tfrecords").touch()
    assert list(read_records(tmp_path / "0.tfrecords", verify=True)) == []


def test_listing_passes_over_the_data(tmp_path: Path) -> None:
    """A sparse file of 8 GB with two records is listed at once and in no memory."""
    path, length = tmp_path / "0.tfrecords", 4 * 2**30
    header = struct.pack("<Q", length) + masked(struct.pack("<Q", length))
    with path.open("wb") as file:
        for record in range(2):
            file.seek(record * (length + 16))
            file.write(header)
        file.truncate(2 * (length + 16))
    assert list(read_records(path)) == [(12, length), (length + 28, length)]


def test_a_file_cut_off_anywhere_within_a_record_is_an_error(tmp_path: Path) -> None:
    whole = framed(b"one") + framed(b"two!")
    boundaries = {0: 0, len(framed(b"one")): 1, len(whole): 2}
    path = tmp_path / "0.tfrecords"
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        if size in boundaries:  # whole records: only a count can tell
            assert len(list(read_records(path))) == boundaries[size]
        else:
            with pytest.raises(IntegrityError, match=r"0\.tfrecords.*cut off.*copy"):
                list(read_records(path))


def test_any_flipped_bit_is_an_error_that_says_where(tmp_path: Path) -> None:
    whole = framed(b"one") + framed(b"two!")
    path, second = tmp_path / "0.tfrecords", len(framed(b"one"))
    for position in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[position] ^= 1 << bit
            path.write_bytes(damaged)
            record, start = (0, 0) if position < second else (1, second)
            with pytest.raises(IntegrityError, match=f"record {record} at byte {start}:"):
                list(read_records(path, verify=True))
            if position - start < 12:  # a record's length is checked in any case
                with pytest.raises(IntegrityError):
                    list(read_records(path))


def test_other_files_are_named_as_such(tmp_path: Path) -> None:
    path = tmp_path / "0.tfrecords"
    path.write_bytes(b"this is a text and no TFRecord")
    with pytest.raises(IntegrityError, match="not a TFRecord"):
        list(read_records(path))
    path.write_bytes(b"\x1f\x8b\x08" + bytes(40))
    with pytest.raises(IntegrityError, match="compressed; unpack"):
        list(read_records(path))


def test_the_data_of_a_record_is_checked_by_what_follows_it() -> None:
    record = framed(b"picture")[12:]
    assert bytes(check_record(record, "here")) == b"picture"
    for wrong in (record[:-1], b"Q" + record[1:], b"abc", b""):
        with pytest.raises(IntegrityError, match=r"here: .*checksum"):
            check_record(wrong, "here")


# ----------------------------------------------------------------------------- tf.train.Example


def test_features_of_all_three_types_come_back() -> None:
    floats = [0.5, -2.0, 1e30]
    data = example(
        image=bytes_feature(b"\xff\xd8", b""),
        label=packed_integers(3, -1, 2**63 - 1, -(2**63), 0),
        score=delimited(2, delimited(1, struct.pack("<3f", *floats))),
    )
    assert parse_example(data) == parse_example(memoryview(data))
    assert parse_example(data) == {
        "image": [b"\xff\xd8", b""],
        "label": [3, -1, 2**63 - 1, -(2**63), 0],
        "score": [np.float32(value) for value in floats],
    }


def test_lists_may_be_unpacked_or_come_in_parts() -> None:
    unpacked = b"".join(varint(1 << 3) + varint(value) for value in (7, -8))
    floats = b"".join(varint(1 << 3 | 5) + struct.pack("<f", value) for value in (1, 2))
    data = example(
        label=delimited(3, unpacked + delimited(1, varint(9))) + packed_integers(10),
        score=delimited(2, floats),
    )
    assert parse_example(data) == {"label": [7, -8, 9, 10], "score": [1.0, 2.0]}


def test_empty_lists_and_features_without_a_list_are_empty() -> None:
    data = example(a=delimited(1, b""), b=delimited(2, b""), c=packed_integers(), d=b"")
    assert parse_example(data) == {"a": [], "b": [], "c": [], "d": []}
    assert parse_example(b"") == parse_example(delimited(1, b"")) == {}


def test_the_order_of_map_entries_and_of_their_parts_does_not_matter() -> None:
    value_first = delimited(2, packed_integers(1)) + delimited(1, b"label")
    data = delimited(1, delimited(1, value_first)) + example(image=bytes_feature(b"x"))
    assert parse_example(data) == {"label": [1], "image": [b"x"]}


def test_of_two_entries_with_one_name_and_of_two_types_the_last_counts() -> None:
    data = example(a=bytes_feature(b"x")) + example(a=packed_integers(1) + bytes_feature(b"y"))
    assert parse_example(data) == {"a": [b"y"]}


def test_of_two_names_of_one_entry_the_last_counts() -> None:
    entry = delimited(1, b"a") + delimited(2, packed_integers(1)) + delimited(1, b"b")
    assert parse_example(delimited(1, delimited(1, entry))) == {"b": [1]}


def test_bits_of_a_number_beyond_the_64th_are_dropped() -> None:
    data = example(label=delimited(3, delimited(1, b"\xff" * 9 + b"\x7f")))
    assert parse_example(data) == {"label": [-1]}


def test_unknown_fields_are_passed_over() -> None:
    unknown = (
        varint(9 << 3) + varint(2**40)
        + varint(10 << 3 | 1) + bytes(8)
        + varint(11 << 3 | 5) + bytes(4)
        + delimited(12, b"anything")
    )  # fmt: skip
    entry = unknown + delimited(1, b"label") + delimited(2, unknown + packed_integers(5) + unknown)
    data = unknown + delimited(1, delimited(1, entry) + unknown) + unknown
    assert parse_example(data) == {"label": [5]}


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a",  # a length is missing
        b"\x0a\x05ab",  # contents end early
        b"\x0a" + b"\xff" * 11,  # a number without end
        b"\x00\x00",  # field number 0
        b"\x0b\x0c",  # a group, which no Example has
        b"\x09\x01",  # fixed64 ends early
        varint(2**32 + 2) + b"\x00",  # a field number beyond protobuf's
        delimited(1, delimited(1, delimited(1, b"\xff\xfe"))),  # a name that is no text
        example(score=delimited(2, delimited(1, b"abc"))),  # three quarters of a float
        example(label=delimited(3, delimited(1, b"\x80"))),  # half an integer
    ],
)
def test_a_malformed_example_is_an_error(data: bytes) -> None:
    with pytest.raises(IntegrityError, match="malformed Example"):
        parse_example(data)


def test_the_span_of_an_image_holds_its_very_bytes() -> None:
    image = random.Random(0).randbytes(500)
    data = example(label=packed_integers(1), image=bytes_feature(image))
    start, length = feature_span(data, "image")
    assert data[start : start + length] == image


@pytest.mark.parametrize(
    ("feature", "problem"),
    [
        (packed_integers(1), "another type"),
        (bytes_feature(), "0 of them"),
        (bytes_feature(b"a", b"b"), "2 of them"),
    ],
)
def test_there_is_no_span_of_what_is_not_one_value_of_bytes(feature: bytes, problem: str) -> None:
    with pytest.raises(IntegrityError, match=problem):
        feature_span(example(image=feature), "image")
    with pytest.raises(IntegrityError, match=r"no feature 'image', it has \['picture'\]"):
        feature_span(example(picture=feature), "image")


def mutated(data: bytes, dice: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        position = dice.randrange(len(damaged) or 1)
        match dice.randrange(4):
            case 0:
                damaged[position : position + 1] = dice.randbytes(1)
            case 1:
                del damaged[position : position + dice.randint(1, 5)]
            case 2:
                damaged[position:position] = damaged[: dice.randint(0, 20)]
            case _:
                damaged[position : position + 1] = b"\xff" * dice.randint(1, 9)
    return bytes(damaged)


def test_whatever_the_bytes_there_is_a_result_no_larger_than_they_are_or_an_error() -> None:
    whole = example(
        image=bytes_feature(b"picture", b""),
        label=packed_integers(1, -1, 300),
        score=delimited(2, delimited(1, bytes(12))),
    )
    parsed = 0
    for seed in range(5000):
        dice = random.Random(seed)
        data = mutated(whole, dice) if seed % 5 else dice.randbytes(dice.randint(0, 60))
        try:
            features = parse_example(data)
        except IntegrityError:
            continue
        parsed += 1
        assert sum(map(len, features.values())) <= len(data)
    assert 100 < parsed < 4900  # both outcomes were tried


# ----------------------------------------------------------------------------- TensorFlow itself

WRITE = """
import sys, numpy, tensorflow as tf
kinds = tf.train
def feature(**kind): return kinds.Feature(**kind)
with tf.io.TFRecordWriter(sys.argv[1]) as writer:
    for n in range(20):
        picture = numpy.random.RandomState(n).bytes(500 * n)
        names = {
            "image": feature(bytes_list=kinds.BytesList(value=[picture])),
            "label": feature(int64_list=kinds.Int64List(value=[n, -n, 2**62 + n])),
            "score": feature(float_list=kinds.FloatList(value=[n / 3])),
            "none": feature(int64_list=kinds.Int64List()),
            "nothing": feature(),
        }
        example = kinds.Example(features=kinds.Features(feature=names))
        writer.write(example.SerializeToString())
"""


@pytest.mark.skipif(importlib.util.find_spec("tensorflow") is None, reason="tensorflow is not installed")
def test_what_tensorflow_writes_is_read_without_it(tmp_path: Path) -> None:
    path = tmp_path / "0.tfrecords"
    subprocess.run(
        [sys.executable, "-c", WRITE, str(path)],
        check=True,
        capture_output=True,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
    )
    whole = path.read_bytes()
    records = [whole[start : start + length] for start, length in read_records(path, verify=True)]
    assert len(records) == 20
    assert b"".join(map(framed, records)) == whole
    for n, data in enumerate(records):
        image = np.random.RandomState(n).bytes(500 * n)
        start, length = feature_span(data, "image")
        assert data[start : start + length] == image
        assert parse_example(data) == {
            "image": [image],
            "label": [n, -n, 2**62 + n],
            "score": [np.float32(n / 3)],
            "none": [],
            "nothing": [],
        }
