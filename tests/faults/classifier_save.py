"""Saving a classifier as a command: a run's learner adapts to a folder of images and is written as one file."""

from __future__ import annotations

from collections.abc import Sequence

from learners.use.classifier import Learner


def main(argv: Sequence[str] | None = None) -> int:
    """Arguments: the run, the folder of images, the file to write."""
    run, images, target = argv or ()
    Learner.load(run, device="cpu").adapt(images).save(target)
    return 0
