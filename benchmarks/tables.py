"""The runs of benchmarks/build.py as Markdown tables."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

PEERS: Final = {"litdata": "litdata", "mosaicml": "streaming", "webdataset": "webdataset"}
"""The module that each peer is imported as."""


@dataclass(frozen=True)
class Contender:
    """One row."""

    name: str
    """As benchmarks/contenders.py knows it."""
    workers: int = 1
    plain: bool = False
    """With Pillow as the index has it instead of the installed one."""

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
class Case:
    """What is built: which pictures, and how those of 84 pixels are stored."""

    pictures: str
    small: str


@dataclass(frozen=True)
class Cost:
    """What one run took, its imports aside."""

    images: int
    cpu: float
    wall: float
    megabytes: float
    """Of its largest process, at its largest."""


@dataclass(frozen=True)
class Result:
    """One run, start-up subtracted."""

    case: Case
    contender: Contender
    images_per_cpu_second: float
    images_per_second: float
    megabytes: float
    start_cpu: float


def tables(results: Sequence[Result]) -> Iterator[str]:
    """Markdown."""
    for case in dict.fromkeys(result.case for result in results):
        yield f"\n### {case.pictures}, 84 px as {case.small}, 224 px as jpeg:95\n"
        yield "| | workers | images per CPU second | images per second | peak MB | to start, CPU s |"
        yield "|---|---|---|---|---|---|"
        runs = by_contender(results, case)
        for contender, own in sorted(runs.items(), key=lambda entry: -median(entry[1])):
            walls, peak = [run.images_per_second for run in own], max(r.megabytes for r in own)
            starts = statistics.median(run.start_cpu for run in own)
            yield (
                f"| {contender} | {contender.workers} | {spread(rates(own), '.0f')} "
                f"| {statistics.median(walls):.0f} | {peak:.0f} | {starts:.1f} |"
            )
        yield ""
        yield from _ratios(runs)


Runs = dict[Contender, list[Result]]


def by_contender(results: Sequence[Result], case: Case) -> Runs:
    """The runs of one case, round by round."""
    runs: Runs = {}
    for result in results:
        if result.case == case:
            runs.setdefault(result.contender, []).append(result)
    return runs


def _ratios(runs: Runs) -> Iterator[str]:
    """What the targets are about, each from the two runs of the same round."""
    two = Contender("builder", 2)
    pairs = [
        ("of the ceiling, 1 worker", Contender("builder"), Contender("bare")),
        ("of the ceiling, 2 workers", two, Contender("bare", 2)),
        ("of the ceiling that reads back", Contender("builder"), Contender("bare+check")),
        ("times itself with plain Pillow", Contender("builder"), Contender("builder", plain=True)),
    ]
    for plain, fed in ((True, "as installed by its users"), (False, "given our Pillow")):
        if found := [c for c in runs if c.name in PEERS and c.plain == plain]:
            best = max(found, key=lambda peer: median(runs[peer]))
            pairs.append((f"times the best peer {fed} ({best.name})", Contender("builder"), best))
    for title, ours, theirs in pairs:
        both = zip(rates(runs[ours]), rates(runs[theirs]), strict=True)
        yield f"- {spread([mine / other for mine, other in both], '.2f')} {title}"
    walls = zip(runs[two], runs[Contender("builder")], strict=True)
    scaling = [a.images_per_second / b.images_per_second for a, b in walls]
    yield f"- {spread(scaling, '.2f')} times as fast with 2 workers as with 1"


def rates(runs: Sequence[Result]) -> list[float]:
    return [run.images_per_cpu_second for run in runs]


def median(runs: Sequence[Result]) -> float:
    return statistics.median(rates(runs))


def spread(values: Sequence[float], form: str) -> str:
    """Median, least and most."""
    middle, least, most = statistics.median(values), min(values), max(values)
    return f"{middle:{form}} ({least:{form}}-{most:{form}})"
