"""Tiny raw archives: how to draw and pack them, and those of VTAB's structured group."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import h5py
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.pipeline.sources.vtab.tfds_fixtures import example, tfrecord

KITTI_DEPTHS: Final = (-3.0, 4.2, 8.0, 8.1, 20.0, 20.5, 75.0, None)  # None: no vehicle
CLEVR_DEPTHS: Final = (7.5, 8.2, 8.51, 9.3, 10.0, 10.1)


def encoded_image(seed: int, height: int, width: int, kind: str = "JPEG") -> bytes:
    """An encoded colour image that compresses well and differs from seed to seed."""
    values = np.random.RandomState(seed).randint(0, 256, (2, 2, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(values).resize((width, height), Image.Resampling.BILINEAR).save(out, kind)
    return out.getvalue()


def random_array(seed: int, *shape: int, high: int = 256) -> NDArray[np.uint8]:
    return np.random.RandomState(seed).randint(0, high, shape, dtype=np.uint8)


def tar_gz(members: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def zip_file(path: Path, members: Mapping[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def clevr(root: Path) -> None:
    members: dict[str, bytes] = {}
    for split, count in (("train", 6), ("val", 4), ("test", 3)):
        names = [f"CLEVR_{split}_{i:06d}.png" for i in range(count)]
        for i, name in enumerate(names):
            members[f"CLEVR_v1.0/images/{split}/{name}"] = encoded_image(i, 32, 48, "PNG")
        questions = [{"image_filename": name, "question": "How many?", "answer": "3"} for name in names]
        text = json.dumps({"questions": questions})
        members[f"CLEVR_v1.0/questions/CLEVR_{split}_questions.json"] = text.encode()
        if split != "test":  # the test set has no scenes
            scenes = [{"objects": _clevr_objects(3 + i, CLEVR_DEPTHS[i])} for i in range(count)]
            text = json.dumps({"scenes": scenes})
            members[f"CLEVR_v1.0/scenes/CLEVR_{split}_scenes.json"] = text.encode()
    zip_file(root / "CLEVR_v1.0.zip", members)


def _clevr_objects(count: int, nearest: float) -> list[dict[str, object]]:
    return [
        {
            "color": "red",
            "material": "metal",
            "shape": "cube",
            "size": "large",
            "rotation": 1.5,
            "3d_coords": [0.5, 1.5, 2.5],
            "pixel_coords": [100 - i, 50, nearest + (i + 1) % count],
        }
        for i in range(count)
    ]


def dmlab(root: Path) -> None:
    members = {}
    for split, count in (("train", 5), ("validation", 3), ("test", 4)):
        rows = (
            example({
                "image": [encoded_image(i, 360, 480)],
                "filename": [f"{split}-{i}".encode()],
                "label": [(i + count) % 6],
            })
            for i in range(count)
        )  # fmt: skip
        members[f"dmlab-{split}.tfrecord-00000-of-00001"] = tfrecord(rows)
    (root / "dmlab.tar.gz").write_bytes(tar_gz(members))


def dsprites(root: Path) -> None:
    count = 20
    classes = np.stack(
        [np.arange(count) * step % n for step, n in ((0, 1), (1, 3), (1, 6), (3, 40), (5, 32), (7, 32))], 1
    )
    with h5py.File(root / "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.hdf5", "w") as file:
        file["imgs"] = random_array(3, count, 64, 64, high=2)
        file["latents/classes"] = classes.astype(np.int64)
        file["latents/values"] = classes.astype(np.float64) / 10


def kitti(root: Path) -> None:
    """30 images of 10 videos: one video each for validation and test."""
    count = 30
    order = ",".join(str(i + 1) for i in range(count))
    videos = "".join(f"2011_09_26 drive_{i // 3:04d} {i:010d}\n" for i in range(count))
    mapping = {"mapping/train_rand.txt": order.encode(), "mapping/train_mapping.txt": videos.encode()}
    zip_file(root / "devkit_object.zip", mapping)
    images = {f"training/image_2/{i:06d}.png": encoded_image(i, 24, 40, "PNG") for i in range(count)}
    zip_file(root / "data_object_image_2.zip", images)
    labels = {f"training/label_2/{i:06d}.txt": _kitti_lines(i).encode() for i in range(count)}
    zip_file(root / "data_object_label_2.zip", labels)


def _kitti_lines(index: int) -> str:
    depth = KITTI_DEPTHS[index % len(KITTI_DEPTHS)]
    vehicles = [] if depth is None else [(("Car", "Van", "Truck")[index % 3], depth), ("Car", depth + 9)]
    others = [("Pedestrian", 1.0), ("DontCare", -1000.0)] if index % 16 < 15 else []
    box = "0.00 0 1.57 5.00 6.00 20.00 18.00 1.50 1.60 3.70 2.00 1.70"
    return "".join(f"{kind} {box} {z} -1.56\n" for kind, z in [*others, *vehicles])


def smallnorb(root: Path) -> None:
    def matrix(array: NDArray[np.generic]) -> bytes:
        magic = 507333717 if array.dtype == np.uint8 else 507333716
        dims = [*array.shape, *[1] * (3 - array.ndim)]
        return gzip.compress(struct.pack(f"<{2 + len(dims)}i", magic, array.ndim, *dims) + array.tobytes())

    for name, count in (("5x46789x9x18x6x2x96x96-training", 9), ("5x01235x9x18x6x2x96x96-testing", 10)):
        number = np.arange(count, dtype=np.int32)
        shades = (number * 20).astype(np.uint8).reshape(count, 1, 1, 1)
        pairs = np.broadcast_to(shades, (count, 2, 96, 96)).copy()
        pairs[:, 1] = 255  # the right eye's image, which no task uses
        info = np.stack([number % 5, number % 9, 2 * (5 * number % 18), number % 6], axis=1)
        arrays = {"dat": pairs, "cat": number % 5, "info": info.astype(np.int32)}
        for kind, array in arrays.items():
            (root / f"smallnorb-{name}-{kind}.mat.gz").write_bytes(matrix(array))
