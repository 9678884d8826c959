"""The table of downloads: the files of each dataset, where they come from and how large they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pipeline.sources.meta_dataset.parts import GIGABYTE, MEGABYTE, DownloadPart

DOWNLOADS: Final[Mapping[str, tuple[DownloadPart, ...]]] = {
    "ilsvrc_2012": (
        DownloadPart(
            file="ILSVRC2012_img_train.tar",
            url="https://image-net.org/download-images.php (ILSVRC 2012, training images, tasks 1 & 2)",
            bytes=147_897_477_120,
            folders=("ILSVRC2012_img_train", "train", "ILSVRC/Data/CLS-LOC/train"),
            marker="n01440764*",
        ),
    ),
    "omniglot": (
        DownloadPart(
            file="images_background.zip",
            url="https://github.com/brendenlake/omniglot/raw/master/python/images_background.zip",
            bytes=9_464_212,
            folders=("images_background",),
            marker="Alphabet_of_the_Magi",
        ),
        DownloadPart(
            file="images_evaluation.zip",
            url="https://github.com/brendenlake/omniglot/raw/master/python/images_evaluation.zip",
            bytes=6_462_886,
            folders=("images_evaluation",),
            marker="Angelic",
            optional=True,
        ),
    ),
    "aircraft": (
        DownloadPart(
            file="fgvc-aircraft-2013b.tar.gz",
            url="https://www.robots.ox.ac.uk/~vgg/data/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
            bytes=2_753_340_328,
            folders=("fgvc-aircraft-2013b/data", "data"),
            marker="images_variant_trainval.txt",
        ),
    ),
    "cu_birds": (
        DownloadPart(
            file="CUB_200_2011.tgz",
            url="https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
            bytes=1_150_585_339,
            folders=("CUB_200_2011/images", "images"),
            marker="001.Black_footed_Albatross",
        ),
    ),
    "dtd": (
        DownloadPart(
            file="dtd-r1.0.1.tar.gz",
            url="https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",
            bytes=625_239_812,
            folders=("dtd/images", "images"),
            marker="banded",
        ),
    ),
    "quickdraw": (
        DownloadPart(
            file="<class name>.npy, 345 files",
            url="gs://quickdraw_dataset/full/numpy_bitmap or "
            "https://storage.googleapis.com/quickdraw_dataset/full/numpy_bitmap/<class name>.npy",
            bytes=39_534_200_000,
            folders=("numpy_bitmap",),
            marker="*.npy",
        ),
    ),
    "fungi": (
        DownloadPart(
            file="fungi_train_val.tgz",
            url="https://labs.gbif.org/fgvcx/2018/fungi_train_val.tgz",
            bytes=13 * GIGABYTE,
            folders=("images",),
            marker="*",
        ),
        DownloadPart(
            file="train_val_annotations.tgz",
            url="https://labs.gbif.org/fgvcx/2018/train_val_annotations.tgz",
            bytes=4 * MEGABYTE,
            folders=("train_val_annotations",),
            marker="train.json",
        ),
    ),
    "vgg_flower": (
        DownloadPart(
            file="102flowers.tgz",
            url="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/102flowers.tgz",
            bytes=344_862_509,
            folders=("jpg",),
            marker="image_00001.jpg",
        ),
        DownloadPart(
            file="imagelabels.mat",
            url="https://www.robots.ox.ac.uk/~vgg/data/flowers/102/imagelabels.mat",
            bytes=502,
        ),
    ),
    "traffic_sign": (
        DownloadPart(
            file="GTSRB_Final_Training_Images.zip",
            url="https://sid.erda.dk/public/archives/daaeac0d7ce1152aea9b61d9f1e19370/"
            "GTSRB_Final_Training_Images.zip",
            bytes=276 * MEGABYTE,
            folders=("GTSRB/Final_Training/Images", "Final_Training/Images"),
            marker="00000",
        ),
    ),
    "mscoco": (
        DownloadPart(
            file="train2017.zip",
            url="http://images.cocodataset.org/zips/train2017.zip",
            bytes=19_336_861_798,
            folders=("train2017",),
            marker="*",
        ),
        DownloadPart(
            file="annotations_trainval2017.zip",
            url="http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
            bytes=252_907_541,
            folders=("annotations",),
            marker="instances_train2017.json",
        ),
    ),
    "mnist": (
        DownloadPart(
            file="t10k-images-idx3-ubyte.gz",
            url="https://storage.googleapis.com/cvdf-datasets/mnist/t10k-images-idx3-ubyte.gz",
            bytes=1_648_877,
            also=("t10k-images-idx3-ubyte", "t10k-images.idx3-ubyte"),
        ),
        DownloadPart(
            file="t10k-labels-idx1-ubyte.gz",
            url="https://storage.googleapis.com/cvdf-datasets/mnist/t10k-labels-idx1-ubyte.gz",
            bytes=4_542,
            also=("t10k-labels-idx1-ubyte", "t10k-labels.idx1-ubyte"),
        ),
    ),
}
