from __future__ import annotations

import json
from pathlib import Path

import pytest

from pipeline.errors import IntegrityError, SourceMissing
from pipeline.records import Item
from pipeline.sources.vtab.tfds_folder import INFO_FILE, find_prepared, open_prepared, record_reader
from tests.pipeline.sources.vtab.tfds_fixtures import write_prepared

FORMATS = ["tfrecord", "array_record"]
SHARDS = [[b"record %d" % i for i in range(start, end)] for start, end in ((0, 4), (4, 5), (5, 9))]


@pytest.fixture(params=FORMATS)
def file_format(request: pytest.FixtureRequest) -> str:
    if request.param == "array_record":
        pytest.importorskip("array_record", reason="array_record comes with the extra 'tfds'")
    return str(request.param)


def test_records_are_counted_across_shards(tmp_path: Path, file_format: str) -> None:
    folder = open_prepared(write_prepared(tmp_path, {"train": SHARDS}, file_format=file_format))
    assert (folder.size("train"), folder.size("test")) == (9, 0)
    found = {r.position: bytes(r.data) for r in folder.read("train", [0, 3, 4, 8])}
    assert found == {0: b"record 0", 3: b"record 3", 4: b"record 4", 8: b"record 8"}
    assert [r.position for r in folder.read("train", range(9))] == list(range(9))


def test_items_are_read_in_any_order(tmp_path: Path, file_format: str) -> None:
    path = write_prepared(tmp_path, {"train": SHARDS}, file_format=file_format)
    records = list(open_prepared(path).read("train", range(9)))
    relative = path.relative_to(tmp_path).as_posix()
    items = [
        Item(str(r.position), 0, file=f"{relative}/{r.shard}", offset=r.offset, length=r.length)
        for r in records
    ]
    with record_reader(tmp_path) as read:
        assert [bytes(read(items[i])) for i in (8, 0, 5, 0)] == [
            *(b"record 8", b"record 0", b"record 5", b"record 0")
        ]


def test_a_shard_of_another_run_is_an_error(tmp_path: Path, file_format: str) -> None:
    one = write_prepared(tmp_path / "one", {"train": [[b"a"] * 3]}, file_format=file_format)
    two = write_prepared(tmp_path / "two", {"train": [[b"a"] * 2]}, file_format=file_format)
    (shard,) = two.glob("*-of-*")
    (one / shard.name).write_bytes(shard.read_bytes())
    with pytest.raises(IntegrityError, match="should have 3 records and has 2"):
        list(open_prepared(one).read("train", [0]))


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.98])
def test_a_cut_off_shard_is_an_error(tmp_path: Path, file_format: str, keep: float) -> None:
    folder = write_prepared(tmp_path, {"train": [[b"x" * 900] * 50]}, file_format=file_format)
    (shard,) = folder.glob("*-of-*")
    shard.write_bytes(shard.read_bytes()[: int(keep * shard.stat().st_size)])
    with pytest.raises(IntegrityError):
        list(open_prepared(folder).read("train", range(50)))


def test_a_flipped_bit_is_an_error(tmp_path: Path, file_format: str) -> None:
    records = [bytes([i]) * 200 for i in range(50)]
    path = write_prepared(tmp_path, {"train": [records]}, file_format=file_format)
    (shard,) = path.glob("*-of-*")
    listed = list(open_prepared(path).read("train", range(50)))
    data = bytearray(shard.read_bytes())
    data[data.index(records[20]) if records[20] in data else 300] ^= 16
    shard.write_bytes(data)
    relative = shard.relative_to(tmp_path).as_posix()
    items = [Item("", 0, file=relative, offset=r.offset, length=r.length) for r in listed]
    with record_reader(tmp_path) as read, pytest.raises(IntegrityError):
        list(map(read, items))


def test_a_shard_that_is_not_there_is_named(tmp_path: Path, file_format: str) -> None:
    folder = write_prepared(tmp_path, {"train": SHARDS}, file_format=file_format)
    (folder / f"cifar100-train.{file_format}-00001-of-00003").unlink()
    prepared = open_prepared(folder)
    assert [r.position for r in prepared.read("train", [0, 8])] == [0, 8]  # not needed here
    with pytest.raises(SourceMissing, match="00001-of-00003"):
        list(prepared.read("train", [4]))


ENDLESS = '{"name": "x", "version": "1", "splits": [{"name": "train", "shardLengths": ["%s"]}]}'


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", "\xff", "[" * 100_000, '{"name": "x", "version": "1", "splits": [{}]}'),
        *(ENDLESS % 10**12, ENDLESS % -1),
    ],
)
def test_a_damaged_description_is_an_error(tmp_path: Path, text: str) -> None:
    folder = write_prepared(tmp_path, {"train": SHARDS})
    (folder / INFO_FILE).write_text(text)
    with pytest.raises(IntegrityError, match=INFO_FILE):
        open_prepared(folder)


def test_another_file_format_is_refused(tmp_path: Path) -> None:
    folder = write_prepared(tmp_path, {"train": SHARDS})
    info = json.loads((folder / INFO_FILE).read_text())
    (folder / INFO_FILE).write_text(json.dumps(info | {"fileFormat": "parquet"}))
    with pytest.raises(IntegrityError, match="parquet"):
        open_prepared(folder)


def test_the_first_version_that_was_asked_for_is_found(tmp_path: Path) -> None:
    for version in ("3.0.2", "4.0.0", "2.9.0"):
        write_prepared(tmp_path, {"train": SHARDS}, name="pets", version=version)

    def first(*wanted: str) -> str | None:
        folder = find_prepared([tmp_path / "not there", tmp_path], "pets", "", wanted)
        return None if folder is None else folder.version

    assert first("3.", "4.") == "3.0.2"
    assert first("4.", "3.") == "4.0.0"
    assert first("5.") is None


def test_a_folder_is_found_at_every_level_and_only_whole(tmp_path: Path) -> None:
    folder = write_prepared(tmp_path, {"train": SHARDS}, name="pets")
    for base in (tmp_path, folder.parent, folder):
        found = find_prepared([base], "pets", "", ["3."])
        assert found is not None
        assert found.path == folder
    assert find_prepared([tmp_path], "pets", "other", ["3."]) is None
    assert find_prepared([folder], "birds", "", ["3."]) is None
    folder.rename(folder.with_name("incomplete.ABC_3.0.2"))
    assert find_prepared([tmp_path], "pets", "", ["3."]) is None
