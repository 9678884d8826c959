"""What a person sees of a shard set is right, complete in itself, and really displays."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from html import unescape
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from pipeline.build.builder import Run, build_shards
from pipeline.command import run_command
from pipeline.index import Dataset, DatasetManifest
from pipeline.records import ClassRecord, Encoding, Item, Recipe, Rejected, Split, Survey
from pipeline.show.__main__ import main
from pipeline.show.contact_sheet import LABEL_WIDTH, MARGIN, SHEET_TILE
from pipeline.show.facts import DatasetFacts, dataset_facts
from pipeline.show.histogram import HISTOGRAM_BARS, count_class_sizes
from pipeline.show.page import PAGE_ROWS
from pipeline.show.stored_images import data_uri
from pipeline.show.strips import VIDEO_KINDS, choose_strips
from pipeline.show.table import dataset_table
from pipeline.sources.base import Source
from pipeline.sources.folder import FolderSource
from tests.browser import run_browser
from tests.images import fill_class_folders, stored_image

PROBE = """<script>
addEventListener("load", () => {
  const all = [...document.images], page = document.documentElement;
  page.dataset.images = all.length;
  page.dataset.loaded = all.filter((i) => i.complete && i.naturalWidth > 0).length;
  page.dataset.overflow = page.scrollWidth - page.clientWidth;
});
</script>"""
ODD = 'a <b>&"odd" name'
USERS: tuple[tuple[str, Split], ...] = (("P1", "train"), ("P2", "train"), ("P3", "test"))


class Objects(Source):
    """Users' own objects, each in clean and cluttered videos, as in ORBIT."""

    def survey(self) -> Survey:
        classes, items = [], [Rejected("P1/mug/x.jpg", "cannot be decoded: <broken>")]
        listed: list[Item | Rejected] = [*items]
        for user, split in USERS:
            for thing in ("keys", "mug", "cane", "phone"):
                classes.append(ClassRecord(name=thing, superclass=user, split=split))
                listed += (
                    Item(
                        f"{user}/{thing}/{kind}/{frame}", len(classes) - 1, split,
                        f"frames/{(frame + 5 * len(classes)) % 40:03d}.jpg", user=user, kind=kind,
                        frame=frame, group=f"{user}-{thing}-{kind}",
                    )
                    for kind in VIDEO_KINDS
                    for frame in range(10 if kind == "clean" else 4)
                )  # fmt: skip
        return Survey(classes=tuple(classes), items=listed, ordered=True)


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    yield
    logging.getLogger().handlers.clear()


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two datasets: pets with splits, an odd name and classes of many sizes; users' objects."""
    root = tmp_path_factory.mktemp("show")
    sizes = {"train/cat": 12, "train/dog": 9, f"train/{ODD}": 2, "validation/owl": 5, "test/eel": 1}
    for path, count in sizes.items():
        fill_class_folders(root / "pets" / path, {"": count})
    (root / "pets" / "train" / "cat" / "half.jpg").write_bytes(b"<no> picture")
    encodings = tuple(map(Encoding.parse, ("raw", "png", "jpeg:95")))
    recipe = Recipe(sizes=(32, 33, 96), encodings=encodings, shard_samples=8)
    pets = FolderSource(name="pets", root=root / "pets", split_by="folder")
    build_shards(pets, root / "set" / "pets", recipe, Run(workers=1))
    fill_class_folders(root / "orbit", {"frames": 40})
    objects = Objects(name="objects", root=root / "orbit")
    build_shards(objects, root / "set" / "objects", Recipe(sizes=(48,)), Run(workers=1))
    return root / "set"


@pytest.fixture(scope="module")
def page(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("page") / "set.html"
    assert main([str(shards), "--html", str(out)]) == 0
    return out


def test_the_table_counts_what_was_built(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(shards)]) == 0
    head, objects, pets, total = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["dataset", "classes", "pictures"]
    assert objects.split()[:3] == ["objects", "12", "168"]
    assert "train 8 / 112, test 4 / 56" in objects
    assert pets.split()[:3] == ["pets", "5", "29"]
    assert "train 3 / 23, validation 1 / 5, test 1 / 1" in pets
    assert "32 px raw" in pets
    assert total.startswith("2 datasets, 17 classes, 197 pictures")


def test_a_terminal_gets_lines_colours_and_a_sum(shards: Path) -> None:
    all_facts = [dataset_facts(Dataset.open(shards / name)) for name in ("pets", "objects")]
    screen = Console(width=120, force_terminal=True, file=io.StringIO())
    screen.print(dataset_table(all_facts, plain=False))
    text = screen.file.getvalue()  # type: ignore[attr-defined]
    assert "\x1b[1m" in text
    assert re.search(r"total.*17.*197", text)


def test_names_of_any_kind_are_shown_in_one_line(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = shutil.copytree(shards / "pets", tmp_path / "set")
    manifest = DatasetManifest.read(root / "dataset.json")
    odd = ("[/red]", "two\nlines \x1b[2J", "x" * 1_000_000, ":smile:", "")
    classes = tuple(replace(record, name=name) for record, name in zip(manifest.classes, odd, strict=True))
    named = replace(manifest, name="[/b]\nmine\x1b[2J", classes=classes)
    (root / "dataset.json").write_text(named.text())
    assert main([str(root), "--html", str(tmp_path / "a.html"), "--png", str(tmp_path / "a.png")]) == 0
    episode = ["--episode", "0", "--sampler", "fixed", "--split", "train", "--way", "3", "--shot", "1"]
    assert main([str(root), *episode, "--query", "1", "--png", str(tmp_path / "b.png")]) == 0
    printed = capsys.readouterr().out
    assert "[/b]\\nmine\\x1b[2J" in printed
    assert "\x1b" not in printed
    assert max(map(len, printed.splitlines())) < 1000


def test_the_same_as_json(shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(shards / "pets"), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert row["splits"]["train"] == {"classes": 3, "samples": 23}
    assert (row["samples"], row["quarantined"]) == (29, 1)
    tars = shards / "pets" / "96"
    assert row["sizes"]["96"]["bytes"] == sum(p.stat().st_size for p in tars.glob("*.tar"))


def test_the_table_opens_no_tar(shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(shards, tmp_path / "set", ignore=shutil.ignore_patterns("*.tar", "*.idx"))
    assert main([str(tmp_path / "set")]) == 0
    assert "29" in capsys.readouterr().out


def test_users_and_videos_are_counted(shards: Path) -> None:
    facts = dataset_facts(Dataset.open(shards / "objects"))
    assert (facts.users, facts.groups, facts.quarantined) == (3, 24, 1)
    assert dataset_facts(Dataset.open(shards / "pets")).users == 0


def test_all_encodings_give_the_same_picture(shards: Path) -> None:
    dataset = Dataset.open(shards / "pets")
    for row in range(0, 29, 4):
        raw, png, jpeg = (stored_image(dataset, size, row) for size in (32, 33, 96))
        assert (raw.size, png.size, jpeg.size) == ((32, 32), (33, 33), (96, 96))
        assert raw.mode == png.mode == jpeg.mode == "RGB"
        small = (np.asarray(p.resize((8, 8)), np.int16) for p in (raw, png, jpeg))
        first, second, third = small
        assert abs(first - second).mean() < 4
        assert abs(first - third).mean() < 8


def test_the_same_seed_shows_the_same_pictures_and_another_one_others(shards: Path) -> None:
    dataset = Dataset.open(shards / "pets")
    first = choose_strips(dataset, classes=3, samples=2, seed=1)
    assert choose_strips(dataset, classes=3, samples=2, seed=1) == first
    others = [choose_strips(dataset, classes=3, samples=2, seed=seed) for seed in range(2, 8)]
    assert any(other != first for other in others)


@pytest.mark.parametrize("seed", range(10))
def test_strips_show_different_classes_of_every_split_and_their_own_pictures(seed: int, shards: Path) -> None:
    dataset = Dataset.open(shards / "pets")
    strips = choose_strips(dataset, classes=5, samples=4, seed=seed)
    assert len({strip.class_id for strip in strips}) == len(strips) == 5
    assert [strip.split for strip in strips] == ["train"] * 3 + ["validation", "test"]
    for strip in strips:
        assert set(dataset.index["class_id"][list(strip.rows)]) == {strip.class_id}
        assert len(set(strip.rows)) == min(4, strip.samples)


def test_more_classes_than_there_are_shows_all(shards: Path) -> None:
    assert len(choose_strips(Dataset.open(shards / "pets"), classes=99, samples=99, seed=0)) == 5


def test_objects_come_by_user_clean_frames_before_cluttered_ones(shards: Path) -> None:
    dataset = Dataset.open(shards / "objects")
    strips = choose_strips(dataset, classes=6, samples=4, seed=0)
    assert [strip.kind for strip in strips] == ["clean", "clutter"] * 6
    assert len({strip.user for strip in strips}) == 2
    for strip in strips:
        rows = list(strip.rows)
        assert {dataset.index.text("kind", row) for row in rows} == {strip.kind}
        assert {dataset.index.text("user", row) for row in rows} == {strip.user}
        frames = dataset.index["frame"][rows].tolist()
        assert frames == ([0, 3, 6, 9] if strip.kind == "clean" else [0, 1, 2, 3])


def of_sizes(sizes: list[int]) -> DatasetFacts:
    return DatasetFacts(
        name="x", classes=len(sizes), samples=sum(sizes), splits=(), sizes=(), quarantined=0,
        users=0, groups=0, class_samples=np.array(sizes),
        class_splits=tuple("train" if n % 3 else "test" for n in range(len(sizes))),
    )  # fmt: skip


@pytest.mark.parametrize("spread", [2, 10, 28, 29, 1000, 100_000])
def test_a_histogram_counts_every_class_once_in_bars_without_gaps(spread: int) -> None:
    generator = np.random.default_rng(spread)
    sizes = [0, *(generator.integers(1, spread + 1, 200) ** 2 // spread).tolist(), spread]
    histogram = count_class_sizes(of_sizes(sizes))
    assert sum(bar.total for bar in histogram.bars) == len(sizes)
    assert len(histogram.bars) <= HISTOGRAM_BARS + 1
    assert histogram.bars[0].first == histogram.smallest == 0
    assert histogram.bars[-1].last >= histogram.largest == spread
    for before, after in zip(histogram.bars, histogram.bars[1:], strict=False):
        assert after.first == before.last + 1
    for bar in histogram.bars:
        assert bar.total == sum(bar.first <= size <= bar.last for size in sizes)


def test_classes_of_one_size_need_no_histogram() -> None:
    assert count_class_sizes(of_sizes([20] * 5)).bars == ()


def test_very_different_classes_get_a_logarithmic_scale() -> None:
    assert count_class_sizes(of_sizes([1, 5, 5000])).logarithmic
    assert not count_class_sizes(of_sizes([400, 500])).logarithmic


def test_the_page_needs_nothing_but_itself(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = re.findall(r'(?:src|href|srcset|action|data)="([^"]*)"', text)
    assert {link.split(",")[0] for link in links if not link.startswith("#")} <= {
        "data:image/jpeg;base64",
        "data:image/png;base64",
    }
    assert not re.search(r"<(script|link|iframe|object|embed)\b|url\(|@import|https?:", text)


def test_the_page_tells_what_was_built_and_what_was_left_out(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert '<section id="pets">' in text
    assert '<section id="objects">' in text
    assert "3 users in 24 videos" in text
    assert "<details open" not in text
    shown = unescape(re.sub(r"<[^>]*>", "", text))
    for text_on_page in (
        ODD,
        "train/cat/half.jpg",
        "not a picture (it starts with b'<no> pic')",
        "cannot be decoded: <broken>",
        "squashed to a square, lanczos filter",
        "pillow",
        "sha256 of index.parquet",
    ):
        assert text_on_page in shown
    assert "<b>" not in text


def test_the_page_is_the_same_each_time(shards: Path, page: Path, tmp_path: Path) -> None:
    assert main([str(shards), "--html", str(tmp_path / "again.html")]) == 0
    assert (tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_a_long_quarantine_is_cut_on_the_page_and_says_so(tmp_path: Path) -> None:
    source = fill_class_folders(tmp_path / "source", {"cat": 2})
    for number in range(PAGE_ROWS + 3):
        (source / "cat" / f"bad-{number}.jpg").write_bytes(b"")
    build_shards(
        FolderSource(name="cats", root=source), tmp_path / "out", Recipe(sizes=(16,)), Run(workers=1)
    )
    assert main([str(tmp_path / "out"), "--html", str(tmp_path / "x.html")]) == 0
    text = (tmp_path / "x.html").read_text()
    assert text.count("the file is empty") == PAGE_ROWS
    assert f"{PAGE_ROWS + 3} pictures left out" in text
    assert "dataset.json lists all" in text


def test_drawings_stay_sharp_and_photographs_small() -> None:
    glyph = Image.new("RGB", (84, 84), "white")
    glyph.paste("black", (10, 10, 40, 44))
    noise = np.random.default_rng(0).integers(0, 256, (84, 84, 3), dtype=np.uint8)
    assert data_uri(glyph).startswith("data:image/png;base64,")
    assert data_uri(Image.fromarray(noise)).startswith("data:image/jpeg;base64,")


def test_a_contact_sheet_shows_the_stored_pictures(shards: Path, tmp_path: Path) -> None:
    out, dataset = tmp_path / "sheet.png", Dataset.open(shards / "pets")
    options = ["--png", str(out), "--classes", "2", "--samples", "2", "--size", "96", "--seed", "3"]
    assert main([str(shards / "pets"), *options]) == 0
    strips = choose_strips(dataset, classes=2, samples=2, seed=3)
    with Image.open(out) as opened:
        sheet = opened.convert("RGB")
    assert sheet.width == 2 * MARGIN + LABEL_WIDTH + max(len(s.rows) for s in strips) * (SHEET_TILE + 4) - 4
    first = np.asarray(stored_image(dataset, 96, strips[0].rows[0]).resize((SHEET_TILE, SHEET_TILE)))[
        1:-1, 1:-1
    ]
    pixels = np.asarray(sheet)
    left = MARGIN + LABEL_WIDTH + 1
    tops = range(pixels.shape[0] - SHEET_TILE)
    assert any(
        np.array_equal(pixels[top : top + SHEET_TILE - 2, left : left + SHEET_TILE - 2], first)
        for top in tops
    )


def test_a_damaged_picture_is_named_and_no_half_page_is_written(
    shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = Path(shutil.copytree(shards / "pets", tmp_path / "pets"))
    for tar in (root / "96").glob("*.tar"):
        tar.write_bytes(tar.read_bytes()[:2000])
    assert run_command(main, [str(root), "--html", str(tmp_path / "x.html")]) == 4
    message = capsys.readouterr().err
    assert "sample 0000000" in message
    assert "pipeline.verify" in message
    assert not (tmp_path / "x.html").exists()
    assert run_command(main, [str(root), "--html", str(tmp_path / "x.html"), "--size", "32"]) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--html", "x.html", "--size", "85"], "stored at 32 and 33 and 96 px"),
        (["--html", "nowhere/x.html"], "there is no folder nowhere"),
        (["--classes", "0"], "start at 1"),
    ],
)
def test_impossible_requests_say_why(
    options: list[str], message: str, shards: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_command(main, [str(shards / "pets"), *options]) == 2
    assert message in capsys.readouterr().err


def test_a_folder_without_shards_is_an_error(tmp_path: Path) -> None:
    assert run_command(main, [str(tmp_path)]) == 3


@pytest.mark.parametrize("width", [500, 1200])
def test_a_browser_loads_every_picture_and_the_page_fits_its_window(
    width: int, page: Path, tmp_path: Path
) -> None:
    probed = tmp_path / "probed.html"
    probed.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{PROBE}</body>"))
    size = f"--window-size={width},900"
    browser = run_browser(
        size, "--virtual-time-budget=10000", "--dump-dom", probed.as_uri(), profile=tmp_path / "p"
    )
    seen = dict(re.findall(r'data-(images|loaded|overflow)="(-?\d+)"', browser.stdout[:500]))
    count = page.read_text(encoding="utf-8").count("<img ")
    assert count > 50
    assert seen == {"images": str(count), "loaded": str(count), "overflow": "0"}


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_browser_draws_the_page_in_light_and_dark(scheme: str, page: Path, tmp_path: Path) -> None:
    out = tmp_path / "shot.png"
    dark = ["--force-dark-mode"] if scheme == "dark" else []
    run_browser(
        *dark, "--window-size=1200,1600", f"--screenshot={out}", page.as_uri(),
        profile=tmp_path / "p",
    )  # fmt: skip
    with Image.open(out) as opened:
        shot = np.asarray(opened.convert("RGB")).astype(int)
    assert shot.shape == (1600, 1200, 3)
    corner = shot[2, 2].mean()
    assert corner > 240 if scheme == "light" else corner < 40
    colourful = (shot.max(axis=2) - shot.min(axis=2)) > 40
    assert colourful.mean() > 0.05  # the pictures
    assert (abs(shot - shot[2, 2]).max(axis=2) > 60).any(axis=1).mean() > 0.4  # text all the way


def test_the_module_runs_as_a_command(shards: Path) -> None:
    environment = os.environ | {"COLUMNS": "40"}
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.show", str(shards)],
        capture_output=True, text=True, check=True, env=environment,
    )  # fmt: skip
    assert len(done.stdout.splitlines()) == 4
