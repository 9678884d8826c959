"""The papers' figures are typed without a slip, as far as they can be checked against each other."""

from __future__ import annotations

import math

import pytest

from learners.report.published import H_STUDY, ORBIT_2021, ORBIT_2022, ORBIT_KEYS, VTAB_MD, PublishedRow
from pipeline.samplers.vtab import VTAB_GROUPS

PARAMETERS = {  # in millions, by parts: backbone, set encoder, FiLM generator, head networks
    ("ResNet-18", 84): (11.171904, 0.150144, 0.644096, 0.788485),
    ("ResNet-18", 224): (11.176512, 0.150144, 0.644096, 0.788485),
    ("EfficientNet-B0", 224): (4.007548, 0.150144, 1.510272, 4.920325),
}
PARTS = {"FineTuner": 1, "MAML": 1, "ProtoNets": 1, "Simple CNAPs": 3, "CNAPs": 4}
FORWARD = {("ResNet-18", 84): 1.04503e9, ("ResNet-18", 224): 1.79787e9}
ENCODER = {84: 0.09989e9, 224: 0.71369e9}
FRAMES = 3040  # of a support set, on average over both modes
PASSES = {"1F": 1, "15FB": 30, "50FB": 100}


def plain(row: PublishedRow) -> str:
    return row.learner.removesuffix(" + LITE")


@pytest.mark.parametrize("row", H_STUDY, ids=lambda row: row.name)
def test_the_average_over_vtab_is_that_of_its_groups(row: PublishedRow) -> None:
    of = {name: row.figures[f"mean {name}"].value for name in (*VTAB_GROUPS, "all")}
    tasks = sum(map(len, VTAB_GROUPS.values()))
    assert tasks == 18
    mean = sum(len(names) * of[name] for name, names in VTAB_GROUPS.items()) / tasks
    assert of["all"] == pytest.approx(mean, abs=0.11)  # four rounded figures


def test_table_1_has_every_learner_on_every_backbone_once() -> None:
    rows = [(plain(row), row.backbone, row.image_size) for row in ORBIT_2021]
    assert sorted(rows) == sorted((name, *place) for name in PARTS for place in PARAMETERS)


@pytest.mark.parametrize("row", ORBIT_2021, ids=lambda row: row.name)
def test_parameters_are_the_sum_of_the_parts(row: PublishedRow) -> None:
    parts = PARAMETERS[row.backbone, row.image_size][: PARTS[plain(row)]]
    assert row.cost is not None
    assert row.cost.parameters / 1e6 == pytest.approx(sum(parts), abs=0.0051)


@pytest.mark.parametrize(
    "row", [r for r in ORBIT_2021 if r.backbone == "ResNet-18"], ids=lambda row: row.name
)
def test_multiply_accumulates_are_frames_times_passes(row: PublishedRow) -> None:
    assert row.cost is not None
    assert row.cost.macs is not None
    each = FORWARD[row.backbone, row.image_size]
    each += ENCODER[row.image_size] if "CNAPs" in row.learner else 0
    expected = FRAMES * each * PASSES[row.cost.steps]
    assert row.cost.macs == pytest.approx(expected, rel=1e-3, abs=0.006e12)


@pytest.mark.parametrize("row", ORBIT_2021, ids=lambda row: row.name)
def test_intervals_over_videos_are_those_of_so_many_videos(row: PublishedRow) -> None:
    for key, videos in zip(ORBIT_KEYS, (905, 905, 1500, 1500), strict=True):
        value, interval = row.figures[key]
        share, most = value / 100, 1.96 * 50 / math.sqrt(videos)
        assert interval is not None
        assert interval <= most + 0.05
        if "video" in key:  # right or wrong: the mean tells the spread
            spread = 196 * math.sqrt(share * (1 - share) / videos)
            assert interval == pytest.approx(spread, abs=0.1)  # one is printed 2.6 and comes to 2.51


def test_lite_is_named_where_images_are_large_and_the_support_set_is_learnt_from() -> None:
    for row in ORBIT_2021:
        meta_learnt = plain(row) in ("ProtoNets", "CNAPs", "Simple CNAPs")
        assert ("LITE" in row.learner) == (meta_learnt and row.image_size == 224)


def test_the_main_rows_are_those_of_forty_images_and_the_full_gradient() -> None:
    assert [(row.name, row.figures["mean md"].value) for row in VTAB_MD] == [
        ("Simple CNAPs + LITE, EfficientNet-B0, 224 px, |H| = 40", 73.9),
        ("ProtoNets + LITE, EfficientNet-B0, 224 px, |H| = 40", 72.7),
        ("Simple CNAPs, EfficientNet-B0, 84 px", 68.4),
    ]


def test_every_row_has_a_name_of_its_own_and_says_where_it_is_from() -> None:
    for rows in (ORBIT_2021, H_STUDY, ORBIT_2022):
        assert len({row.name for row in rows}) == len(rows)
        assert all(str(row.source).endswith(row.source.url) for row in rows)
    assert {row.source.url for row in ORBIT_2021 + H_STUDY} == {"arXiv:2107.01105"}
