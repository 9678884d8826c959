"""A small ORBIT set on disk: users, objects, videos and frames, with annotations, folders or ZIPs."""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.constants import QUALITY_ISSUES
from tests.images import jpeg_bytes

USERS: Mapping[str, Sequence[str]] = {"train": ("P100", "P118"), "validation": ("P194",), "test": ("P177",)}
OBJECTS = ("bag", "finger nail clipper")
IDS = ("-leads", "two--parts", "plain_1", "Zj_1-x")  # as ORBIT's own ids are


def make_orbit(
    root: Path,
    *,
    users: Mapping[str, Sequence[str]] = USERS,
    objects: Sequence[str] = OBJECTS,
    clean: int = 2,
    clutter: int = 1,
    frames: int = 4,
    size: int = 16,
    annotations: bool = True,
) -> Path:
    """The benchmark's layout; "" as a split makes the unfiltered set's, without that level."""
    seed = 0
    for split, names in users.items():
        for user in names:
            for thing in objects:
                for kind, count in (("clean", clean), ("clutter", clutter)):
                    for position in range(count):
                        seed += frames
                        video = video_name(user, thing, kind, position)
                        folder = root / split / user / thing / kind / video
                        write_frames(folder, frames, size=size, seed=seed)
                        if annotations:
                            annotate(root / "annotations" / split, video, kind, frames)
    return root


def video_name(user: str, thing: str, kind: str, position: int) -> str:
    """A video's name, with an id as odd as the published ones."""
    identity = IDS[position % len(IDS)] + "x" * (position // len(IDS))
    return f"{user}--{thing.replace(' ', '-')}--{kind}--{identity}"


def write_frames(folder: Path, frames: int, *, size: int = 16, seed: int = 0) -> None:
    """`frames` JPEGs, numbered from 1."""
    folder.mkdir(parents=True)
    for number in range(1, frames + 1):
        image = jpeg_bytes(seed + number, size, size)
        (folder / f"{folder.name}-{number:05d}.jpg").write_bytes(image)


def annotate(folder: Path, video: str, kind: str, frames: int) -> Path:
    """Flags for a clean video, boxes for one in clutter; the object is absent from the last frame."""
    notes: dict[str, dict[str, object]] = {}
    for number in range(1, frames + 1):
        absent = number == frames
        note: dict[str, object] = {"object_not_present_issue": absent}
        if kind == "clean":
            note.update(dict.fromkeys(QUALITY_ISSUES[1:], None if absent else number % 2 == 0))
        else:
            box = {"x": 100 * number, "y": 200, "w": 300, "h": 400}
            note["object_bounding_box"] = None if absent else box
        notes[f"{video}-{number:05d}.jpg"] = note
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{video}.json"
    path.write_text(json.dumps(notes))
    return path


def zip_orbit(root: Path, *, top: str = "") -> Path:
    """Put each split's folder into `<split>.zip`, and the annotations into one, as they are offered."""
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        name = "orbit_extra_annotations" if folder.name == "annotations" else folder.name
        inside = folder if folder.name == "annotations" else root
        with zipfile.ZipFile(root / f"{name}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(path for path in folder.rglob("*") if path.is_file()):
                archive.write(file, Path(top) / file.relative_to(inside))
        shutil.rmtree(folder)
    return root
