"""Every figure on a line of its own, shares as shares: for spreadsheets and scripts."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

from learners.evaluate.records import Cost
from learners.report.published import Published
from learners.report.ranks import Figure, ranks
from learners.report.results import Result, score_key

HEAD: Final = (
    "protocol", "variant", "learner", "source", "dataset", "group", "metric", "value", "interval",
    "count", "chance", "found", "wanted", "rank",
)  # fmt: skip
LOWER: Final = "frames_to_recognition"
"""The metric of which less is better, also by user."""


def csv_text(results: Sequence[Result], published: Iterable[tuple[str, str, Published]]) -> str:
    """The table; `published` rows come with their protocol and variant. A rank is among results alone."""
    text = io.StringIO()
    writer = csv.DictWriter(text, HEAD, restval="", lineterminator="\n")
    writer.writeheader()
    for result in results:
        head = {"protocol": result.protocol, "variant": result.variant, "learner": result.name}
        peers = [r for r in results if (r.protocol, r.variant) == (result.protocol, result.variant)]
        writer.writerows({**head, **values} for values in _ours(result, peers))
    for protocol, variant, row in published:
        head = {"protocol": protocol, "variant": variant, "learner": row.name}
        head["source"] = str(row.source)
        writer.writerows({**head, **values} for values in _theirs(row))
    return text.getvalue()


def _ours(result: Result, peers: Sequence[Result]) -> Iterator[dict[str, Any]]:
    for score in result.evaluation.scores:
        values = asdict(score)
        yield {**_known(values), "rank": _rank(result, peers, score_key(score), score.metric)}
    for average in result.evaluation.averages:
        yield {
            "dataset": result.mean_key(average), "metric": average.metric, "value": average.value,
            "found": average.found, "wanted": average.wanted,
        }  # fmt: skip
    yield from _costs(result.evaluation.cost)


def _rank(result: Result, peers: Sequence[Result], key: str, metric: str) -> str:
    """Among those of its protocol and variant, where there are several."""
    found: dict[str, Figure] = {p.name: f[key] for p in peers if key in (f := p.figures())}
    if len(found) == 1:
        return ""
    places = ranks(list(found.values()), lower_is_better=metric.endswith(LOWER))
    return f"{dict(zip(found, places, strict=True))[result.name]:g}"


def _theirs(row: Published) -> Iterator[dict[str, Any]]:
    for key, (value, interval) in row.figures.items():
        mode, _, metric = key.partition(" ")
        of = {"dataset": key, "metric": "accuracy"}
        if mode != "mean":
            of = {"dataset": "orbit", "group": mode, "metric": metric}
        half = None if interval is None else round(interval / 100, 6)
        yield _known({**of, "value": round(value / 100, 6), "interval": half})
    if row.cost is not None:
        yield from _costs(row.cost)


def _costs(cost: Cost) -> Iterator[dict[str, Any]]:
    for metric, value in asdict(cost).items():
        if value is not None:
            yield {"metric": metric, "value": value}


def _known(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
