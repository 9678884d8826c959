"""The figures of a report as CSV, one to a line, for spreadsheets and scripts."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Final

from learners.evaluate.records import AdaptationCost
from learners.report.published import PublishedRow
from learners.report.ranks import MeanInterval, tied_ranks
from learners.report.results import NamedResult, score_key

CSV_COLUMNS: Final = (
    "protocol", "variant", "learner", "source", "dataset", "group", "metric", "value", "interval",
    "count", "chance", "found", "wanted", "rank",
)  # fmt: skip
LOWER_IS_BETTER: Final = "frames_to_recognition"
"""The end of the names of metrics of which less is better."""


def csv_text(results: Sequence[NamedResult], published: Iterable[tuple[str, str, PublishedRow]]) -> str:
    """The CSV table. Published rows come with their protocol and variant; ranks are among results alone."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for result in results:
        head = {"protocol": result.protocol, "variant": result.variant, "learner": result.name}
        peers = [r for r in results if (r.protocol, r.variant) == (result.protocol, result.variant)]
        writer.writerows({**head, **values} for values in _result_lines(result, peers))
    for protocol, variant, row in published:
        head = {"protocol": protocol, "variant": variant, "learner": row.name}
        head["source"] = str(row.source)
        writer.writerows({**head, **values} for values in _published_lines(row))
    return text.getvalue()


def _result_lines(result: NamedResult, peers: Sequence[NamedResult]) -> Iterator[dict[str, Any]]:
    for score in result.evaluation.scores:
        rank = _rank_among(result, peers, score_key(score), score.metric)
        yield {**_without_none(asdict(score)), "rank": rank}
    for average in result.evaluation.averages:
        yield {
            "dataset": result.mean_key(average), "metric": average.metric, "value": average.value,
            "found": average.found, "wanted": average.wanted,
        }  # fmt: skip
    yield from _cost_lines(result.evaluation.cost)


def _rank_among(result: NamedResult, peers: Sequence[NamedResult], key: str, metric: str) -> str:
    """The rank among the results of its protocol and variant; "" if there are no others."""
    figures: dict[str, MeanInterval] = {p.name: f[key] for p in peers if key in (f := p.figures())}
    if len(figures) == 1:
        return ""
    ranks = tied_ranks(list(figures.values()), lower_is_better=metric.endswith(LOWER_IS_BETTER))
    return f"{dict(zip(figures, ranks, strict=True))[result.name]:g}"


def _published_lines(row: PublishedRow) -> Iterator[dict[str, Any]]:
    for key, (value, interval) in row.figures.items():
        mode, _, metric = key.partition(" ")
        of = {"dataset": key, "metric": "accuracy"}
        if mode != "mean":
            of = {"dataset": "orbit", "group": mode, "metric": metric}
        half = None if interval is None else round(interval / 100, 6)
        yield _without_none({**of, "value": round(value / 100, 6), "interval": half})
    if row.cost is not None:
        yield from _cost_lines(row.cost)


def _cost_lines(cost: AdaptationCost) -> Iterator[dict[str, Any]]:
    for metric, value in asdict(cost).items():
        if value is not None:
            yield {"metric": metric, "value": value}


def _without_none(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}
