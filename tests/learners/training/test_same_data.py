"""A run goes on with the images that it began with; what changed is said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from learners.runs import DataIdentity
from learners.training.same_data import check_same_data
from pipeline.errors import UsageError

BIRDS = DataIdentity(plan="a1", samples=1000, index="i1")
FUNGI = DataIdentity(plan="b1", samples=500, index="j1")
BEGUN = {"birds": BIRDS, "fungi": FUNGI}


@pytest.mark.parametrize(
    ("now", "change"),
    [
        ({"birds": BIRDS}, r"fungi is missing"),
        ({**BEGUN, "mnist": FUNGI}, r"mnist is new"),
        ({**BEGUN, "birds": replace(BIRDS, samples=999)}, r"birds had 1,000 images and has 999"),
        (
            {**BEGUN, "birds": replace(BIRDS, plan="a2")},
            r"birds was built anew, with other images, classes, splits",
        ),
        ({"mnist": FUNGI}, r"birds is missing; fungi is missing; mnist is new"),
    ],
)
def test_other_images_are_refused_by_name(now: dict[str, DataIdentity], change: str) -> None:
    with pytest.raises(
        UsageError, match=rf"shards/md does not hold what this run was trained on: {change}.*--out"
    ):
        check_same_data(BEGUN, now, "shards/md")


def test_the_same_images_are_taken_and_those_in_other_bytes_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    check_same_data(BEGUN, dict(BEGUN), "shards/md")
    check_same_data({}, BEGUN, "shards/md")  # an older checkpoint, which does not say
    assert not caplog.records
    check_same_data(BEGUN, {**BEGUN, "birds": replace(BIRDS, index="i2")}, "shards/md")
    (record,) = caplog.records
    assert "birds in shards/md has other bytes than this run began with" in record.getMessage()
