"""An episode's classes as a table, and the episode as JSON values."""

from __future__ import annotations

from rich import box
from rich.table import Table
from rich.text import Text

from pipeline.show.episode import EpisodeView


def episode_table(view: EpisodeView, *, plain: bool) -> Table:
    """One row for each class; `plain` leaves out lines and colours, for pipes and files."""
    grid = Table(box=None if plain else box.SIMPLE_HEAD, header_style="" if plain else "bold", pad_edge=False)
    grid.add_column("label", justify="right", no_wrap=True)
    grid.add_column("class", no_wrap=True)
    grid.add_column("split", no_wrap=True)
    for name in ("shots", "in H", "queries"):
        grid.add_column(name, justify="right", no_wrap=True)
    if view.videos:
        grid.add_column("videos (support, query)", justify="right", no_wrap=True)
    for lane in view.lanes:
        videos = [f"{lane.support_videos:,}, {lane.query_videos:,}"] if view.videos else []
        counts = (f"{count:,}" for count in (lane.shots, lane.in_h, lane.queries))
        grid.add_row(str(lane.label), Text(lane.name), lane.split or "none", *counts, *videos)
    return grid


def episode_values(view: EpisodeView) -> dict[str, object]:
    """The plan as `samplers.Replay` reads it, and the support positions in H."""
    return {**view.plan.described(), "digest": view.plan.digest, "h": view.h.tolist()}
