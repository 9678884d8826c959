"""ORBIT's tree becomes items: by user, object, kind, video and frame, with what was annotated."""

from __future__ import annotations

import io
import json
import logging
import os
import pickle
import shutil
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.constants import QUALITY_ISSUES
from pipeline.errors import IntegrityError, SourceMissing, UsageError
from pipeline.records import Item, Rejected, Survey
from pipeline.sources.orbit.annotations import parse_annotation, parse_annotations
from pipeline.sources.orbit.layout import ListedVideo, VideoKey, frame_number, parse_video_path
from pipeline.sources.orbit.official import describe_departures, official_splits
from pipeline.sources.orbit.source import OrbitSource
from tests.pipeline.sources.orbit.clips import damage, read_number, write_clip
from tests.pipeline.sources.orbit.tree import make_orbit, video_name, write_frames, zip_orbit


def listed(survey: Survey) -> tuple[list[Item], list[Rejected]]:
    found = list(survey.items)
    items = [item for item in found if isinstance(item, Item)]
    return items, [item for item in found if isinstance(item, Rejected)]


def read(source: OrbitSource) -> tuple[list[Item], list[Rejected]]:
    return listed(source.survey())


def placeless(item: Item) -> Item:
    return item._replace(name="", file="", offset=0, length=0, packing="plain")


def test_the_published_figures_are_these() -> None:
    splits = official_splits()
    figures = {s: (len(f.users), f.objects, f.videos) for s, f in splits.items()}
    assert figures == {"train": (44, 278, 2277), "validation": (6, 50, 347), "test": (17, 158, 1198)}
    assert len(frozenset().union(*(f.users for f in splits.values()))) == 67
    assert {"P177", "P999"} <= splits["test"].users


def test_a_class_is_an_object_of_a_user_and_items_come_in_order(tmp_path: Path) -> None:
    survey = OrbitSource(root=make_orbit(tmp_path)).survey()
    items, rejected = listed(survey)
    assert survey.ordered
    assert rejected == []
    assert [(c.split, c.name, c.superclass) for c in survey.classes] == [
        ("train", "P100/bag", "P100"),
        ("train", "P100/finger nail clipper", "P100"),
        ("train", "P118/bag", "P118"),
        ("train", "P118/finger nail clipper", "P118"),
        ("validation", "P194/bag", "P194"),
        ("validation", "P194/finger nail clipper", "P194"),
        ("test", "P177/bag", "P177"),
        ("test", "P177/finger nail clipper", "P177"),
    ]
    assert len(items) == 8 * 3 * 4
    assert items == sorted(items, key=lambda i: (i.class_id, i.kind, i.group, i.frame))
    assert len({item.name for item in items}) == len(items)
    first = items[0]
    assert first.group == "P100--bag--clean---leads"
    assert first.name == f"train/P100/bag/clean/{first.group}/{first.group}-00001.jpg"
    assert (first.split, first.user, first.kind, first.frame) == ("train", "P100", "clean", 1)
    assert items[4].group == "P100--bag--clean--two--parts"
    assert {i.split for i in items if survey.classes[i.class_id].split == "test"} == {"test"}


def test_annotations_come_with_their_frame(tmp_path: Path) -> None:
    items, _ = read(OrbitSource(root=make_orbit(tmp_path, clean=1)))
    clean = [item for item in items[:8] if item.kind == "clean"]
    clutter = [item for item in items[:8] if item.kind == "clutter"]
    assert [item.quality for item in clean] == [
        (0, 0, 0, 0, 0, 0, 0),
        (0, 1, 1, 1, 1, 1, 1),
        (0, 0, 0, 0, 0, 0, 0),
        (1, -1, -1, -1, -1, -1, -1),
    ]
    assert [item.box for item in clean] == [None] * 4
    assert [item.quality[0] for item in clutter] == [0, 0, 0, 1]
    assert {item.quality[1:] for item in clutter} == {(-1,) * 6}
    assert [item.box for item in clutter[:3]] == [(100 * n, 200, 300, 400) for n in (1, 2, 3)]
    assert clutter[3].box is None


def test_without_annotations_nothing_is_claimed(tmp_path: Path) -> None:
    items, rejected = read(OrbitSource(root=make_orbit(tmp_path, annotations=False)))
    assert rejected == []
    assert {(item.quality, item.box) for item in items} == {((), None)}


@pytest.mark.parametrize("top", ["", "orbit_benchmark_224"])
def test_the_zips_give_what_their_folders_give(tmp_path: Path, top: str) -> None:
    folders = OrbitSource(root=make_orbit(tmp_path / "a"))
    zips = OrbitSource(root=zip_orbit(make_orbit(tmp_path / "b"), top=top))
    (items, _), (zipped, rejected) = read(folders), read(zips)
    assert rejected == []
    assert zips.survey().classes == folders.survey().classes
    assert {file.name for file in zips.survey().files} == {
        "train.zip", "validation.zip", "test.zip", "orbit_extra_annotations.zip"
    }  # fmt: skip
    assert [placeless(item) for item in zipped] == [placeless(item) for item in items]
    assert list(zips.pictures(zipped)) == list(folders.pictures(items))
    assert not [path for path in (tmp_path / "b").iterdir() if path.is_dir()]


def test_one_zip_may_be_the_source_and_may_lack_the_level_of_splits(tmp_path: Path) -> None:
    root = zip_orbit(make_orbit(tmp_path, annotations=False))
    survey = OrbitSource(root=root / "test.zip").survey()
    assert [c.name for c in survey.classes] == ["P177/bag", "P177/finger nail clipper"]
    with zipfile.ZipFile(root / "test.zip") as old, zipfile.ZipFile(root / "new", "w") as new:
        for name in old.namelist():
            new.writestr(name.removeprefix("test/"), old.read(name))
    (root / "new").replace(root / "test.zip")
    source = OrbitSource(root=root / "test.zip")
    items, _ = read(source)
    assert {item.split for item in items} == {"test"}
    assert len(list(source.pictures(items))) == 24


def test_a_cut_off_zip_is_an_error(tmp_path: Path) -> None:
    root = zip_orbit(make_orbit(tmp_path))
    data = (root / "train.zip").read_bytes()
    (root / "train.zip").write_bytes(data[: len(data) // 2])
    with pytest.raises(IntegrityError, match=r"train\.zip"):
        OrbitSource(root=root).survey()


def test_a_damaged_member_of_a_zip_is_rejected_alone(tmp_path: Path) -> None:
    root = zip_orbit(make_orbit(tmp_path, annotations=False))
    source = OrbitSource(root=root)
    items, _ = read(source)
    data = bytearray((root / "train.zip").read_bytes())
    data[items[3].offset + 200] ^= 1
    (root / "train.zip").write_bytes(data)
    images = list(source.pictures(items[:8]))
    assert [isinstance(image, Rejected) for image in images].count(True) == 1
    assert isinstance(images[3], Rejected)
    assert images[3].name == items[3].name


def test_the_unfiltered_set_has_no_level_of_splits(tmp_path: Path) -> None:
    root = make_orbit(tmp_path, users={"": ("P177", "P555"), "other": ("P556",)}, annotations=False)
    pan = root / "P555" / "bag" / "clutter-pan" / "P555--bag--clutter-pan--x"
    write_frames(pan, 2)
    survey = OrbitSource(root=root).survey()
    items, rejected = listed(survey)
    assert rejected == []
    assert {(c.superclass, c.split) for c in survey.classes} == {
        ("P177", "test"),  # as in the benchmark
        ("P555", ""),
        ("P556", ""),
    }
    assert [item.frame for item in items if item.kind == "clutter-pan"] == [1, 2]


def test_a_level_of_kinds_may_be_missing_where_names_have_it() -> None:
    video = "P1--finger-nail-clipper--clutter-pan---a--b"
    expected = VideoKey("train", "P1", "finger nail clipper", "clutter-pan", video)
    assert parse_video_path(("train", "P1", "finger nail clipper", video)) == expected
    assert parse_video_path(("train", "P1", "finger nail clipper", "IMG_1")) is None
    assert parse_video_path(("train", "P1", "cup", "clean", "IMG_1")) == VideoKey(
        "train", "P1", "cup", "clean", "IMG_1"
    )


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("v--x-00001.jpg", 1),
        ("v--x-123456.JPG", 123456),
        ("v--x-00002.png", 2),
        ("v--x-00001.txt", None),
        ("w-00001.jpg", None),
        ("v--x-.jpg", None),
        ("v--x-1a.jpg", None),
        ("v--x-²³.jpg", None),
    ],
)
def test_a_frame_is_the_videos_name_and_a_number(name: str, number: int | None) -> None:
    assert frame_number(name, "v--x") == number


def test_frame_numbers_sort_as_numbers_and_may_have_gaps(tmp_path: Path) -> None:
    root = make_orbit(tmp_path, users={"test": ("P177",)}, objects=("bag",), clean=1, clutter=0)
    (folder,) = (root / "test/P177/bag/clean").iterdir()
    for old, new in ((2, "100000"), (3, "00700")):
        (folder / f"{folder.name}-{old:05d}.jpg").rename(folder / f"{folder.name}-{new}.jpg")
    items, rejected = read(OrbitSource(root=root))
    assert [item.frame for item in items] == [1, 4, 700, 100000]
    assert rejected == []


def test_what_does_not_belong_is_named_and_never_skipped(tmp_path: Path) -> None:
    root = make_orbit(tmp_path, users={"test": ("P177",)}, objects=("bag",), clean=1, clutter=0)
    (folder,) = (root / "test/P177/bag/clean").iterdir()
    (root / "README.txt").write_text("x")
    (root / ".DS_Store").write_text("x")
    (root / "test/P177/notes.txt").write_text("x")
    (folder / "thumb.jpg").write_text("x")
    (folder / f"{folder.name}-1.jpg").write_text("x")
    (root / "test/P177/bag/clean/empty").mkdir()
    for position in range(3):
        strange = root / "test/P177/bag/blurred/video"
        strange.mkdir(parents=True, exist_ok=True)
        (strange / f"video-{position:05d}.jpg").write_text("x")
    items, rejected = read(OrbitSource(root=root))
    assert len(items) == 4
    assert {Path(one.name).name for one in rejected} == {
        "README.txt", "notes.txt", "thumb.jpg", f"{folder.name}-1.jpg", "empty", "blurred"
    }  # fmt: skip
    assert len(rejected) == 6


def test_options_thin_and_cap_the_frames_of_each_video(tmp_path: Path) -> None:
    root = make_orbit(tmp_path, frames=9, annotations=False)
    items, _ = read(OrbitSource(root=root, frame_step=3))
    assert [item.frame for item in items[:6]] == [1, 4, 7, 1, 4, 7]
    items, _ = read(OrbitSource(root=root, frame_step=4, max_frames=2))
    assert [item.frame for item in items[:4]] == [1, 5, 1, 5]
    with pytest.raises(UsageError):
        OrbitSource(root=root, frame_step=0)
    with pytest.raises(UsageError):
        OrbitSource(root=root, max_frames=0)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "no JSON"),
        (b"\xff\xfe", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "must be one object"),
        (b'{"a.jpg": 3}', "a.jpg"),
        (b'{"a.jpg": {"blur_issue": "yes"}}', "blur_issue"),
        (b'{"a.jpg": {"object_bounding_box": [1, 2]}}', "four numbers"),
        (b'{"a.jpg": {"object_bounding_box": {"x": 1, "y": 2, "w": true, "h": 3}}}', "four"),
        (b'{"a.jpg": {"object_bounding_box": [1, 2, 0, 3]}}', "empty"),
        (b'{"a.jpg": {"object_bounding_box": [1, 2, NaN, 3]}}', "NaN"),
        (b'{"a.jpg": {"object_bounding_box": [1, 2, 1e300, 3]}}', "pixels away"),
        (b'{"a.jpg": {"object_bounding_box": [-1e12, 2, 3, 3]}}', "pixels away"),
        (b'{"a.jpg": {"object_bounding_box": [' + b"1," * 9999 + b"1]}}", "four numbers"),
    ],
)
def test_bad_annotations_are_named_and_their_frames_kept(tmp_path: Path, content: bytes, reason: str) -> None:
    root = make_orbit(tmp_path)
    video = video_name("P100", "bag", "clean", 0)
    (root / "annotations/train" / f"{video}.json").write_bytes(content)
    items, rejected = read(OrbitSource(root=root))
    assert len(items) == 8 * 3 * 4
    assert [one.name for one in rejected] == [f"{video}.json"]
    assert reason in rejected[0].reason
    assert len(rejected[0].reason) < 300
    assert {item.quality for item in items if item.group == video} == {()}
    assert all(item.quality for item in items if item.group != video)


def test_pipes_and_links_to_nothing_among_frames_and_annotations_are_named(tmp_path: Path) -> None:
    root = make_orbit(tmp_path)
    video = video_name("P100", "bag", "clean", 0)
    folder = next(root.rglob(f"{video}/"))
    frame = folder / f"{video}-09998.jpg"
    os.mkfifo(frame)
    frame.with_name(f"{video}-09999.jpg").symlink_to("gone.jpg")
    (folder.parent / "around").symlink_to("around")
    (root / "annotations/train" / f"{video}.json").unlink()
    os.mkfifo(root / "annotations/train" / f"{video}.json")
    items, rejected = read(OrbitSource(root=root))
    assert len(items) == 8 * 3 * 4
    assert sorted(entry.name.rpartition("/")[2] for entry in rejected) == [
        f"{video}-09998.jpg",
        f"{video}-09999.jpg",
        f"{video}.json",
        "around",
    ]


def test_one_bad_annotation_spares_the_others() -> None:
    good = {"object_not_present_issue": False}
    notes, problems = parse_annotations(json.dumps({"a": good, "b": {"blur_issue": 7}, "c": good}).encode())
    assert list(notes) == ["a", "c"]
    assert len(problems) == 1
    assert "1 bad annotations, the first at b" in problems[0]


def test_both_published_forms_of_a_box_are_read() -> None:
    box = {"x": 1, "y": 2, "w": 3, "h": 4}
    assert parse_annotation({"object_bounding_box": box}).box == (1, 2, 3, 4)
    assert parse_annotation({"object_bounding_box": [1, 2, 3, 4]}).box == (1, 2, 3, 4)
    assert parse_annotation({"object_bounding_box": [0, 0, 0, 0]}).box is None
    assert parse_annotation({"object_bounding_box": None}).box is None
    assert parse_annotation({"other": 1}) == ((), None)
    assert parse_annotation({QUALITY_ISSUES[1]: True}).quality == (-1, 1, -1, -1, -1, -1, -1)


def test_a_missing_source_says_what_is_needed_and_from_where(tmp_path: Path) -> None:
    for root in (tmp_path / "none", tmp_path):
        with pytest.raises(SourceMissing, match=r"figshare.*54 GB") as caught:
            OrbitSource(root=root).survey()
        assert str(root) in str(caught.value)


def test_a_set_below_one_more_folder_is_found(tmp_path: Path) -> None:
    make_orbit(tmp_path / "orbit_benchmark_224")
    source = OrbitSource(root=tmp_path)
    items, rejected = read(source)
    assert rejected == []
    assert items[0].quality
    assert len(list(source.pictures(items))) == len(items)


def test_a_user_in_another_split_than_published_is_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    users = {"train": ("P177", "mine"), "test": ("mine", "P455")}
    root = make_orbit(tmp_path, users=users, objects=("bag",))
    with caplog.at_level(logging.WARNING):
        OrbitSource(root=root).survey()
    assert "users in another split than the benchmark's: P177" in caplog.text
    assert "users in more than one split: mine" in caplog.text


def test_a_whole_split_with_other_counts_is_a_warning() -> None:
    official = official_splits()
    facts = official["validation"]
    where = [VideoKey("validation", user, "cup", "clean", "v") for user in sorted(facts.users)]
    videos = [("validation", ListedVideo(one, "")) for one in where]
    (warning,) = describe_departures(videos, official)  # type: ignore[arg-type]
    assert warning == "validation has 6 objects and 6 videos; published are 50 and 347"
    assert not list(describe_departures(videos[1:], official))  # type: ignore[arg-type]


def test_a_source_travels_to_the_workers(tmp_path: Path) -> None:
    source = OrbitSource(root=make_orbit(tmp_path, frames=1), frame_step=2)
    copy = pickle.loads(pickle.dumps(source))
    assert copy == source
    items, _ = read(source)
    first = next(copy.pictures(items[:1]))
    assert isinstance(first, bytes)
    assert Image.open(io.BytesIO(first)).size == (16, 16)


def raw_tree(root: Path) -> tuple[Path, Path]:
    """One object with a video of frames and a raw one, and a clutter video."""
    make_orbit(root, users={"test": ("P177",)}, objects=("bag",), clean=1, annotations=False)
    raw = write_clip(root / "test/P177/bag/clean/P177--bag--clean--raw.mp4", 7)
    write_clip(root / "test/P177/bag/clutter/P177--bag--clutter--z.MOV", 5, codec="mpeg4")
    return root, raw


def test_raw_videos_stand_beside_frames(tmp_path: Path) -> None:
    root, raw = raw_tree(tmp_path)
    note = {f"{raw.stem}-00003.jpg": {"object_not_present_issue": True}}
    (root / "annotations/test").mkdir(parents=True)
    (root / "annotations/test" / f"{raw.stem}.json").write_text(json.dumps(note))
    source = OrbitSource(root=root)
    items, rejected = read(source)
    assert rejected == []
    assert [(item.kind, item.frame) for item in items] == [
        *(("clean", number) for number in (1, 2, 3, 4, *range(1, 8))),
        *(("clutter", number) for number in (1, 2, 3, 4, *range(1, 6))),
    ]
    third = items[6]
    assert third.name == "test/P177/bag/clean/P177--bag--clean--raw.mp4#00003"
    assert (third.offset, third.frame, third.quality[0]) == (2, 3, 1)
    for item, image in zip(items, source.pictures(items), strict=True):
        if item.file.endswith(".jpg"):
            assert isinstance(image, bytes)
        else:
            assert isinstance(image, np.ndarray)
            assert (image.shape, read_number(image)) == ((96, 160, 3), item.frame)


def test_raw_frames_come_in_the_order_asked(tmp_path: Path) -> None:
    source = OrbitSource(root=raw_tree(tmp_path)[0])
    items = [item for item in read(source)[0] if not item.file.endswith(".jpg")]
    asked = [items[k] for k in (5, 1, 2, 2, 8, 0, 11)]
    images = list(source.pictures(asked))
    assert [read_number(p) for p in images if isinstance(p, np.ndarray)] == [item.frame for item in asked]


def test_options_hold_for_raw_videos(tmp_path: Path) -> None:
    source = OrbitSource(root=raw_tree(tmp_path)[0], frame_step=3, max_frames=2)
    items = [item for item in read(source)[0] if not item.file.endswith(".jpg")]
    assert [item.frame for item in items] == [1, 4, 1, 4]
    assert [read_number(p) for p in source.pictures(items) if isinstance(p, np.ndarray)] == [
        1, 4, 1, 4
    ]  # fmt: skip


def test_a_video_that_cannot_be_opened_is_rejected_as_one(tmp_path: Path) -> None:
    root, raw = raw_tree(tmp_path)
    raw.write_text("no video")
    items, rejected = read(OrbitSource(root=root))
    assert [one.name for one in rejected] == ["test/P177/bag/clean/P177--bag--clean--raw.mp4"]
    assert "Invalid data" in rejected[0].reason
    assert len(items) == 4 + 4 + 5


def test_a_bad_frame_of_a_video_is_rejected_in_its_place(tmp_path: Path) -> None:
    root, raw = raw_tree(tmp_path)
    damage(write_clip(raw, 7, options={"g": "1", "bf": "0"}), 4)
    source = OrbitSource(root=root)
    items = [item for item in read(source)[0] if item.group == raw.stem]
    images = list(source.pictures(items))
    assert [isinstance(image, Rejected) for image in images] == [False] * 3 + [True] + [False] * 3
    assert images[3].name.endswith("#00004")  # type: ignore[union-attr]


def test_a_cut_off_video_is_reported_once(tmp_path: Path) -> None:
    root, raw = raw_tree(tmp_path)
    write_clip(raw, 60, container={"movflags": "faststart"})
    raw.write_bytes(raw.read_bytes()[: raw.stat().st_size * 2 // 3])
    items, rejected = read(OrbitSource(root=root))
    assert len(rejected) == 1
    assert "of its 60 frames are there" in rejected[0].reason
    assert 20 < len([item for item in items if item.group == raw.stem]) < 60


def test_frames_win_over_a_video_of_the_same_name(tmp_path: Path) -> None:
    root, raw = raw_tree(tmp_path)
    write_frames(raw.with_suffix(""), 2)
    items, rejected = read(OrbitSource(root=root))
    assert [item.file for item in items if item.group == raw.stem] == [
        f"test/P177/bag/clean/{raw.stem}/{raw.stem}-{number:05d}.jpg" for number in (1, 2)
    ]
    assert [one.name for one in rejected] == [raw.relative_to(root).as_posix()]


def test_a_video_in_an_archive_is_reported(tmp_path: Path) -> None:
    root, raw = raw_tree(tmp_path)
    name = raw.name
    zip_orbit(root)
    items, rejected = read(OrbitSource(root=root))
    assert len(items) == 8
    assert {Path(one.name).name for one in rejected} == {name, "P177--bag--clutter--z.MOV"}
    assert all("unpack" in one.reason for one in rejected)


def test_a_set_that_goes_away_ends_the_build_and_quarantines_nothing(tmp_path: Path) -> None:
    source = OrbitSource(root=raw_tree(tmp_path)[0])
    items, _ = read(source)
    shutil.rmtree(tmp_path / "test")
    for item in (items[0], items[-1]):
        with pytest.raises(FileNotFoundError):
            list(source.pictures([item]))


def test_the_listing_is_the_same_for_any_copy(tmp_path: Path) -> None:
    root, _ = raw_tree(tmp_path / "a")
    shutil.copytree(root, tmp_path / "b")
    source = OrbitSource(root=root)
    assert read(source) == read(replace(source, root=tmp_path / "b"))
