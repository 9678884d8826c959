"""Real datasets in three encodings stream as one training set. They lie where REAL_DATA says."""

from __future__ import annotations

import tarfile
from collections import Counter
from itertools import islice
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from pipeline import EpisodeLoader, ShardSet, samplers
from tests.episodes import stream_digests
from tests.test_real_data import built, stored

SIZE = 28
HELD_OUT = 10


def real_set(real_data: Path, root: Path) -> ShardSet:
    """Omniglot as PNG, MNIST raw, 40 of 50 Caltech classes as JPEG for training."""
    few = ("--limit-per-class", "100")
    built("omniglot", real_data / "omniglot", root / "md" / "omniglot", *encoded("png"))
    built("mnist", real_data / "mnist", root / "md" / "mnist", *few, *encoded("raw"))
    archive = real_data / "caltech101" / "101_ObjectCategories_50.tar"
    with tarfile.open(archive) as tar:
        names = sorted({PurePosixPath(name).parent.name for name in tar.getnames() if ".jpg" in name})
    lines = [f"{name} {'test' if at < HELD_OUT else 'train'}" for at, name in enumerate(names)]
    (root / "splits.txt").write_text("\n".join(lines))
    chosen = ("--name", "caltech", "--split-by", str(root / "splits.txt"), *encoded("jpeg:95"))
    built("folder", archive, root / "md" / "caltech", *chosen)
    return ShardSet.open(root / "md")


def encoded(how: str) -> tuple[str, ...]:
    return ("--sizes", str(SIZE), "--encode", f"{SIZE}={how}")


def test_omniglot_mnist_and_caltech_stream_as_one_training_set(real_data: Path, tmp_path: Path) -> None:
    shards = real_set(real_data, tmp_path)
    sampler = samplers.MetaDataset(shards, split="train", seed=1)
    seen: Counter[str] = Counter()
    with EpisodeLoader(shards, sampler, image_size=SIZE, h=40, threads=2) as loader:
        for episode in islice(loader, 60):
            seen[episode.dataset] += 1
            dataset, plan = shards[episode.dataset], episode.plan
            classes = np.array(plan.classes)
            names = {dataset.manifest.classes[id_].split for id_ in plan.classes}
            assert names == {"train"}
            if episode.dataset == "omniglot":
                assert len({dataset.manifest.classes[c].superclass for c in plan.classes}) == 1
            for side, planned in ((episode.support, plan.support), (episode.query, plan.query)):
                images, rows = side.images, planned.rows[side.positions]
                assert torch.equal(
                    torch.from_numpy(dataset.index["class_id"][rows]), torch.from_numpy(classes)[side.labels]
                )
                for at in (0, len(rows) // 2, len(rows) - 1):
                    image = np.asarray(stored(dataset, int(rows[at]), SIZE).convert("RGB"))
                    assert np.array_equal(images[at].permute(1, 2, 0), image)
            assert len(episode.support.h) == min(40, len(episode.support))
    assert set(seen) == {"omniglot", "mnist", "caltech"}
    assert min(seen.values()) >= 10
    with (
        EpisodeLoader(shards, sampler, image_size=SIZE, threads=1, ahead=1) as one,
        EpisodeLoader(shards, sampler, image_size=SIZE, threads=4, decoder="dali") as other,
    ):
        assert stream_digests(one, 12) == stream_digests(other, 12)
