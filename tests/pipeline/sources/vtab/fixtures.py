"""Tiny raw archives of VTAB's fifteen TFDS datasets, in the layouts and under the names of the originals.

All lie in one folder, as TFDS expects of files that were downloaded by hand.
"""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Final

import h5py
import numpy as np
import scipy.io
from PIL import Image

from pipeline.sources.vtab.tfds_prepare import prepare_builders
from tests.pipeline.sources.vtab.archives import (
    clevr,
    dmlab,
    dsprites,
    encoded_image,
    kitti,
    random_array,
    smallnorb,
    tar_gz,
    zip_file,
)

SUN_NAMES: Final = {  # from the lists of TFDS' own partition
    "train": (
        "/a/abbey/sun_aaaulhwrhqgejnyt.jpg",
        "/a/abbey/sun_aacphuqehdodwawg.jpg",
        "/a/airplane_cabin/sun_aajrkgygaguuddbv.jpg",
        "/a/airplane_cabin/sun_abfvixdygbpxvyko.jpg",
        "/a/airplane_cabin/sun_abrvccpqbycaqwlw.jpg",
    ),
    "validation": ("/a/abbey/sun_aaalbzqrimafwbiv.jpg", "/a/abbey/sun_aamvxnvouicstkjb.jpg"),
    "test": (
        "/a/abbey/sun_aalltzgxbismofdm.jpg",
        "/a/abbey/sun_abmdkcsiorqshcqg.jpg",
        "/c/church/outdoor/sun_aaxmabdllxcaczxc.jpg",
    ),
}


def write_all(root: Path) -> Path:
    """Every archive into `root`."""
    root.mkdir(parents=True, exist_ok=True)
    for write in (
        *(caltech101, cifar100, clevr, dmlab, dsprites, eurosat, kitti, flowers102, pets),
        *(camelyon, resisc45, smallnorb, sun397, svhn, retinopathy),
    ):
        write(root)
    return root


def caltech101(root: Path) -> None:
    images = {
        f"101_ObjectCategories/{name}/image_{i + 1:04d}.jpg": encoded_image(50 * c + i, 20, 30)
        for c, name in enumerate(("accordion", "Faces"))
        for i in range(32)
    }
    inner = tar_gz(images)
    zip_file(root / "caltech-101.zip", {"caltech-101/101_ObjectCategories.tar.gz": inner})


def cifar100(root: Path) -> None:
    def records(seed: int, count: int) -> bytes:
        labels = ((i % 20, (7 * i + seed) % 100) for i in range(count))
        return b"".join(bytes(pair) + random_array(seed + i, 3072).tobytes() for i, pair in enumerate(labels))

    names = {kind: "".join(f"{kind}_{i}\n" for i in range(n)) for kind, n in (("coarse", 20), ("fine", 100))}
    members = {f"cifar-100-binary/{k}_label_names.txt": text.encode() for k, text in names.items()}
    members["cifar-100-binary/train.bin"] = records(1, 12)
    members["cifar-100-binary/test.bin"] = records(100, 7)
    (root / "cifar-100-binary.tar.gz").write_bytes(tar_gz(members))


def eurosat(root: Path) -> None:
    names = [f"{label}/{label}_{i}.jpg" for label in ("Forest", "River", "SeaLake") for i in (1, 2)]
    zip_file(root / "EuroSAT.zip", {f"2750/{n}": encoded_image(i, 64, 64) for i, n in enumerate(names)})


def flowers102(root: Path) -> None:
    count = 12
    images = {f"jpg/image_{i + 1:05d}.jpg": encoded_image(i, 25, 20) for i in range(count)}
    (root / "102flowers.tgz").write_bytes(tar_gz(images))
    labels = np.array([[(9 * i) % 102 + 1 for i in range(count)]])
    scipy.io.savemat(root / "imagelabels.mat", {"labels": labels})
    ids = {"trnid": [[1, 4, 7]], "valid": [[2, 5]], "tstid": [[3, 6, 8, 9, 10, 11, 12]]}
    scipy.io.savemat(root / "setid.mat", {key: np.array(value) for key, value in ids.items()})


def pets(root: Path) -> None:
    rows = [
        ("Abyssinian_1", 1, 1),
        ("beagle_2", 5, 2),
        ("pug_3", 26, 2),
        ("Bombay_4", 8, 1),
        ("boxer_5", 9, 2),
        ("Sphynx_6", 34, 1),
    ]
    images = {f"images/{name}.jpg": encoded_image(i, 30, 24) for i, (name, _, _) in enumerate(rows)}
    (root / "images.tar.gz").write_bytes(tar_gz(images))
    lines = [f"{name} {label} {species} 1\n" for name, label, species in rows]
    notes = {"trainval.txt": "".join(lines[:4]).encode(), "test.txt": "".join(lines[4:]).encode()}
    mask = io.BytesIO()
    Image.fromarray(random_array(1, 30, 24, high=3) + np.uint8(1)).save(mask, "PNG")
    notes |= {f"trimaps/{name}.png": mask.getvalue() for name, _, _ in rows}
    box = "<bndbox><xmin>2</xmin><ymin>3</ymin><xmax>20</xmax><ymax>28</ymax></bndbox>"
    xml = f"<annotation><size><width>24</width><height>30</height></size><object>{box}</object></annotation>"
    notes |= {f"xmls/{name}.xml": xml.encode() for name, _, _ in rows[:4]}
    notes = {f"annotations/{name}": data for name, data in notes.items()}
    (root / "annotations.tar.gz").write_bytes(tar_gz(notes))


def camelyon(root: Path) -> None:
    for split, count in (("train", 5), ("valid", 4), ("test", 3)):
        labels = (np.arange(count) % 2).astype(np.uint8).reshape(count, 1, 1, 1)
        shades = np.arange(count, dtype=np.uint8).reshape(count, 1, 1, 1) * np.uint8(30)
        for key, array in (("x", np.broadcast_to(shades, (count, 96, 96, 3))), ("y", labels)):
            raw = io.BytesIO()
            with h5py.File(raw, "w") as file:
                file[key] = array
            path = root / f"camelyonpatch_level_2_split_{split}_{key}.h5.gz"
            path.write_bytes(gzip.compress(raw.getvalue()))


def resisc45(root: Path) -> None:
    for c, label in enumerate(("airplane", "beach", "wetland")):
        folder = root / "NWPU-RESISC45" / label
        folder.mkdir(parents=True)
        for i in range(2):
            (folder / f"{label}_{i + 1:03d}.jpg").write_bytes(encoded_image(2 * c + i, 256, 256))


def sun397(root: Path) -> None:
    names = [name for split in SUN_NAMES.values() for name in split]
    images = {f"SUN397{name}": encoded_image(i, 30, 40) for i, name in enumerate(names)}
    (root / "SUN397.tar.gz").write_bytes(tar_gz(images))
    zip_file(root / "Partitions.zip", {"Partitions/Training_01.txt": b"", "Partitions/Testing_01.txt": b""})


def svhn(root: Path) -> None:
    for split, count in (("train", 6), ("test", 4), ("extra", 2)):
        digits = (np.arange(count) % 10 + 1).astype(np.uint8).reshape(count, 1)
        digits[0] = 10  # how SVHN writes zero
        values = {"X": random_array(count, 32, 32, 3, count), "y": digits}
        scipy.io.savemat(root / f"{split}_32x32.mat", values, do_compression=True)


def retinopathy(root: Path) -> None:
    names = {"sample": ["10_left"], "train": [f"{i}_{s}" for i in (10, 13, 15) for s in ("left", "right")]}
    names["test"] = [f"{i}_{side}" for i in (1, 2) for side in ("left", "right")]
    for folder, stems in names.items():
        (root / folder).mkdir()
        for i, stem in enumerate(stems):
            (root / folder / f"{stem}.jpeg").write_bytes(_eye(i))
    rows = "".join(f"{stem},{i % 5}\n" for i, stem in enumerate(names["train"]))
    (root / "trainLabels.csv").write_text("image,level\n" + rows)
    usage = "".join(
        f"{stem},{4 - i},{'Public' if i < 2 else 'Private'}\n" for i, stem in enumerate(names["test"])
    )
    (root / "retinopathy_solution.csv").write_text("image,level,Usage\n" + usage)


def _eye(seed: int) -> bytes:
    y, x = np.mgrid[:60, :80]
    disc = ((x - 40) ** 2 + (y - 30) ** 2 < 28**2)[..., None]
    out = io.BytesIO()
    Image.fromarray((disc * (random_array(seed, 1, 1, 3) // 2 + 100)).astype(np.uint8)).save(out, "JPEG")
    return out.getvalue()


BUILDERS: Final = (
    *("caltech101", "cifar100", "clevr", "dmlab", "dsprites", "eurosat/rgb", "kitti"),
    *("oxford_flowers102", "oxford_iiit_pet", "patch_camelyon", "resisc45", "smallnorb"),
    *("sun397/tfds", "svhn_cropped", "diabetic_retinopathy_detection/btgraham-300"),
    "diabetic_retinopathy_detection/original",
)
NEEDED: Final = ("tensorflow", "tensorflow_datasets", "importlib_resources")


def prepared_by_tfds(base: Path) -> tuple[Path, Path, Path]:
    """The raw archives, and what TFDS' builders make of them as array_record and as tfrecord; once."""
    raw, arrays, records = (base / "vtab" / name for name in ("raw", "array_record", "tfrecord"))
    if not raw.exists():
        write_all(raw)
        for out in (arrays, records):
            prepare_builders(BUILDERS, raw, out, check_archives=False, file_format=out.name)
    return raw, arrays, records
