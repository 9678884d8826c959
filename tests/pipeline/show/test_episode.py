"""What a person sees of an episode is that episode, and what is not drawn is counted."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from pipeline.build.builder import Run, build_shards
from pipeline.command import run_command
from pipeline.episodes import EpisodePlan, Side, choose_h
from pipeline.index import Dataset
from pipeline.records import Encoding, Recipe
from pipeline.samplers.fixed import Fixed
from pipeline.samplers.meta_dataset import MetaDataset
from pipeline.samplers.orbit.sampler import Orbit
from pipeline.samplers.vtab import Vtab
from pipeline.shardset import ShardSet
from pipeline.show.__main__ import main
from pipeline.show.episode import (
    CLASS_LINES,
    CLASS_VIDEOS,
    SHEET_COLUMNS,
    VIDEO_FRAMES,
    EpisodeView,
    view_episode,
)
from pipeline.show.episode_sheet import H_COLOUR, H_FRAME, MOST_LANES, episode_sheet, episode_title
from pipeline.show.sampler_choice import SamplerRequest, open_sampler
from pipeline.sources.folder import FolderSource
from pipeline.sources.orbit.source import OrbitSource
from tests.images import fill_class_folders, stored_image
from tests.pipeline.sources.orbit.tree import make_orbit

SIZE = 96  # what few classes are drawn at, so that pictures appear as they are stored
LEGEND = 12**2 - (12 - 2 * H_FRAME) ** 2  # pixels of the little frame that explains the others


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    yield
    logging.getLogger().handlers.clear()


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """birds: split by class. orbit: users' videos. marks: split by picture."""
    root = tmp_path_factory.mktemp("episodes")
    recipe = Recipe(sizes=(32, SIZE), encodings=(Encoding.parse("raw"), Encoding.parse("png")))
    counts = {f"train/{name}": 14 + 9 * at for at, name in enumerate(("auk", "crow", "emu[x]"))}
    counts |= {f"train/{name}": 12 for name in ("gull", "hen", "ibis")}
    counts |= {"test/jay": 8, "test/kea": 8}
    birds = FolderSource(name="birds", root=fill_class_folders(root / "b", counts), split_by="folder")
    marks_root, lines = fill_class_folders(root / "m", {"dot": 5, "dash": 5}), root / "marks.txt"
    names = (f"{name}/{number:03d}.jpg" for name in ("dot", "dash") for number in range(5))
    lines.write_text("\n".join(f"{name} {'train' if '2' in name else 'test'}" for name in names))
    marks = FolderSource(name="marks", root=marks_root, split_by=str(lines))
    orbit = OrbitSource(name="orbit", root=make_orbit(root / "o", clean=5, frames=20, size=32))
    for source in (birds, marks, orbit):
        build_shards(source, root / "sets" / source.name, recipe, Run(workers=1))
    return root / "sets"


@pytest.fixture(scope="module")
def birds(sets: Path) -> ShardSet:
    return ShardSet.open(sets / "birds")


def plan_for(dataset: Dataset, classes: list[int], shots: list[int], queries: list[int]) -> EpisodePlan:
    """The first pictures of each class are support, the next ones queries, as often as asked for."""
    sides = []
    for counts, skip in ((shots, 0), (queries, 5)):
        rows = [
            np.resize(np.r_[dataset.index.rows_of(class_id)][skip:], count)
            for class_id, count in zip(classes, counts, strict=True)
        ]
        sides.append(Side(np.concatenate(rows), np.repeat(np.arange(len(classes)), counts)))
    return EpisodePlan(
        number=5, dataset=dataset.manifest.name, classes=tuple(classes),
        support=sides[0], query=sides[1],
    )  # fmt: skip


def drawn(shown: EpisodeView, shards: ShardSet, size: int = SIZE) -> NDArray[np.uint8]:
    return np.asarray(episode_sheet(shown, shards.open_store(), size))


def framed(sheet: NDArray[np.uint8]) -> int:
    """Pixels in the colour of H."""
    colour = [int(H_COLOUR[at : at + 2], 16) for at in (1, 3, 5)]
    return int((sheet == colour).all(axis=2).sum())


def contains(sheet: NDArray[np.uint8], picture: NDArray[np.uint8]) -> bool:
    """Whether a picture is drawn somewhere, its outermost pixels aside."""
    inner = picture[1:-1, 1:-1]
    height, width = inner.shape[:2]
    corners = np.argwhere((sheet == inner[0, 0]).all(axis=2))
    return any(
        np.array_equal(sheet[top : top + height, left : left + width], inner)
        for top, left in corners.tolist()
    )


@pytest.mark.parametrize(
    ("way", "shots", "queries"), [(1, 3, 1), (2, 200, 90), (5, 1, 15), (6, 25, 10), (6, 9, 0)]
)
def test_of_each_class_pictures_are_drawn_or_counted_those_in_h_first(
    way: int, shots: int, queries: int, birds: ShardSet
) -> None:
    plan = plan_for(birds["birds"], list(range(way)), [shots] * way, [queries] * way)
    shown = view_episode(birds["birds"], plan, h=10, seed=3)
    in_h = choose_h(plan, 10, 3)
    assert [lane.in_h for lane in shown.lanes] == np.bincount(
        plan.support.labels[in_h], minlength=way
    ).tolist()
    assert sum(shown.columns) <= SHEET_COLUMNS
    for lane in shown.lanes:
        for (strip,), total, columns in (
            (lane.support, shots, shown.columns[0]),
            (lane.query, queries, shown.columns[1]),
        ):
            assert len(strip.tiles) + int(strip.note.replace(",", "") or 0) == total
            assert len(strip.tiles) + bool(strip.note) <= columns * CLASS_LINES
            marks = [tile.in_h for tile in strip.tiles]
            assert marks == sorted(marks, reverse=True)
            classes = birds["birds"].index["class_id"][[tile.row for tile in strip.tiles]]
            assert set(classes.tolist()) <= {plan.classes[lane.label]}
        assert sum(tile.in_h for tile in lane.support[0].tiles) == lane.in_h


@pytest.mark.parametrize("h", [0, 1, 4, 99])
def test_the_sheet_shows_every_picture_and_frames_those_in_h(h: int, birds: ShardSet) -> None:
    dataset = birds["birds"]
    plan = plan_for(dataset, [1, 4], [3, 2], [2, 4])
    sheet = drawn(view_episode(dataset, plan, h=h, seed=0), birds)
    for row in (*plan.support.rows, *plan.query.rows):
        assert contains(sheet, np.asarray(stored_image(dataset, SIZE, int(row))))
    outside = next(
        row for row in range(len(dataset.index))
        if row not in {*plan.support.rows.tolist(), *plan.query.rows.tolist()}
    )  # fmt: skip
    assert not contains(sheet, np.asarray(stored_image(dataset, SIZE, outside)))
    one = (SIZE + 2 * H_FRAME) ** 2 - SIZE**2
    assert framed(sheet) == (min(h, 5) * one + LEGEND if h else 0)


def test_raw_and_png_pictures_make_the_same_sheet(birds: ShardSet) -> None:
    shown = view_episode(birds["birds"], plan_for(birds["birds"], [0, 2], [4, 4], [3, 3]), h=2, seed=0)
    small, large = (drawn(shown, birds, size).astype(int) for size in (32, SIZE))
    assert small.shape == large.shape
    assert abs(small - large).mean() < 4


def test_the_title_says_dataset_way_and_shots(birds: ShardSet) -> None:
    dataset = birds["birds"]
    for shots, ending in (([2, 2], "2 shots"), ([1, 1], "1 shot"), ([1, 9], "1 to 9 shots")):
        shown = view_episode(dataset, plan_for(dataset, [0, 1], shots, [1, 1]), h=0, seed=0)
        assert episode_title(shown) == f"birds, 2-way, {ending}"


def test_an_episode_of_very_many_classes_stays_one_readable_sheet(birds: ShardSet) -> None:
    dataset, way = birds["birds"], MOST_LANES + 40
    classes = (list(range(6)) * way)[:way]
    most, all_of_them = (
        drawn(view_episode(dataset, plan_for(dataset, part, [1] * len(part), [1] * len(part)), h=3, seed=0), birds)
        for part in (classes[:MOST_LANES], classes)
    )  # fmt: skip
    assert all_of_them.shape[0] - most.shape[0] < 40


def test_videos_are_strips_of_frames_in_order_one_clip_of_each(sets: Path) -> None:
    shards = ShardSet.open(sets / "orbit")
    plan = Orbit(shards, split="test", protocol="2021", mode="clu-ve")[0]
    shown = view_episode(shards["orbit"], plan, h=6, seed=0)
    index, in_h = shards["orbit"].index, choose_h(plan, 6, 0)
    clips = plan.support.rows.reshape(-1, VIDEO_FRAMES).tolist()
    assert shown.videos
    for lane in shown.lanes:
        assert (lane.support_videos, lane.query_videos) == (5, 1)
        *strips, more = lane.support
        assert len(strips) == CLASS_VIDEOS
        assert more.note == "and 2 more videos"
        for strip in (*strips, *lane.query):
            rows = [tile.row for tile in strip.tiles]
            assert len(rows) == VIDEO_FRAMES
            assert {index.text("group", row) for row in rows} == {strip.title}
            assert rows == sorted(rows)
        assert all([tile.row for tile in strip.tiles] in clips for strip in strips)
        of_class = in_h[plan.support.labels[in_h] == lane.label]
        with_h = len(np.unique(index["group"][plan.support.rows[of_class]]))
        assert sum(strip.tiles[0].in_h for strip in strips) == min(CLASS_VIDEOS, with_h)
    sheet = drawn(shown, shards)
    assert framed(sheet) > LEGEND


def test_clips_of_one_frame_show_a_video_from_beginning_to_end(sets: Path) -> None:
    shards = ShardSet.open(sets / "orbit")
    frames = np.r_[shards["orbit"].index.rows_of(0)][:20]
    labels = np.zeros(20, np.int64)
    side = Side(frames, labels)
    plan = EpisodePlan(number=0, dataset="orbit", classes=(0,), support=side, query=side)
    for h in (0, 3, 20):
        (lane,) = view_episode(shards["orbit"], plan, h=h, seed=0).lanes
        (support,), (query,) = lane.support, lane.query
        assert support.note == "8 of 20 frames"
        assert sum(tile.in_h for tile in support.tiles) == min(h, VIDEO_FRAMES)
        assert [query.tiles[0].row, query.tiles[-1].row] == [frames[0], frames[-1]]
        rows = [tile.row for tile in support.tiles]
        assert rows == sorted(set(rows))


def test_the_sampler_is_the_one_that_suits_the_set(sets: Path) -> None:
    kinds = {"birds": MetaDataset, "marks": Vtab, "orbit": Orbit}
    for name, kind in kinds.items():
        assert type(open_sampler(ShardSet.open(sets / name), SamplerRequest())) is kind


def test_the_command_prints_the_plan_and_its_classes(
    sets: Path, birds: ShardSet, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--sampler", "fixed", "--way", "3", "--shot", "4", "--query", "2", "--seed", "8"]
    assert main([str(sets / "birds"), "--episode", "12", *flags, "--h", "5"]) == 0
    head, sampler, columns, *rows = capsys.readouterr().out.splitlines()
    plan = Fixed(birds, split="train", way=3, shot=4, query=2, seed=8)[12]
    assert head == str(plan)
    assert sampler.startswith("Fixed('train', way=3, shot=4, query=2, seed=8")
    assert columns.split() == ["label", "class", "split", "shots", "in", "H", "queries"]
    names = [birds["birds"].manifest.classes[class_id].name for class_id in plan.classes]
    assert [row.split()[:4] for row in rows] == [
        [str(label), name, "train", "4"] for label, name in enumerate(names)
    ]
    assert sum(int(row.split()[4]) for row in rows) == 5


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("birds", []),
        ("birds", ["--way", "2", "--split", "test", "--shot", "1", "--query", "2"]),
        ("marks", []),
        ("marks", ["--protocol", "vtab"]),
        ("orbit", ["--split", "validation", "--h", "2"]),
        ("orbit", ["--size", "32"]),
    ],
)
def test_every_kind_of_set_is_drawn(name: str, flags: list[str], sets: Path, tmp_path: Path) -> None:
    out = tmp_path / "episode.png"
    assert main([str(sets / name), "--episode", "0", "--png", str(out), *flags]) == 0
    with Image.open(out) as sheet:
        assert sheet.format == "PNG"
        assert min(sheet.size) > 200


def test_a_saved_plan_is_replayed_and_gives_the_same_sheet(
    sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, first, second, plans = str(sets / "birds"), *(
        str(tmp_path / name) for name in ("a.png", "b.png", "plans.jsonl")
    )  # fmt: skip
    assert main([path, "--episode", "7", "--json", "--png", first, "--plan", plans]) == 0
    assert main([path, "--episode", "0", "--json", "--png", second, "--replay", plans]) == 0
    one, other = map(json.loads, capsys.readouterr().out.splitlines())
    assert one == other
    assert one["number"] == 7
    values = {name: value for name, value in one.items() if name not in {"digest", "h"}}
    assert EpisodePlan.from_described(values).digest == one["digest"]
    assert Path(first).read_bytes() == Path(second).read_bytes()


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("", ["--episode", "0"], "birds meta_dataset, marks vtab, orbit orbit"),
        ("birds", ["--way", "3"], "--way is about one episode"),
        ("birds", ["--replay", "plans"], "--replay is about one episode"),
        ("birds", ["--episode", "0", "--classes", "3"], "--classes is about a whole set"),
        ("birds", ["--episode", "0", "--html", "x.html"], "--html is about a whole set"),
        ("birds", ["--episode", "0", "--png", "no/x.png"], "there is no folder no"),
        ("birds", ["--episode", "0", "--size", "33"], "32 and 96 px, not at 33"),
        ("birds", ["--episode", "0", "--sampler", "orbit"], "no dataset of users' videos"),
        ("birds", ["--episode", "0", "--protocol", "2021"], "--protocol: meta_dataset has no use"),
        ("birds", ["--episode", "0", "--split", "validation"], "validation"),
        ("birds", ["--episode", "0", "--sampler", "fixed", "--way", "0"], "start at 1"),
        ("birds", ["--episode", "-1"], "start at 0"),
        ("birds", ["--episode", "0", "--h", "-1"], "h is a number"),
        ("marks", ["--episode", "1"], "there is no episode 1"),
        ("marks", ["--episode", "0", "--way", "1", "--split", "test"], "--split, --way: vtab"),
        ("orbit", ["--episode", "0", "--shot", "1"], "--shot: orbit has no use"),
        ("orbit", ["--episode", "0", "--protocol", "1999"], "1999"),
    ],
)
def test_a_request_without_an_answer_says_why(
    name: str, flags: list[str], message: str, sets: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = [] if "--size" not in flags else ["--png", str(sets / "x.png")]
    assert run_command(main, [str(sets / name), *flags, *out]) == 2
    assert message in capsys.readouterr().err


def test_a_damaged_picture_is_named_and_no_half_sheet_is_written(
    sets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(sets / "birds", tmp_path / "birds"))
    for tar in (root / str(SIZE)).glob("*.tar"):
        tar.write_bytes(tar.read_bytes()[:2000])
    out = tmp_path / "x.png"
    assert run_command(main, [str(root), "--episode", "0", "--png", str(out)]) == 4
    assert re.search(r"sample \d{9}.*/birds/96/shard-000000.tar", capsys.readouterr().err)
    assert not out.exists()


def test_looking_needs_no_torch() -> None:
    program = "import sys, pipeline.show; print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "False"
