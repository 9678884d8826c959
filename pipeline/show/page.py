"""One self-contained HTML page for a shard set: no script, no font, no link to another file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import groupby
from typing import Final

from pipeline.index import DatasetManifest
from pipeline.show.facts import DatasetFacts, SplitFacts, plural, readable_bytes, totals_line
from pipeline.show.histogram import HistogramBar, count_class_sizes
from pipeline.show.page_style import PAGE_STYLE
from pipeline.show.stored_images import data_uri, shrink_image
from pipeline.show.strips import ClassStrip, DatasetChapter

TILE_PIXELS: Final = 128  # sharp on screens with two pixels per point
PAGE_ROWS: Final = 500  # entries of a list on the page, such as the images left out
AXIS_TICKS: Final = 5
UNIT_SPACE: Final = re.compile(r"(?<=\d) (?=px|[kMGT]?B)")  # a line must not break there
ONLY_CLASS: Final = ' class="only"'
PAGE_COLUMNS: Final = 10  # side by side on a wide screen


def html_page(title: str, chapters: Sequence[DatasetChapter]) -> str:
    """The whole HTML document."""
    parts = [_chapter(chapter, named=len(chapters) > 1) for chapter in chapters]
    body = "".join([_header(title, chapters), *parts, _footer()])
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{PAGE_STYLE}</style>\n<body>\n{body}</body>\n</html>\n"
    )


def _header(title: str, chapters: Sequence[DatasetChapter]) -> str:
    all_facts = [chapter.facts for chapter in chapters]
    lead = totals_line(all_facts) if len(chapters) > 1 else _sentence(all_facts[0])
    head = f'<header><h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p></header>\n'
    if len(chapters) == 1:
        return head
    rows = "".join(
        f'<tr><td><a href="#{escape(f.name)}">{escape(f.name)}</a></td>'
        f"{_number_cells(f.classes, f.samples)}"
        f"<td class='wide'>{', '.join(_split_name(s) + f' {s.samples:,}' for s in f.splits)}</td>"
        f"<td class='wide'>{', '.join(f'{s.size} px {s.encoding}' for s in f.sizes)}</td>"
        f'<td class="number">{readable_bytes(f.bytes)}</td></tr>\n'
        for f in all_facts
    )
    return (
        f'{head}<div class="scroll"><table class="all"><thead><tr><th>dataset</th>'
        '<th class="number">classes</th><th class="number">pictures</th>'
        '<th class="wide">splits</th><th class="wide">stored as</th><th class="number">on disk</th>'
        f"</tr></thead><tbody>\n{rows}</tbody></table></div>\n"
    )


def _chapter(chapter: DatasetChapter, *, named: bool) -> str:
    facts, manifest = chapter.facts, chapter.dataset.manifest
    heading = f'<h2>{escape(facts.name)}</h2>\n<p class="lead">{escape(_sentence(facts))}</p>\n'
    return (
        f'<section id="{escape(facts.name)}"{"" if named else ONLY_CLASS}>\n{heading * named}'
        f'<div class="two"><div><h3>Splits</h3>\n{_splits(facts)}</div>\n'
        f"<div><h3>Pictures per class</h3>\n{_class_sizes(facts)}</div></div>\n"
        f"<h3>Random classes</h3>\n{_image_rows(chapter)}"
        f"<h3>Provenance</h3>\n{_quarantine(manifest)}{_recipe(chapter)}</section>\n"
    )


def _sentence(facts: DatasetFacts) -> str:
    stored_as = " and ".join(
        f"{s.size} px as {s.encoding} ({readable_bytes(s.bytes)} in {plural(s.tars, 'tar')})"
        for s in facts.sizes
    )
    people = f" by {plural(facts.users, 'user')}" if facts.users else ""
    word = "video" if facts.users else "group"
    groups = f" in {plural(facts.groups, word)}" if facts.groups else ""
    text = (
        f"{plural(facts.samples, 'picture')} of {plural(facts.classes, 'class')}"
        f"{people}{groups}, stored at {stored_as}."
    )
    return UNIT_SPACE.sub("\u00a0", text)


def _split_name(split: SplitFacts) -> str:
    return escape(split.label)


def _split_class(split: str) -> str:
    return split if split in ("train", "validation", "test") else "none"


def _number_cells(*counts: int) -> str:
    return "".join(f'<td class="number">{count:,}</td>' for count in counts)


def _splits(facts: DatasetFacts) -> str:
    if [split.name for split in facts.splits] == [""]:
        return '<p class="soft">The source does not split its pictures.</p>\n'
    bar = "".join(
        f'<i class="{_split_class(s.name)}" style="flex:{s.samples}" title="{_split_name(s)}"></i>'
        for s in facts.splits
    )
    rows = "".join(
        f"<tr><td>{_dot(s.name)}{_split_name(s)}</td>"
        f'{_number_cells(s.classes, s.samples)}<td class="number soft">'
        f"{100 * s.samples / max(facts.samples, 1):.0f} %</td></tr>"
        for s in facts.splits
    )
    return (
        f'<div class="share">{bar}</div><table class="facts"><thead><tr><th></th>'
        '<th class="number">classes</th><th class="number">pictures</th><th></th></tr></thead>'
        f"<tbody>{rows}</tbody></table>\n"
    )


def _class_sizes(facts: DatasetFacts) -> str:
    sizes = count_class_sizes(facts)
    if not sizes.bars:
        return f'<p class="soft">Each class has {plural(sizes.largest, "picture")}.</p>'
    top = max(bar.total for bar in sizes.bars)
    bars = "".join(_bar(bar, top) for bar in sizes.bars)
    last = len(sizes.bars) - 1
    ticks = [sizes.bars[round(last * tick / (AXIS_TICKS - 1))] for tick in range(AXIS_TICKS)]
    numbers = [bar.first for bar in ticks[:-1]] + [sizes.largest]
    labels = "".join(f"<span>{number:,}</span>" for number in dict.fromkeys(numbers))
    scale = ", on a logarithmic scale" if sizes.logarithmic else ""
    return (
        f'<figure class="sizes"><div class="bars">{bars}</div><div class="axis">{labels}</div>'
        f"<figcaption>Number of classes by pictures per class{scale}. The smallest class has "
        f"{sizes.smallest:,}, the median {sizes.median:,}, the largest {sizes.largest:,}; "
        f"the highest bar is {plural(top, 'class')}.</figcaption></figure>\n"
    )


def _bar(bar: HistogramBar, top: int) -> str:
    parts = "".join(
        f'<i class="{_split_class(split)}" style="flex:{count}"></i>' for split, count in bar.classes.items()
    )
    span = f"{bar.first:,}" if bar.first == bar.last else f"{bar.first:,} to {bar.last:,}"
    title = f"{plural(bar.total, 'class')} with {span} pictures"
    return f'<div style="height:{100 * bar.total / top:.1f}%" title="{title}">{parts}</div>'


def _image_rows(chapter: DatasetChapter) -> str:
    """Rows of images; under a user's name where the dataset has users' own objects."""
    columns = min(PAGE_COLUMNS, max((len(strip.rows) for strip in chapter.strips), default=1))
    parts = [f'<div style="--tiles:{columns}">\n']
    for user, group in groupby(chapter.strips, lambda strip: strip.user):
        strips = list(group)
        if user:
            split = escape(strips[0].split)
            parts.append(f"<h4>{_dot(split)}{escape(user)} <small>{split}</small></h4>\n")
        for before, strip in zip((None, *strips), strips, strict=False):
            again = before is not None and before.class_id == strip.class_id
            parts.append(_strip_row(chapter, strip, again=again))
    return "".join([*parts, "</div>\n"])


def _dot(split: str) -> str:
    return f'<span class="dot {_split_class(split)}" title="{escape(split)}"></span>'


def _strip_row(chapter: DatasetChapter, strip: ClassStrip, *, again: bool) -> str:
    """A row of images; a class with a clean and a cluttered row is named once."""
    name = escape(strip.class_name)
    tiles = "".join(
        f'<img alt="{name}" src="{data_uri(shrink_image(image, TILE_PIXELS))}" '
        f'width="{min(image.width, TILE_PIXELS)}" height="{min(image.height, TILE_PIXELS)}">'
        for image in chapter.read_images(strip)
    )
    title = "" if again else name if strip.user else _dot(strip.split) + name
    about = ", ".join(filter(None, (strip.kind or strip.split, plural(strip.samples, "picture"))))
    return (
        f'<div class="strip{" again" * again}"><div class="name">{title}'
        f'<small>{escape(about)}</small></div><div class="tiles">{tiles}</div></div>\n'
    )


def _quarantine(manifest: DatasetManifest) -> str:
    left_out = manifest.quarantined
    if not left_out:
        return '<p class="soft">No picture of the source was left out.</p>\n'
    rows = "".join(
        f"<tr><td><code>{escape(entry.name)}</code></td><td>{escape(entry.reason)}</td></tr>"
        for entry in left_out[:PAGE_ROWS]
    )
    more = f"The first {PAGE_ROWS:,}; dataset.json lists all." if len(left_out) > PAGE_ROWS else ""
    return (
        f"<details><summary>{plural(len(left_out), 'picture')} left out "
        '<span class="soft">and why</span></summary><div>'
        f"<table><tbody>{rows}</tbody></table>{more}</div></details>\n"
    )


def _recipe(chapter: DatasetChapter) -> str:
    manifest = chapter.dataset.manifest
    rows = "".join(
        f'<tr><th scope="row">{escape(name)}</th><td>{value}</td></tr>'
        for name, value in _provenance(manifest)
    )
    return (
        '<details><summary>How it was built <span class="soft">options, sources, libraries'
        f"</span></summary><div><table><tbody>{rows}</tbody></table></div></details>\n"
    )


def _provenance(manifest: DatasetManifest) -> Iterator[tuple[str, str]]:
    """Names and values of how the dataset was built, the values as HTML."""
    recipe = manifest.recipe
    orders = {"class": "grouped by class", "shuffled": "shuffled over all classes"}
    yield "resized", str(recipe.resizing)
    pairs = zip(recipe.sizes, recipe.encodings, strict=True)
    yield "encoded", ", ".join(f"{size} px as {encoding}" for size, encoding in pairs)
    yield "order", f"{orders[recipe.order]}, seed {recipe.seed}"
    if recipe.limit_per_class:
        yield "limit", f"{recipe.limit_per_class:,} pictures of a class"
    files = [f"<code>{escape(file.name)}</code> {readable_bytes(file.bytes)}" for file in manifest.sources]
    yield from _list_row("sources", files)
    for versions in manifest.versions:
        yield "libraries", escape(", ".join(f"{name} {text}" for name, text in versions.items()))
    yield "plan", f"<code>{escape(manifest.plan_hash)}</code>"
    yield "index", f"<code>{escape(manifest.index_sha256)}</code> (sha256 of index.parquet)"


def _list_row(name: str, entries: Sequence[str]) -> Iterable[tuple[str, str]]:
    """One row for a list, with PAGE_ROWS entries at most; none for an empty list."""
    if not entries:
        return []
    more = [f"and {len(entries) - PAGE_ROWS:,} more"] if len(entries) > PAGE_ROWS else []
    return [(name, "<br>".join([*entries[:PAGE_ROWS], *more]))]


def _footer() -> str:
    return (
        "<footer>Made by <code>python -m pipeline.show</code>. The pictures are reduced copies of "
        "the stored ones.</footer>\n"
    )
