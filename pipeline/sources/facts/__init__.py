"""Tables of what the benchmarks define and the downloads do not contain: see README.md in this folder."""

from __future__ import annotations

from importlib import resources


def fact_rows(name: str) -> list[list[str]]:
    """The rows of one table, without its comments (the heading of most tables)."""
    text = (resources.files(__name__) / f"{name}.tsv").read_text(encoding="utf-8")
    return [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
