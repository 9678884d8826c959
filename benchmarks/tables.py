"""The results of benchmarks/build.py as Markdown tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

BUILD_PEERS: Final = {"litdata": "litdata", "mosaicml": "streaming", "webdataset": "webdataset"}
"""The module that each peer is imported as."""


@dataclass(frozen=True)
class BuildContender:
    """One row: a program that builds shards, and how it runs."""

    name: str
    """Its name in benchmarks/contenders.py."""
    workers: int = 1
    plain: bool = False
    """With Pillow's own wheel instead of the installed Pillow."""

    def __str__(self) -> str:
        title = {
            "builder": "**builder**",
            "bare": "ceiling",
            "bare+check": "ceiling that reads its JPEGs back",
            "litdata": "litdata `optimize`",
            "mosaicml": "MosaicML `MDSWriter`",
            "webdataset": "webdataset `ShardWriter`",
        }[self.name]
        return title + (", plain Pillow" if self.plain else "")


@dataclass(frozen=True)
class BuildCase:
    """The dataset that is built, and how its images of 84 pixels are stored."""

    pictures: str
    small: str


@dataclass(frozen=True)
class BuildCost:
    """The cost of one run, without imports."""

    images: int
    cpu: float
    wall: float
    megabytes: float
    """The peak memory of its largest process."""


@dataclass(frozen=True)
class BuildResult:
    """The result of one run, with start-up subtracted."""

    case: BuildCase
    contender: BuildContender
    images_per_cpu_second: float
    images_per_second: float
    megabytes: float
    start_cpu: float


def build_tables(results: Sequence[BuildResult]) -> Iterator[str]:
    """The lines of all tables, as Markdown."""
    for case in dict.fromkeys(result.case for result in results):
        yield f"\n### {case.pictures}, 84 px as {case.small}, 224 px as jpeg:95\n"
        yield "| | workers | images per CPU second | images per second | peak MB | to start, CPU s |"
        yield "|---|---|---|---|---|---|"
        runs = by_contender(results, case)
        for contender, own in sorted(runs.items(), key=lambda entry: -median_cpu_rate(entry[1])):
            walls, peak = [run.images_per_second for run in own], max(r.megabytes for r in own)
            starts = statistics.median(run.start_cpu for run in own)
            yield (
                f"| {contender} | {contender.workers} | {format_spread(cpu_rates(own), '.0f')} "
                f"| {statistics.median(walls):.0f} | {peak:.0f} | {starts:.1f} |"
            )
        yield ""
        yield from _ratios(runs)


ContenderRuns = dict[BuildContender, list[BuildResult]]


def by_contender(results: Sequence[BuildResult], case: BuildCase) -> ContenderRuns:
    """The runs of one case by contender, round by round."""
    runs: ContenderRuns = {}
    for result in results:
        if result.case == case:
            runs.setdefault(result.contender, []).append(result)
    return runs


def _ratios(runs: ContenderRuns) -> Iterator[str]:
    """The ratios that the targets are about, each from two runs of the same round."""
    builder, two = BuildContender("builder"), BuildContender("builder", 2)
    pairs = [
        ("of the ceiling, 1 worker", builder, BuildContender("bare")),
        ("of the ceiling, 2 workers", two, BuildContender("bare", 2)),
        ("of the ceiling that reads back", builder, BuildContender("bare+check")),
        ("times itself with plain Pillow", builder, BuildContender("builder", plain=True)),
    ]
    for plain, fed in ((True, "as installed by its users"), (False, "given our Pillow")):
        if peers := [c for c in runs if c.name in BUILD_PEERS and c.plain == plain]:
            best = max(peers, key=lambda peer: median_cpu_rate(runs[peer]))
            pairs.append((f"times the best peer {fed} ({best.name})", builder, best))
    for title, ours, theirs in pairs:
        both = zip(cpu_rates(runs[ours]), cpu_rates(runs[theirs]), strict=True)
        yield f"- {format_spread([mine / other for mine, other in both], '.2f')} {title}"
    walls = zip(runs[two], runs[builder], strict=True)
    scaling = [a.images_per_second / b.images_per_second for a, b in walls]
    yield f"- {format_spread(scaling, '.2f')} times as fast with 2 workers as with 1"


def cpu_rates(runs: Sequence[BuildResult]) -> list[float]:
    return [run.images_per_cpu_second for run in runs]


def median_cpu_rate(runs: Sequence[BuildResult]) -> float:
    return statistics.median(cpu_rates(runs))


def format_spread(values: Sequence[float], form: str) -> str:
    """The median, the minimum and the maximum."""
    middle, least, most = statistics.median(values), min(values), max(values)
    return f"{middle:{form}} ({least:{form}}-{most:{form}})"
