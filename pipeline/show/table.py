"""A shard set as a table, and the same for machines."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table

from pipeline.show.facts import Facts, text_bytes


def table(all_facts: Sequence[Facts], *, plain: bool) -> Table:
    """One row for each dataset and one for the sum; without lines and colours where nobody looks."""
    joint = ", " if plain else "\n"
    grid = Table(
        box=None if plain else box.SIMPLE_HEAD,
        show_footer=not plain and len(all_facts) > 1,
        header_style="" if plain else "bold",
        pad_edge=False,
    )
    footers = ("total", *_sums(all_facts))
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
            text_bytes(facts.bytes),
            f"{facts.quarantined:,}",
            joint.join(f"{s.label} {s.classes:,} / {s.samples:,}" for s in facts.splits),
            joint.join(f"{s.size} px {s.encoding} {text_bytes(s.bytes)}" for s in facts.sizes),
        )
    return grid


def _sums(all_facts: Sequence[Facts]) -> tuple[str, str, str, str]:
    return (
        f"{sum(facts.classes for facts in all_facts):,}",
        f"{sum(facts.samples for facts in all_facts):,}",
        text_bytes(sum(facts.bytes for facts in all_facts)),
        f"{sum(facts.quarantined for facts in all_facts):,}",
    )


def values(facts: Facts) -> dict[str, object]:
    """The row for machines."""
    return {
        "dataset": facts.name,
        "classes": facts.classes,
        "samples": facts.samples,
        "bytes": facts.bytes,
        "quarantined": facts.quarantined,
        "users": facts.users,
        "groups": facts.groups,
        "splits": {
            split.name: {"classes": split.classes, "samples": split.samples}
            for split in facts.splits
        },
        "sizes": {
            str(size.size): {"encoding": size.encoding, "bytes": size.bytes, "tars": size.tars}
            for size in facts.sizes
        },
    }
