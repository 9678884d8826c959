"""Evaluations of the four protocols, made by hand with realistic figures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from learners.evaluate.records import AdaptationCost, AverageScore, DatasetScore, EvaluationResult
from pipeline.samplers.vtab import VTAB_GROUPS

MD: Final = ("aircraft", "cu_birds", "dtd", "fungi", "mscoco", "omniglot", "quickdraw", "traffic_sign")
STRONG: Final = (0.843, 0.788, 0.711, 0.502, 0.561, 0.921, 0.773, 0.744)
WEAK: Final = (0.811, 0.782, 0.698, 0.455, 0.559, 0.885, 0.771, 0.741)
COST: Final = AdaptationCost(parameters=5_667_964, macs=0.215e12, steps="1F", seconds=0.412)
CHEAP: Final = AdaptationCost(parameters=4_007_548, macs=0.152e12, steps="1F", seconds=0.287)
LEARNER: Final[Mapping[str, Any]] = {
    "learner": "simple_cnaps", "backbone": "efficientnet_b0", "image_size": 224, "tasks": 10_000,
    "h": 40, "sampler": "neyman",
    "options": {"encoder_norm": "batch", "encoder_size": 0, "one_shot": "official"},  # the papers'
}  # fmt: skip
VTAB_SHARES: Final = {
    name: 0.25 + 0.6 * ((7 * i) % 18) / 17
    for i, name in enumerate(name for names in VTAB_GROUPS.values() for name in names)
}


def make(
    name: str,
    protocol: str,
    scores: Sequence[DatasetScore],
    averages: Sequence[AverageScore] = (),
    **more: Any,
) -> EvaluationResult:
    values = {"options": {}, "learner": LEARNER, "cost": COST, "shards": f"shards/{protocol}", **more}
    return EvaluationResult(
        name=name, protocol=protocol, scores=tuple(scores), averages=tuple(averages), **values
    )


def md(
    name: str = "Simple CNAPs", shares: Sequence[float] = STRONG, count: int = 600, **more: Any
) -> EvaluationResult:
    """Meta-Dataset; fewer shares than datasets leave the last ones out."""
    scores = [
        DatasetScore(dataset=d, metric="accuracy", value=v, interval=0.009, count=count, chance=0.06)
        for d, v in zip(MD, shares, strict=False)
    ]
    present = len(scores)
    average = AverageScore(
        name="all", metric="accuracy", value=sum(s.value for s in scores) / present, found=present,
        wanted=len(MD), missing=MD[present:],
    )  # fmt: skip
    return make(name, "md", scores, [average], **more)


def vtab(
    name: str = "Simple CNAPs", splits: str = "lite", add: float = 0.0, **options: Any
) -> EvaluationResult:
    """All eighteen tasks."""
    scores = [
        DatasetScore(dataset=task, metric="accuracy", value=VTAB_SHARES[task] + add, interval=None, count=1,
              chance=0.1, group=group)
        for group, tasks in VTAB_GROUPS.items() for task in tasks
    ]  # fmt: skip
    of = {**VTAB_GROUPS, "all": tuple(VTAB_SHARES)}
    averages = [
        AverageScore(name=group, metric="accuracy", found=len(tasks), wanted=len(tasks),
                value=sum(VTAB_SHARES[task] + add for task in tasks) / len(tasks))
        for group, tasks in of.items()
    ]  # fmt: skip
    return make(name, "vtab", scores, averages, options={"splits": splits, **options})


ORBIT_ENCODERS: Final = {
    "2021": {**LEARNER["options"], "encoder_pixels": "imagenet"},
    "2022": {**LEARNER["options"], "encoder_norm": "stored", "encoder_pixels": "backbone"},
}
ORBIT_VALUES: Final = {
    "cle-ve frame_accuracy": (0.824, 0.017), "cle-ve video_accuracy": (0.915, 0.018),
    "cle-ve frames_to_recognition": (0.061, 0.012), "clu-ve frame_accuracy": (0.671, 0.018),
    "clu-ve video_accuracy": (0.735, 0.022), "clu-ve frames_to_recognition": (0.182, 0.017),
}  # fmt: skip


def orbit(
    name: str = "ProtoNets",
    year: str = "2021",
    values: Mapping[str, tuple[float, float]] = ORBIT_VALUES,
    **more: Any,
) -> EvaluationResult:
    """Per video and per user."""
    scores = [
        DatasetScore(dataset="orbit", metric=prefix + key.split()[1], value=value, interval=half * wider,
              count=count, group=key.split()[0])
        for prefix, wider, count in (("", 1, 905), ("user_", 3, 17))
        for key, (value, half) in values.items()
    ]  # fmt: skip
    cost = AdaptationCost(parameters=4_007_548, macs=1.21e12, steps="1F", seconds=1.9)
    options = {"orbit": year, "mode": ["cle-ve", "clu-ve"], "tasks_per_user": None}
    learner = {**LEARNER, "options": ORBIT_ENCODERS[year]}
    return make(name, "orbit", scores, **{"cost": cost, "options": options, "learner": learner, **more})


def fixed(
    name: str = "conv4",
    shares: Mapping[str, float] | None = None,
    *,
    way: int = 5,
    shot: int = 1,
    within: bool = False,
) -> EvaluationResult:
    """n-way k-shot."""
    shares = {"omniglot": 0.978, "mnist": 0.716} if shares is None else shares
    scores = [
        DatasetScore(dataset=d, metric="accuracy", value=v, interval=0.004, count=600, chance=1 / way)
        for d, v in shares.items()
    ]
    mean = sum(shares.values()) / len(shares)
    n = len(shares)
    averages = [AverageScore(name="all", metric="accuracy", value=mean, found=n, wanted=n)]
    learner = {"learner": "protonets", "backbone": "conv4", "image_size": 28, "tasks": 4_000}
    cost = AdaptationCost(parameters=111_936, macs=4.1e7, steps="1F", seconds=0.0051)
    return make(
        name, "fixed", scores, averages if n > 1 else (), learner=learner, cost=cost,
        options={"way": way, "shot": shot, "query": 10, "within": within, "split": "test"},
    )  # fmt: skip


LACKING: Final = "3 of 8 datasets are not in the shards: omniglot, quickdraw, traffic_sign"


def everything() -> list[EvaluationResult]:
    """A rich report: all protocols, several learners, an incomplete and a narrowed evaluation."""
    cnaps = {**LEARNER, "learner": "protonets", "h": 10}
    return [
        md(),
        md("ProtoNets", WEAK, learner=cnaps, cost=CHEAP),
        md("quick look", STRONG[:5], count=50, notes=(LACKING, "trained at 84 px")),
        vtab(), vtab("ProtoNets", add=-0.013), vtab("ProtoNets, 500 queries", add=0.02, query_limit=500),
        vtab("Simple CNAPs", "vtab", 0.011),
        orbit(),
        orbit("FineTuner", values={k: (v - 0.04, h) for k, (v, h) in ORBIT_VALUES.items()},
              cost=AdaptationCost(parameters=4_007_548, macs=121e12, steps="50FB", seconds=130.0)),
        orbit("ProtoNets", "2022", {"clu-ve frame_accuracy": (0.6841, 0.0055)}),
        fixed(), fixed("conv4, rotated", {"omniglot": 0.9765, "mnist": 0.731}),
        fixed(within=True), fixed(way=20),
    ]  # fmt: skip
