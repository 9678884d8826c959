"""A shard set as a table, and the same as JSON values."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from pipeline.show.facts import DatasetFacts, readable_bytes


def dataset_table(all_facts: Sequence[DatasetFacts], *, plain: bool) -> Table:
    """One row for each dataset, and a total; `plain` leaves out lines and colours, for pipes and files."""
    separator = ", " if plain else "\n"
    grid = Table(
        box=None if plain else box.SIMPLE_HEAD,
        show_footer=not plain and len(all_facts) > 1,
        header_style="" if plain else "bold",
        pad_edge=False,
    )
    footers = ("total", *_total_cells(all_facts))
    for name, side, foot in zip(
        ("dataset", "classes", "pictures", "on disk", "left out"),
        ("left", "right", "right", "right", "right"),
        footers,
        strict=True,
    ):
        grid.add_column(name, justify=side, footer=foot, no_wrap=True)  # type: ignore[arg-type]
    grid.add_column("splits (classes, pictures)", no_wrap=True)
    grid.add_column("sizes", no_wrap=True)
    for facts in all_facts:
        grid.add_row(
            facts.name,
            f"{facts.classes:,}",
            f"{facts.samples:,}",
            readable_bytes(facts.bytes),
            f"{facts.quarantined:,}",
            separator.join(f"{s.label} {s.classes:,} / {s.samples:,}" for s in facts.splits),
            separator.join(f"{s.size} px {s.encoding} {readable_bytes(s.bytes)}" for s in facts.sizes),
        )
    return grid


def _total_cells(all_facts: Sequence[DatasetFacts]) -> tuple[str, str, str, str]:
    return (
        f"{sum(facts.classes for facts in all_facts):,}",
        f"{sum(facts.samples for facts in all_facts):,}",
        readable_bytes(sum(facts.bytes for facts in all_facts)),
        f"{sum(facts.quarantined for facts in all_facts):,}",
    )


def dataset_values(facts: DatasetFacts) -> dict[str, object]:
    """The row of one dataset as JSON values."""
    return {
        "dataset": facts.name,
        "classes": facts.classes,
        "samples": facts.samples,
        "bytes": facts.bytes,
        "quarantined": facts.quarantined,
        "users": facts.users,
        "groups": facts.groups,
        "splits": {
            split.name: {"classes": split.classes, "samples": split.samples} for split in facts.splits
        },
        "sizes": {
            str(size.size): {"encoding": size.encoding, "bytes": size.bytes, "tars": size.tars}
            for size in facts.sizes
        },
    }
