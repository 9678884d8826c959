"""The results of benchmarks/loader.py, and their Markdown tables."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from benchmarks.tables import format_spread

Kind = Literal["ceiling", "ours", "episodes", "plain"]


@dataclass(frozen=True)
class LoaderContender:
    """A loader that is measured: one row of each table."""

    name: str
    """Its name in benchmarks/loader_contenders.py."""
    title: str
    kind: Kind
    copy: str = ""
    """The copy of the images that it reads; "" if it reads none while it is timed."""
    module: str = ""
    """The module that must be installed for it."""
    always: bool = False
    """Whether it takes part with every size of episodes."""
    cold: bool = False
    """Whether it takes part in the starts with evicted files."""

    def files(self, root: Path, size: int) -> Path:
        """The folder that it reads for one size of images."""
        if self.copy in ("jpeg", "raw"):
            return root / self.copy / "photographs" / str(size)
        return root / f"{self.copy or 'nothing'}-{size}"


BOOTSTRAP_ROUNDS: Final = 10  # rounds; with fewer a ratio has its least and most, no interval
RESAMPLES: Final = 4000  # of a bootstrap interval

CEILING: Final = LoaderContender("ceiling", "ceiling", "ceiling", always=True)
TURBO: Final = LoaderContender("turbo", "**turbo**", "ours", "jpeg", always=True, cold=True)
TURBO_FAST: Final = LoaderContender("turbo-fast", "**turbo**, `fast`", "ours", "jpeg")
TURBO_MAPPED: Final = LoaderContender("turbo-mapped", "**turbo**, mapped", "ours", "jpeg")
TURBO_FAST_MAPPED: Final = LoaderContender("turbo-fast-mapped", "**turbo**, `fast`, mapped", "ours", "jpeg")
TURBO_UNCOMPILED: Final = LoaderContender("turbo-uncompiled", "**turbo**, not compiled", "ours", "jpeg")
RAW_MAPPED: Final = LoaderContender("raw-mapped", "**raw**, mapped", "ours", "raw")
RAW: Final = LoaderContender("raw", "**raw**", "ours", "raw", always=True, cold=True)
FFCV: Final = LoaderContender("ffcv", "FFCV, re-encoded, fast flags", "episodes", "ffcv", "ffcv", cold=True)
FFCV_RAW: Final = LoaderContender("ffcv-raw", "FFCV, raw", "episodes", "ffcv_raw", "ffcv")
DALI: Final = "nvidia.dali"
LOADER_CONTENDERS: Final = (
    CEILING,
    LoaderContender("ceiling-fast", "ceiling, fast flags", "ceiling"),
    LoaderContender("ceiling-raw", "ceiling of raw: memcpy", "ceiling"),
    TURBO,
    TURBO_FAST,
    TURBO_MAPPED,
    TURBO_FAST_MAPPED,
    TURBO_UNCOMPILED,
    LoaderContender("dali", "**dali**", "ours", "jpeg", DALI, always=True, cold=True),
    RAW,
    RAW_MAPPED,
    LoaderContender("dali-files", "DALI, episodes of files", "episodes", "image_folder", DALI, cold=True),
    LoaderContender("litdata", "litdata, by number", "episodes", "litdata", "litdata", cold=True),
    LoaderContender("mosaicml", "MosaicML, by number", "episodes", "mosaicml", "streaming"),
    LoaderContender("image-folder", "ImageFolder, PIL", "episodes", "image_folder", cold=True),
    FFCV,
    FFCV_RAW,
    LoaderContender("dali-reader", "DALI's reader, no episodes", "plain", "jpeg", DALI),
    LoaderContender("webdataset", "webdataset, no episodes", "plain", "jpeg", "webdataset"),
)


@dataclass(frozen=True)
class LoaderSetting:
    """Size of the images in pixels, and support images of an episode."""

    size: int
    support: int

    def __str__(self) -> str:
        return f"{self.size} px, {self.support} support images"


@dataclass(frozen=True)
class LoaderStart:
    """The first episodes of a fresh process, timed from when all is imported."""

    contender: LoaderContender
    setting: LoaderSetting
    cold: bool
    first: float
    """Seconds to the first episode."""
    images_per_second: float
    megabytes: float
    difference: int | None
    """The largest difference from Pillow's pixels, in grey levels."""


@dataclass(frozen=True)
class LoaderTurn:
    """One turn of a contender."""

    contender: LoaderContender
    setting: LoaderSetting
    images_per_cpu_second: float
    images_per_second: float
    megabytes: float


def loader_tables(results: Sequence[LoaderStart | LoaderTurn]) -> Iterator[str]:
    """The lines of all tables, in Markdown."""
    turns = [result for result in results if isinstance(result, LoaderTurn)]
    starts = [result for result in results if isinstance(result, LoaderStart)]
    for setting in dict.fromkeys(turn.setting for turn in turns):
        warm = {s.contender: s for s in starts if s.setting == setting and not s.cold}
        yield f"\n### {setting}\n"
        yield from _rates([turn for turn in turns if turn.setting == setting], warm)
    if cold := [start for start in starts if start.cold]:
        yield f"\n### Cold: {cold[0].setting}\n"
        yield from _cold(cold, [start for start in starts if not start.cold])


LoaderTurns = dict[LoaderContender, list[LoaderTurn]]


def _rates(turns: Sequence[LoaderTurn], starts: dict[LoaderContender, LoaderStart]) -> Iterator[str]:
    runs: LoaderTurns = {}
    for turn in turns:
        runs.setdefault(turn.contender, []).append(turn)
    yield (
        "| | images per CPU second | of the ceiling | images per second | first episode, s "
        "| memory MB | pixels |"
    )
    yield "|---|---|---|---|---|---|---|"
    for contender, own in sorted(runs.items(), key=lambda entry: -_median(entry[1])):
        share = format_spread(_ratios(runs, contender, CEILING), ".2f") if CEILING in runs else ""
        wall = statistics.median(turn.images_per_second for turn in own)
        start = starts[contender]
        memory = f"{max(start.megabytes, *(turn.megabytes for turn in own)):,.0f}"
        yield (
            f"| {contender.title} | {format_spread([t.images_per_cpu_second for t in own], ',.0f')} | {share} "
            f"| {wall:,.0f} | {start.first:.2f} | {memory if contender.copy else ''} "
            f"| {_pixels(start)} |"
        )
    yield ""
    yield from _verdicts(runs, starts)


def _verdicts(runs: LoaderTurns, starts: dict[LoaderContender, LoaderStart]) -> Iterator[str]:
    """The ratios that the targets are about, each of two turns of the same round."""
    exact = [c for c in runs if c.kind == "episodes" and starts[c].difference == 0 and c != FFCV_RAW]
    pairs = [
        (f"{title}, of the ceiling", mine, CEILING)
        for title, mine in (
            ("turbo", TURBO),
            ("turbo mapped", TURBO_MAPPED),
            ("turbo not compiled", TURBO_UNCOMPILED),
            ("turbo with `fast`", TURBO_FAST),
            ("raw", RAW),
            ("raw mapped", RAW_MAPPED),
        )
    ]
    pairs += [
        (f"turbo, times {rival.title}", TURBO, rival)
        for rival in sorted(exact, key=lambda rival: -_median(runs[rival]))[:2]
    ]
    pairs += [
        ("turbo with `fast`, times FFCV", TURBO_FAST, FFCV),
        ("turbo with `fast`, mapped, times FFCV", TURBO_FAST_MAPPED, FFCV),
        ("raw, times FFCV raw", RAW, FFCV_RAW),
        ("raw mapped, times FFCV raw", RAW_MAPPED, FFCV_RAW),
        ("turbo, times not compiled", TURBO, TURBO_UNCOMPILED),
        ("turbo mapped, times read", TURBO_MAPPED, TURBO),
        ("raw mapped, times read", RAW_MAPPED, RAW),
    ]
    for title, mine, other in pairs:
        if mine in runs and other in runs:
            ratios = _ratios(runs, mine, other)
            few = len(ratios) < BOOTSTRAP_ROUNDS
            yield f"- {format_spread(ratios, '.2f') if few else interval(ratios)} {title}"


def interval(values: Sequence[float]) -> str:
    """The median and its 95 % bootstrap interval.

    >>> interval([1.0] * 20)
    '1.00 (1.00-1.00, 95 %)'
    """
    draw = random.Random(0)
    medians = sorted(statistics.median(draw.choices(values, k=len(values))) for _ in range(RESAMPLES))
    ends = [medians[int(RESAMPLES * share)] for share in (0.025, 0.975)]
    return f"{statistics.median(values):.2f} ({ends[0]:.2f}-{ends[1]:.2f}, 95 %)"


def _ratios(runs: LoaderTurns, mine: LoaderContender, other: LoaderContender) -> list[float]:
    pairs = zip(runs[mine], runs[other], strict=True)
    return [one.images_per_cpu_second / two.images_per_cpu_second for one, two in pairs]


def _median(turns: Sequence[LoaderTurn]) -> float:
    return statistics.median(turn.images_per_cpu_second for turn in turns)


def _pixels(start: LoaderStart) -> str:
    if start.difference is None:
        return ""
    return "exact" if start.difference == 0 else f"within {start.difference}"


def _cold(cold: Sequence[LoaderStart], warm: Sequence[LoaderStart]) -> Iterator[str]:
    setting = cold[0].setting
    yield "| | first episode, s | warm | first episodes, images per second | warm |"
    yield "|---|---|---|---|---|"
    for contender in dict.fromkeys(start.contender for start in cold):
        own = [start for start in cold if start.contender == contender]
        usual = [s for s in warm if s.contender == contender and s.setting == setting]
        first, rates = [s.first for s in own], [s.images_per_second for s in own]
        yield (
            f"| {contender.title} | {format_spread(first, '.2f')} | {usual[0].first:.2f} "
            f"| {format_spread(rates, ',.0f')} | {usual[0].images_per_second:,.0f} |"
        )
