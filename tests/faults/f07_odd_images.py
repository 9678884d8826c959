"""F7: a damaged or odd image is kept, kept and listed, or left out with its reason; no build ends because of it."""

from __future__ import annotations

import random
from pathlib import Path

from pipeline.build.builder import Run, build_shards
from pipeline.build.images import decode_image
from pipeline.errors import IntegrityError
from pipeline.index import Dataset
from pipeline.records import Encoding, Recipe
from pipeline.sources.folder import FolderSource
from pipeline.verify.dataset import check_dataset
from tests.faults.builds import row
from tests.faults.rows import FaultRow
from tests.fuzz.mutations import mutate_bytes
from tests.images import jpeg_bytes
from tests.odd_images import OddImage, odd_images

SHORT = 120
LONG = 5000
SEED = 7
SIZE = 16
RECIPE = Recipe(sizes=(SIZE, 24), encodings=(Encoding.parse("raw"), Encoding.parse("jpeg:95")))


def run(points: int, folder: Path) -> FaultRow:
    """Build a folder of odd images, and of changed ones to as many as `points`, and look at what became of each."""
    images = (*odd_images(), *_changed(points))[:points]
    source = folder / "source" / "odd"
    source.mkdir(parents=True)
    for number, image in enumerate(images):
        (source / f"{number:05d} {image.name}").write_bytes(image.data)
    report = build_shards(
        FolderSource(name="odd", root=source.parent), folder / "out", RECIPE, Run(workers=1)
    )
    manifest = Dataset.open(folder / "out").manifest
    left_out = {Path(entry.name).name: entry.reason for entry in manifest.quarantined}
    damaged = {Path(entry.name).name: entry.reason for entry in manifest.damaged}
    problems = [
        f"{image.name} should be {image.outcome} ({image.reason}), is in neither list or in another"
        for number, image in enumerate(images)
        if not _is_listed(image, f"{number:05d} {image.name}", left_out, damaged)
    ]
    if manifest.samples + len(left_out) != len(images):
        problems.append(f"{manifest.samples} built and {len(left_out)} left out of {len(images)}")
    problems += [str(problem) for problem in check_dataset(folder / "out").problems]
    figure = (
        f"{len(images)} images, 0 aborts: {report.manifest.samples if report.manifest else 0} built, "
        f"of them {len(damaged)} listed as damaged, {len(left_out)} left out with the reason; the shards verify"
    )
    return row(len(images), problems, figure)


def _changed(count: int) -> list[OddImage]:
    """Whole images that were cut, flipped and overwritten; what decoding one alone says is what a build must do."""
    generator = random.Random(SEED)
    whole = [image.data for image in odd_images() if image.outcome == "kept" and len(image.data) < 1 << 16]
    whole += [jpeg_bytes(seed, 200, 150) for seed in range(10)]
    changed = []
    for number in range(count):
        data = mutate_bytes(generator.choice(whole), generator)
        try:
            damage = decode_image(data).damage
            changed.append(OddImage(f"changed {number}", data, "damaged" if damage else "kept", damage))
        except IntegrityError as error:
            changed.append(OddImage(f"changed {number}", data, "rejected", str(error)))
    return changed


def _is_listed(image: OddImage, name: str, left_out: dict[str, str], damaged: dict[str, str]) -> bool:
    expected = {"rejected": left_out, "damaged": damaged}.get(image.outcome, {})
    if image.outcome == "kept":
        return name not in left_out and name not in damaged
    return image.reason in expected.get(name, "?") and (name in left_out) != (name in damaged)
