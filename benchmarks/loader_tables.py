"""The runs of benchmarks/loader.py as Markdown tables."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from benchmarks.tables import spread

Kind = Literal["ceiling", "ours", "episodes", "plain"]


@dataclass(frozen=True)
class Contender:
    """One row."""

    name: str
    """As benchmarks/loader_contenders.py knows it."""
    title: str
    kind: Kind
    copy: str = ""
    """Which copy of the pictures it reads; "" for none while it is timed."""
    module: str = ""
    """What must be installed for it."""
    always: bool = False
    """Takes part at every size of episode."""
    cold: bool = False
    """Takes part with its files evicted."""

    def files(self, root: Path, size: int) -> Path:
        """What it reads at one size of pictures."""
        if self.copy in ("jpeg", "raw"):
            return root / self.copy / "photographs" / str(size)
        return root / f"{self.copy or 'nothing'}-{size}"


MANY: Final = 10  # rounds from which on an interval by bootstrap says more than least and most
RESAMPLED: Final = 4000  # times

CEILING: Final = Contender("ceiling", "ceiling", "ceiling", always=True)
TURBO: Final = Contender("turbo", "**turbo**", "ours", "jpeg", always=True, cold=True)
FAST: Final = Contender("turbo-fast", "**turbo**, `fast`", "ours", "jpeg")
TURBO_MAPPED: Final = Contender("turbo-mapped", "**turbo**, mapped", "ours", "jpeg")
FAST_MAPPED: Final = Contender("turbo-fast-mapped", "**turbo**, `fast`, mapped", "ours", "jpeg")
UNCOMPILED: Final = Contender("turbo-uncompiled", "**turbo**, not compiled", "ours", "jpeg")
RAW_MAPPED: Final = Contender("raw-mapped", "**raw**, mapped", "ours", "raw")
RAW: Final = Contender("raw", "**raw**", "ours", "raw", always=True, cold=True)
FFCV: Final = Contender(
    "ffcv", "FFCV, re-encoded, fast flags", "episodes", "ffcv", "ffcv", cold=True
)
FFCV_RAW: Final = Contender("ffcv-raw", "FFCV, raw", "episodes", "ffcv_raw", "ffcv")
DALI: Final = "nvidia.dali"
CONTENDERS: Final = (
    CEILING,
    Contender("ceiling-fast", "ceiling, fast flags", "ceiling"),
    Contender("ceiling-raw", "ceiling of raw: memcpy", "ceiling"),
    TURBO,
    FAST,
    TURBO_MAPPED,
    FAST_MAPPED,
    UNCOMPILED,
    Contender("dali", "**dali**", "ours", "jpeg", DALI, always=True, cold=True),
    RAW,
    RAW_MAPPED,
    Contender("dali-files", "DALI, episodes of files", "episodes", "image_folder", DALI, cold=True),
    Contender("litdata", "litdata, by number", "episodes", "litdata", "litdata", cold=True),
    Contender("mosaicml", "MosaicML, by number", "episodes", "mosaicml", "streaming"),
    Contender("image-folder", "ImageFolder, PIL", "episodes", "image_folder", cold=True),
    FFCV,
    FFCV_RAW,
    Contender("dali-reader", "DALI's reader, no episodes", "plain", "jpeg", DALI),
    Contender("webdataset", "webdataset, no episodes", "plain", "jpeg", "webdataset"),
)


@dataclass(frozen=True)
class Setting:
    """What is read: pictures of so many pixels, episodes of so many support images."""

    size: int
    support: int

    def __str__(self) -> str:
        return f"{self.size} px, {self.support} support images"


@dataclass(frozen=True)
class Start:
    """The first episodes of a fresh process, from when all is imported."""

    contender: Contender
    setting: Setting
    cold: bool
    first: float
    """Seconds to the first episode."""
    images_per_second: float
    megabytes: float
    difference: int | None
    """From Pillow's pixels at most, in grey levels."""


@dataclass(frozen=True)
class Turn:
    """One turn of a contender."""

    contender: Contender
    setting: Setting
    images_per_cpu_second: float
    images_per_second: float
    megabytes: float


def tables(results: Sequence[Start | Turn]) -> Iterator[str]:
    """Markdown."""
    turns = [result for result in results if isinstance(result, Turn)]
    starts = [result for result in results if isinstance(result, Start)]
    for setting in dict.fromkeys(turn.setting for turn in turns):
        warm = {s.contender: s for s in starts if s.setting == setting and not s.cold}
        yield f"\n### {setting}\n"
        yield from _rates([turn for turn in turns if turn.setting == setting], warm)
    if cold := [start for start in starts if start.cold]:
        yield f"\n### Cold: {cold[0].setting}\n"
        yield from _cold(cold, [start for start in starts if not start.cold])


Runs = dict[Contender, list[Turn]]


def _rates(turns: Sequence[Turn], starts: dict[Contender, Start]) -> Iterator[str]:
    runs: Runs = {}
    for turn in turns:
        runs.setdefault(turn.contender, []).append(turn)
    yield (
        "| | images per CPU second | of the ceiling | images per second | first episode, s "
        "| memory MB | pixels |"
    )
    yield "|---|---|---|---|---|---|---|"
    for contender, own in sorted(runs.items(), key=lambda entry: -_median(entry[1])):
        share = spread(_ratios(runs, contender, CEILING), ".2f") if CEILING in runs else ""
        wall = statistics.median(turn.images_per_second for turn in own)
        start = starts[contender]
        memory = f"{max(start.megabytes, *(turn.megabytes for turn in own)):,.0f}"
        yield (
            f"| {contender.title} | {spread([t.images_per_cpu_second for t in own], ',.0f')} | {share} "
            f"| {wall:,.0f} | {start.first:.2f} | {memory if contender.copy else ''} "
            f"| {_pixels(start)} |"
        )
    yield ""
    yield from _verdicts(runs, starts)


def _verdicts(runs: Runs, starts: dict[Contender, Start]) -> Iterator[str]:
    """What the targets are about, each from the two turns of the same round."""
    exact = [
        c for c in runs if c.kind == "episodes" and starts[c].difference == 0 and c != FFCV_RAW
    ]
    pairs = [
        (f"{title}, of the ceiling", mine, CEILING)
        for title, mine in (
            ("turbo", TURBO),
            ("turbo mapped", TURBO_MAPPED),
            ("turbo not compiled", UNCOMPILED),
            ("turbo with `fast`", FAST),
            ("raw", RAW),
            ("raw mapped", RAW_MAPPED),
        )
    ]
    pairs += [
        (f"turbo, times {rival.title}", TURBO, rival)
        for rival in sorted(exact, key=lambda rival: -_median(runs[rival]))[:2]
    ]
    pairs += [
        ("turbo with `fast`, times FFCV", FAST, FFCV),
        ("turbo with `fast`, mapped, times FFCV", FAST_MAPPED, FFCV),
        ("raw, times FFCV raw", RAW, FFCV_RAW),
        ("raw mapped, times FFCV raw", RAW_MAPPED, FFCV_RAW),
        ("turbo, times not compiled", TURBO, UNCOMPILED),
        ("turbo mapped, times read", TURBO_MAPPED, TURBO),
        ("raw mapped, times read", RAW_MAPPED, RAW),
    ]
    for title, mine, other in pairs:
        if mine in runs and other in runs:
            ratios = _ratios(runs, mine, other)
            yield f"- {spread(ratios, '.2f') if len(ratios) < MANY else interval(ratios)} {title}"


def interval(values: Sequence[float]) -> str:
    """
    >>> interval([1.0] * 20)
    '1.00 (1.00-1.00, 95 %)'
    """
    draw = random.Random(0)
    medians = sorted(
        statistics.median(draw.choices(values, k=len(values))) for _ in range(RESAMPLED)
    )
    ends = [medians[int(RESAMPLED * share)] for share in (0.025, 0.975)]
    return f"{statistics.median(values):.2f} ({ends[0]:.2f}-{ends[1]:.2f}, 95 %)"


def _ratios(runs: Runs, mine: Contender, other: Contender) -> list[float]:
    pairs = zip(runs[mine], runs[other], strict=True)
    return [one.images_per_cpu_second / two.images_per_cpu_second for one, two in pairs]


def _median(turns: Sequence[Turn]) -> float:
    return statistics.median(turn.images_per_cpu_second for turn in turns)


def _pixels(start: Start) -> str:
    if start.difference is None:
        return ""
    return "exact" if start.difference == 0 else f"within {start.difference}"


def _cold(cold: Sequence[Start], warm: Sequence[Start]) -> Iterator[str]:
    setting = cold[0].setting
    yield "| | first episode, s | warm | first episodes, images per second | warm |"
    yield "|---|---|---|---|---|"
    for contender in dict.fromkeys(start.contender for start in cold):
        own = [start for start in cold if start.contender == contender]
        usual = [s for s in warm if s.contender == contender and s.setting == setting]
        first, rates = [s.first for s in own], [s.images_per_second for s in own]
        yield (
            f"| {contender.title} | {spread(first, '.2f')} | {usual[0].first:.2f} "
            f"| {spread(rates, ',.0f')} | {usual[0].images_per_second:,.0f} |"
        )
