"""The published figures, for reports to set beside ours.

Table 1 (ORBIT) and Table 2 (VTAB+MD) of "Memory Efficient Meta-Learning with Large Images", and the list
that ORBIT's repository keeps of its protocol since 2022. Values are in per cent, as printed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from learners.evaluate.records import AdaptationCost


@dataclass(frozen=True, slots=True)
class PublishedSource:
    """The paper or page where figures were published, and the place in it."""

    paper: str
    place: str
    url: str

    def __str__(self) -> str:
        return f"{self.paper}, {self.place}, {self.url}"


class PublishedValue(NamedTuple):
    """A figure in per cent, and half of its 95 % interval where one was printed."""

    value: float
    interval: float | None = None


IMAGENET_1K: Final = "ImageNet-1k"


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishedRow:
    """One published row: a learner and its figures."""

    learner: str
    backbone: str
    image_size: int
    source: PublishedSource
    figures: Mapping[str, PublishedValue]
    """By the key of a report's column: "cle-ve frame_accuracy", "mean md", "mean natural" ..."""
    pretraining: str = IMAGENET_1K
    """What the backbone's first weights were trained on."""
    h: int | None = None
    """Support images with gradient; None for all of them, or where the method has no such choice."""
    cost: AdaptationCost | None = None
    remark: str = ""
    """What its training needed besides."""

    @property
    def name(self) -> str:
        """The name of the row."""
        h = f", |H| = {self.h}" if self.h is not None else ""
        seen = f" pretrained on {self.pretraining}" if self.pretraining != IMAGENET_1K else ""
        return f"{self.learner}, {self.backbone}{seen}, {self.image_size} px{h}{self.remark}"


LITE_PAPER: Final = "Bronskill et al., Memory Efficient Meta-Learning with Large Images, NeurIPS 2021"
LITE_TABLE_1: Final = PublishedSource(LITE_PAPER, "Table 1", "arXiv:2107.01105")
LITE_TABLE_2: Final = PublishedSource(LITE_PAPER, "Table 2", "arXiv:2107.01105")
ORBIT_README: Final = PublishedSource(
    "ORBIT benchmark, protocol of December 2022", "README", "github.com/microsoft/ORBIT-Dataset"
)
ORBIT_KEYS: Final = (
    "cle-ve frame_accuracy", "cle-ve video_accuracy", "clu-ve frame_accuracy", "clu-ve video_accuracy",
)  # fmt: skip
SUMMARY_KEYS: Final = ("mean md", "mean all", "mean natural", "mean specialised", "mean structured")
PUBLISHED_BACKBONES: Final = {"RN18": "ResNet-18", "EN-B0": "EfficientNet-B0"}
PUBLISHED_PRETRAINING: Final = {
    "EfficientNet-v2-S": "ImageNet-21k",
    "ViT-B-32": "ImageNet-21k",
    "ViT-B-32-CLIP": "LAION-2B, image and text",
}
"""By the names of ORBIT's list, from its code; all others are of ImageNet-1k."""
CHECKPOINTED_H: Final = "100"
ORBIT_PRETRAINED: Final = ("FineTuner", "84")
"""The learner and image size of Table 1 whose backbone was pretrained on ORBIT's own training users, by its code."""

_ORBIT_2021_TEXT: Final = """
FineTuner           84  RN18  69.5 2.2 79.7 2.6 53.7 1.8 63.1 2.4 317.70 50FB  53.94 11.17
FineTuner           224 RN18  72.2 2.2 81.9 2.6 56.7 2.0 61.3 2.5 546.57 50FB  96.23 11.18
FineTuner           224 EN-B0 78.1 2.0 85.9 2.3 63.1 1.8 66.9 2.4 121.02 50FB 139.99  4.01
MAML                84  RN18  70.6 2.1 80.9 2.6 51.7 1.9 57.9 2.5  95.31 15FB  36.98 11.17
MAML                224 RN18  75.7 1.9 86.1 2.3 59.3 1.9 64.3 2.4 163.97 15FB  65.22 11.18
MAML                224 EN-B0 79.3 1.9 87.5 2.2 64.6 1.9 69.4 2.3  36.31 15FB 117.89  4.01
ProtoNets           84  RN18  65.2 2.0 81.9 2.5 50.3 1.7 59.9 2.5   3.18 1F     0.73 11.17
ProtoNets+LITE      224 RN18  76.7 1.9 86.4 2.2 61.4 1.8 68.5 2.4   5.47 1F     1.07 11.18
ProtoNets+LITE      224 EN-B0 82.1 1.7 91.2 1.9 66.3 1.8 72.9 2.3   1.21 1F     1.72  4.01
CNAPs               84  RN18  66.2 2.1 79.6 2.6 51.5 1.8 59.5 2.5   3.48 1F     0.98 12.75
CNAPs+LITE          224 RN18  76.0 1.9 84.9 2.3 58.2 1.9 62.5 2.5   7.64 1F     2.11 12.76
CNAPs+LITE          224 EN-B0 79.6 1.9 87.6 2.2 63.3 1.9 69.2 2.3   3.38 1F     2.85 10.59
Simple_CNAPs        84  RN18  70.3 2.1 83.0 2.5 53.9 1.8 62.0 2.5   3.48 1F     1.01 11.97
Simple_CNAPs+LITE   224 RN18  76.5 2.0 86.4 2.2 57.5 1.9 64.6 2.4   7.64 1F     2.14 11.97
Simple_CNAPs+LITE   224 EN-B0 82.7 1.7 91.8 1.8 65.6 1.9 71.9 2.3   3.39 1F     2.92  5.67
"""  # learner, pixels, backbone, four values with intervals, 10^12 MACs, steps, seconds, 10^6 parameters

_H_STUDY_TEXT: Final = """
Simple_CNAPs+LITE   224 1   72.8 51.2 64.5 71.8 31.0
Simple_CNAPs+LITE   224 10  73.7 51.0 65.3 71.4 30.0
Simple_CNAPs+LITE   224 20  73.3 50.5 64.1 70.5 30.3
Simple_CNAPs+LITE   224 30  73.8 51.1 65.8 71.3 29.9
Simple_CNAPs+LITE   224 40  73.9 51.4 65.2 71.9 30.8
Simple_CNAPs+LITE   224 100 74.3 51.2 66.0 71.6 29.9
ProtoNets+LITE      224 0   71.0 45.1 58.5 63.5 26.0
ProtoNets+LITE      224 10  72.0 45.8 60.0 63.9 26.2
ProtoNets+LITE      224 20  72.0 46.2 60.6 64.2 26.4
ProtoNets+LITE      224 30  72.5 46.2 60.8 64.5 26.1
ProtoNets+LITE      224 40  72.7 46.1 60.9 64.2 25.9
Simple_CNAPs+LITE   84  40  63.6 42.7 47.7 61.0 29.9
Simple_CNAPs        84  all 68.4 44.7 49.5 63.8 31.7
"""  # learner, pixels, |H|, MD-v2, VTAB: all, natural, specialised, structured

_ORBIT_2022_TEXT: Final = """
CNAPs+LITE          EfficientNet-B0   67.68 0.58
CNAPs+LITE          ViT-B-32-CLIP     72.33 0.54
Simple_CNAPs+LITE   EfficientNet-B0   66.83 0.60
Simple_CNAPs+LITE   ViT-B-32-CLIP     68.86 0.56
ProtoNets+LITE      EfficientNet-B0   67.91 0.56
ProtoNets+LITE      EfficientNet-v2-S 72.76 0.53
ProtoNets+LITE      ViT-B-32          73.53 0.51
ProtoNets+LITE      ViT-B-32-CLIP     73.95 0.52
ProtoNets_(cosine)+LITE EfficientNet-B0   67.48 0.57
ProtoNets_(cosine)+LITE EfficientNet-v2-S 73.10 0.54
ProtoNets_(cosine)+LITE ViT-B-32          75.38 0.51
ProtoNets_(cosine)+LITE ViT-B-32-CLIP     73.54 0.52
FineTuner           EfficientNet-B0   64.57 0.56
FineTuner           ViT-B-32-CLIP     71.31 0.55
FineTuner+FiLM      EfficientNet-B0   66.63 0.58
FineTuner+FiLM      ViT-B-32-CLIP     71.86 0.55
"""  # learner, backbone, frame accuracy of cluttered videos with its interval


def _learner_name(word: str) -> str:
    return word.replace("_", " ").replace("+", " + ")


def _orbit_2021_row(line: str) -> PublishedRow:
    learner, size, backbone, *rest = line.split()
    values = [float(text) for text in rest[:8]]
    macs, steps, seconds, parameters = rest[8:]
    return PublishedRow(
        learner=_learner_name(learner),
        backbone=PUBLISHED_BACKBONES[backbone],
        image_size=int(size),
        pretraining="ORBIT's training users" if (learner, size) == ORBIT_PRETRAINED else IMAGENET_1K,
        source=LITE_TABLE_1,
        figures=dict(zip(ORBIT_KEYS, map(PublishedValue, values[::2], values[1::2]), strict=True)),
        cost=AdaptationCost(
            parameters=round(1e6 * float(parameters)), macs=1e12 * float(macs),
            steps=steps, seconds=float(seconds),
        ),
    )  # fmt: skip


def _vtab_md_row(line: str) -> PublishedRow:
    learner, size, h, *values = line.split()
    return PublishedRow(
        learner=_learner_name(learner),
        backbone=PUBLISHED_BACKBONES["EN-B0"],  # the table does not say it; the code does
        image_size=int(size),
        source=LITE_TABLE_2,
        figures={key: PublishedValue(float(v)) for key, v in zip(SUMMARY_KEYS, values, strict=True)},
        h=None if h == "all" else int(h),
        remark=" with activation checkpointing" if h == CHECKPOINTED_H else "",
    )


def _orbit_2022_row(line: str) -> PublishedRow:
    learner, backbone, value, interval = line.split()
    return PublishedRow(
        learner=_learner_name(learner),
        backbone=backbone,
        image_size=224,
        pretraining=PUBLISHED_PRETRAINING.get(backbone, IMAGENET_1K),
        source=ORBIT_README,
        figures={ORBIT_KEYS[2]: PublishedValue(float(value), float(interval))},
    )


def _lines(text: str) -> Sequence[str]:
    return text.strip().splitlines()


ORBIT_2021: Final = tuple(map(_orbit_2021_row, _lines(_ORBIT_2021_TEXT)))
"""Table 1: 85 test tasks; MACs are means over the clean and the clutter tasks."""
H_STUDY: Final = tuple(map(_vtab_md_row, _lines(_H_STUDY_TEXT)))
"""Table 2: accuracy by |H|."""
VTAB_MD: Final = tuple(
    row
    for row in H_STUDY
    if (row.h == 40 if row.image_size == 224 else row.h is None)  # noqa: PLR2004
)
"""The paper's three main learners: |H| = 40 at 224 pixels, the full gradient at 84."""
ORBIT_2022: Final = tuple(map(_orbit_2022_row, _lines(_ORBIT_2022_TEXT)))
"""Not comparable to Table 1: other tasks, frames and filters."""
ORBIT_ROWS: Final[Mapping[str, Sequence[PublishedRow]]] = {"2021": ORBIT_2021, "2022": ORBIT_2022}
