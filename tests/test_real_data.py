"""Real archives, videos and photographs go through the command and come out whole.

They lie where the environment variable REAL_DATA says; without it these tests skip.
"""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.build.__main__ import main
from pipeline.index import Dataset
from pipeline.verify.__main__ import verify


def built(dataset: str, source: Path, out: Path, *options: str) -> Dataset:
    """Build by the command, check every byte, open."""
    command = ["--dataset", dataset, "--source", str(source), "--out", str(out), "--quiet", *options]
    assert main([*command, "--workers", "2"]) == 0
    assert verify(out).problems == ()
    return Dataset.open(out)


def stored(dataset: Dataset, row: int, size: int) -> Image.Image:
    """One stored image."""
    index = dataset.index
    tar = dataset.tar(size, int(index["shard"][row])).read_bytes()
    offset, length = int(index[f"offset_{size}"][row]), int(index[f"length_{size}"][row])
    data = tar[offset : offset + length]
    if data.startswith(b"\x93NUMPY"):
        return Image.fromarray(np.load(io.BytesIO(data), allow_pickle=False))
    return Image.open(io.BytesIO(data))


def test_omniglots_background_set_is_964_characters_of_30_alphabets(real_data: Path, tmp_path: Path) -> None:
    dataset = built("omniglot", real_data / "omniglot", tmp_path / "o", "--sizes", "28", "--encode", "28=png")
    classes = dataset.manifest.classes
    assert (len(classes), dataset.manifest.samples) == (964, 19_280)
    assert len({record.superclass for record in classes}) == 30
    assert dict(dataset.manifest.splits) == {"train": 17_660, "validation": 1_620}
    assert set(np.bincount(dataset.index["class_id"]).tolist()) == {20}
    assert np.asarray(stored(dataset, 0, 28)).mean() < 100  # white on black


def test_mnists_test_files_are_ten_training_classes(real_data: Path, tmp_path: Path) -> None:
    dataset = built("mnist", real_data / "mnist", tmp_path / "m", "--sizes", "28", "--encode", "28=raw")
    counts = np.bincount(dataset.index["class_id"]).tolist()
    assert counts == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert dict(dataset.manifest.splits) == {"train": 10_000}


def test_a_limit_for_one_dataset_of_a_family_leaves_the_others_whole(real_data: Path, tmp_path: Path) -> None:
    options = ("--sizes", "28", "--encode", "28=raw", "--limit-per-class", "mnist=50", "--quiet")
    assert main(["--dataset", "md", "--source", str(real_data), "--out", str(tmp_path), *options]) == 0
    mnist, omniglot = (Dataset.open(tmp_path / name) for name in ("mnist", "omniglot"))
    assert (mnist.manifest.samples, mnist.class_limit) == (500, 50)
    assert (omniglot.manifest.samples, omniglot.class_limit) == (19_280, None)


def test_caltech_101_through_folder_keeps_every_class_and_image(real_data: Path, tmp_path: Path) -> None:
    archive = real_data / "caltech101" / "101_ObjectCategories_50.tar"
    dataset = built("folder", archive, tmp_path / "c", "--name", "caltech", "--sizes", "32")
    assert (len(dataset.manifest.classes), dataset.manifest.samples) == (50, 2_613)
    with tarfile.open(archive) as tar:
        folders = {Path(name).parent.name for name in tar.getnames() if name.endswith(".jpg")}
    assert {record.name for record in dataset.manifest.classes} == folders


def test_photographs_of_all_shapes_become_squares_of_both_sizes(real_data: Path, tmp_path: Path) -> None:
    dataset = built("folder", real_data / "photos" / "photos.tar", tmp_path / "p")
    assert dataset.manifest.samples == 160
    assert dataset.manifest.quarantined == ()
    for row in range(0, 160, 20):
        small, large = stored(dataset, row, 84), stored(dataset, row, 224)
        assert (small.size, large.size, large.mode) == ((84, 84), (224, 224), "RGB")
        again = np.asarray(large.resize((84, 84), Image.Resampling.LANCZOS), np.int64)
        assert np.abs(np.asarray(small, np.int64) - again).mean() < 8


def test_real_videos_become_upright_frames_and_broken_ones_lose_only_what_is_broken(
    real_data: Path, tmp_path: Path
) -> None:
    clips = {
        "upright": "video_0.mov",
        "left": "video_90.mov",
        "over": "video_180.mov",
        "right": "video_270.mov",
        "unordered": "unordered.mov",
        "corrupted": "corrupted.mp4",
        "pancake": "flipping_a_pancake.mkv",
    }
    for name, clip in clips.items():
        for number, kind in enumerate(("clean", "clutter")):
            folder = tmp_path / "orbit" / "train" / "P001" / name / kind
            folder.mkdir(parents=True)
            video = f"P001--{name}--{kind}--take{number}{Path(clip).suffix}"
            shutil.copy(real_data / "video" / clip, folder / video)
    dataset = built("orbit", tmp_path / "orbit", tmp_path / "shards", "--frame-step", "10")
    index, manifest = dataset.index, dataset.manifest
    assert [record.name for record in manifest.classes] == sorted(f"P001/{name}" for name in clips)
    assert {record.superclass for record in manifest.classes} == {"P001"}
    assert index.is_word("kind", "clean").sum() == index.is_word("kind", "clutter").sum()
    lost = {entry.name.rsplit("#")[-1] for entry in manifest.quarantined}
    assert lost == {"00031"}  # the one frame of corrupted.mp4 that no decoder reads
    for class_id in range(len(clips)):
        rows = index.rows_of(class_id)
        frames = index["frame"][rows][index.is_word("kind", "clean")[rows]]
        assert frames.tolist() == sorted(frames.tolist())
        assert all((number - 1) % 10 == 0 for number in frames.tolist())
