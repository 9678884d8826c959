"""Listings of web servers, which any server may fill with what it likes."""

from __future__ import annotations

import pytest

from pipeline.store.http_answers import UNASKED_BYTES, linked_folders, range_bytes

URL = "http://host/data"


@pytest.mark.parametrize(
    ("link", "folder"),
    [
        ("birds/", "birds"),
        ("./birds/", "birds"),
        ("/data/birds/", "birds"),
        ("http://host/data/birds/", "birds"),
        ("two words/", "two words"),
        ("birds", None),
        ("../", None),
        ("/", None),
        ("./", None),
        ("birds/48/", None),
        ("../other/", None),
        ("http://evil/data/birds/", None),
        ("//evil/data/birds/", None),
        ("?C=N;O=D", None),
        ("birds?x/", None),
        ("http://[x/", None),
        ("x" * 3000 + "/", None),
    ],
)
def test_only_folders_directly_below_are_listed(link: str, folder: str | None) -> None:
    page = f"""<html><a href="{link}">it</a> <A HREF='{link}'>again</A>""".encode()
    assert linked_folders(page, URL) == ([f"{URL}/{folder}"] if folder else [])


@pytest.mark.parametrize(
    "piece",
    ["<a " + " " * 1000, 'href="', "href='x", "<a href=", 'href="/data/x/', "\xff", "http://host/data/"],
)
def test_a_page_takes_linear_time(piece: str) -> None:
    """fsspec's own expression would take years for a megabyte of spaces."""
    page = (piece * (2**20 // len(piece))).encode("latin-1")
    assert linked_folders(page + b'<a href="birds/">', URL)[-1:] in ([f"{URL}/birds"], [])


def test_a_request_without_a_range_has_a_limit_too() -> None:
    assert range_bytes({"Range": "bytes=10-19"}) == 10
    assert range_bytes({}) == range_bytes({"Range": "bytes=5-"}) == UNASKED_BYTES
