"""Small copies of the official layouts: every class with its folder, file or list entry, tiny images."""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.sources.meta_dataset.classes import official_classes
from tests.images import jpeg_bytes

WIDTH, HEIGHT = 20, 16
BOX = (3, 2, 15, 12)


def class_names(dataset: str) -> list[str]:
    return [entry.record.name for entry in official_classes(dataset)]


@cache
def content(dataset: str, name: str) -> bytes:
    """The image of a class, another one for each class, in the dataset's own format."""
    seed = zlib.crc32(name.encode())
    buffer = io.BytesIO()
    if dataset == "omniglot":
        bits = np.unpackbits(np.frombuffer(struct.pack(">I", seed), np.uint8)).reshape(8, 4)
        Image.fromarray(bits * np.uint8(255)).convert("1").save(buffer, "PNG")
    elif dataset == "traffic_sign":
        Image.open(io.BytesIO(jpeg_bytes(seed, WIDTH, HEIGHT))).save(buffer, "PPM")
    else:
        return jpeg_bytes(seed, WIDTH, HEIGHT)
    return buffer.getvalue()


def drawing(name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    generator = np.random.default_rng(zlib.crc32(name.encode()))
    return generator.integers(0, 256, 784, dtype=np.uint8)


def put(path: Path, data: bytes | str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)


def omniglot(root: Path) -> None:
    for entry in official_classes("omniglot"):
        record = entry.record
        top = "images_evaluation" if record.split == "test" else "images_background"
        character = record.name.removeprefix(record.superclass + "-")
        put(root / top / record.superclass / character / "0001_01.png", content("omniglot", record.name))


def aircraft(root: Path) -> None:
    data = root / "fgvc-aircraft-2013b" / "data"
    lists: dict[str, str] = {"trainval": "", "test": ""}
    boxes = ""
    for number, name in enumerate(class_names("aircraft")):
        for own, lines in lists.items():
            image = f"{number:05d}{'01' if own == 'test' else '77'}"
            put(data / "images" / f"{image}.jpg", content("aircraft", name))
            lists[own] = lines + f"{image} {name}\n"
            boxes += f"{image} {' '.join(map(str, BOX))}\n"
    put(data / "images_box.txt", boxes)
    put(data / "variants.txt", "\n".join(sorted(class_names("aircraft"))))
    for own, lines in lists.items():
        put(data / f"images_variant_{own}.txt", lines)


def cu_birds(root: Path) -> None:
    for name in class_names("cu_birds"):
        put(root / "CUB_200_2011" / "images" / name / f"{name[4:]}_0001_1.jpg", content("cu_birds", name))
    names = sorted(class_names("cu_birds"))
    put(root / "CUB_200_2011" / "classes.txt", "".join(f"{i} {n}\n" for i, n in enumerate(names, 1)))
    put(root / "attributes.txt", "1 has_bill_shape::curved\n")


def dtd(root: Path) -> None:
    for name in class_names("dtd"):
        put(root / "dtd" / "images" / name / f"{name}_0001.jpg", content("dtd", name))
    put(root / "dtd" / "images" / "waffled" / ".directory", "[Dolphin]\n")
    put(root / "dtd" / "labels" / "train1.txt", "banded/banded_0001.jpg\n")


def quickdraw(root: Path) -> None:
    for name in class_names("quickdraw"):
        root.mkdir(parents=True, exist_ok=True)
        np.save(root / f"{name}.npy", np.stack([drawing(name), drawing(name + " again")]))


def fungi(root: Path) -> None:
    lists: dict[str, dict[str, list[dict[str, object]]]] = {}
    for own in ("train", "val"):
        lists[own] = {"images": [], "annotations": [], "categories": []}
        for number, name in enumerate(sorted(class_names("fungi"))):
            file = f"images/{number}_{name[5:].replace(' ', '_')}/{own}.JPG"
            put(root / file, content("fungi", name))
            lists[own]["images"].append({"id": 7 * number, "file_name": file})
            lists[own]["annotations"].append({"image_id": 7 * number, "category_id": number})
            lists[own]["categories"].append({"id": number, "name": name[5:]})
            if own == "val" and number > 20:  # not every species is in both
                break
        put(root / f"{own}.json", json.dumps(lists[own]))


def matlab(labels: list[int], *, compressed: bool = True, name: bytes = b"labels") -> bytes:
    """imagelabels.mat as MATLAB writes it: one matrix of bytes."""

    def element(kind: int, data: bytes) -> bytes:
        if 0 < len(data) <= 4:
            return struct.pack("<HH", kind, len(data)) + data.ljust(4, b"\0")
        return struct.pack("<II", kind, len(data)) + data.ljust(-(-len(data) // 8) * 8, b"\0")

    matrix = element(6, struct.pack("<II", 6, 0)) + element(5, struct.pack("<ii", 1, len(labels)))
    matrix = element(14, matrix + element(1, name) + element(2, bytes(labels)))
    if compressed:
        packed = zlib.compress(matrix)
        matrix = struct.pack("<II", 15, len(packed)) + packed
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\x00\x01IM" + matrix


def vgg_flower(root: Path) -> None:
    names = sorted(class_names("vgg_flower"))
    labels = [*range(102, 0, -1), 5, 5]
    for number, label in enumerate(labels, start=1):
        put(root / "jpg" / f"image_{number:05d}.jpg", content("vgg_flower", names[label - 1]))
    put(root / "imagelabels.mat", matlab(labels))


def traffic_sign(root: Path) -> None:
    for number, name in enumerate(class_names("traffic_sign")):
        folder = root / "GTSRB" / "Final_Training" / "Images" / f"{number:05d}"
        for track, frame in ((0, 0), (0, 1), (3, 29)):
            put(folder / f"{track:05d}_{frame:05d}.ppm", content("traffic_sign", name))
        put(folder / f"GT-{number:05d}.csv", "Filename;Width\n")
    put(root / "GTSRB" / "Readme-Images.txt", "German Traffic Sign Recognition Benchmark\n")


def mscoco(root: Path) -> None:
    images, annotations, categories = [], [], []
    for number, name in enumerate(sorted(class_names("mscoco")), start=1):
        file = f"{number:012d}.jpg"
        put(root / "train2017" / file, content("mscoco", name))
        images.append({"id": number, "file_name": file, "width": WIDTH, "height": HEIGHT})
        annotations.append(
            {
                "id": 900100000000 + number,
                "image_id": number,
                "category_id": number + number // 12,  # the real ids have gaps
                "bbox": [4.5, 3, 10, 5.25],
                "iscrowd": number % 2,
                "segmentation": [[1.5, 2.5, 3.5]],
            }
        )
        categories.append({"id": number + number // 12, "name": name, "supercategory": "thing"})
    about = {"info": {"year": 2017}, "licenses": [], "images": images, "annotations": annotations}
    text = json.dumps(about | {"categories": categories})
    put(root / "annotations" / "instances_train2017.json", text)


def mnist(root: Path) -> None:
    digits = bytes([7, *range(10), 7])
    pixels = np.stack([drawing(f"class_{digit}") for digit in digits])
    images = struct.pack(">IIII", 2051, len(digits), 28, 28) + pixels.tobytes()
    put(root / "t10k-images-idx3-ubyte", images)
    put(root / "t10k-labels-idx1-ubyte", struct.pack(">II", 2049, len(digits)) + digits)


def ilsvrc_2012(root: Path) -> None:
    for name in class_names("ilsvrc_2012"):
        put(root / "ILSVRC2012_img_train" / name / f"{name}_10.JPEG", content("ilsvrc_2012", name))


UNPACKED: dict[str, Callable[[Path], None]] = {
    writer.__name__: writer
    for writer in (
        ilsvrc_2012,
        omniglot,
        aircraft,
        cu_birds,
        dtd,
        quickdraw,
        fungi,
        vgg_flower,
        traffic_sign,
        mscoco,
        mnist,
    )
}
UNPACKED["ilsvrc_2012_v2"] = ilsvrc_2012  # other splits of the same files
ARCHIVES: dict[str, dict[str, tuple[str, ...]]] = {
    "omniglot": {
        "images_background.zip": ("images_background",),
        "images_evaluation.zip": ("images_evaluation",),
    },
    "aircraft": {"fgvc-aircraft-2013b.tar.gz": ("fgvc-aircraft-2013b",)},
    "cu_birds": {"CUB_200_2011.tgz": ("CUB_200_2011", "attributes.txt")},
    "dtd": {"dtd-r1.0.1.tar.gz": ("dtd",)},
    "fungi": {"fungi_train_val.tgz": ("images",), "train_val_annotations.tgz": ("train.json", "val.json")},
    "vgg_flower": {"102flowers.tgz": ("jpg",)},
    "traffic_sign": {"GTSRB_Final_Training_Images.zip": ("GTSRB",)},
    "mscoco": {"train2017.zip": ("train2017",), "annotations_trainval2017.zip": ("annotations",)},
}


def publish(dataset: str, plain: Path, root: Path) -> None:
    """The files as they are downloaded, from their unpacked form."""
    root.mkdir(parents=True)
    for archive, members in ARCHIVES.get(dataset, {}).items():
        pack(plain, members, root / archive)
    if dataset == "vgg_flower":
        (root / "imagelabels.mat").write_bytes((plain / "imagelabels.mat").read_bytes())
    if dataset == "mnist":
        for file in plain.iterdir():
            (root / f"{file.name}.gz").write_bytes(gzip.compress(file.read_bytes()))
    if dataset.startswith("ilsvrc_2012"):
        inner = inner_tars(plain / "ILSVRC2012_img_train", root.with_name(f"{dataset}-inner"))
        pack(inner, names_in(inner), root / "ILSVRC2012_img_train.tar")


def inner_tars(folder: Path, target: Path) -> Path:
    """ImageNet's classes, each in its own tar."""
    target.mkdir(parents=True)
    for child in sorted(folder.iterdir()):
        pack(child, names_in(child), target / f"{child.name}.tar")
    return target


def names_in(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.name for path in folder.iterdir()))


def pack(folder: Path, members: tuple[str, ...], archive: Path) -> None:
    """A zip, tar or compressed tar of some of what a folder holds."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as pack_file:
            for member in members:
                for file in sorted((folder / member).rglob("*")):
                    pack_file.write(file, file.relative_to(folder))
        return
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for member in members:
            tar.add(folder / member, member)
    data = buffer.getvalue()
    archive.write_bytes(data if archive.suffix == ".tar" else gzip.compress(data, 1))
