"""Page that lists a folder: `pipeline.store.http_answers.linked_folders`."""

from __future__ import annotations

from pipeline.store.http_answers import linked_folders

URL = "http://host/data"


def seeds() -> list[bytes]:
    links = (
        "birds/",
        "/data/omniglot/",
        "http://host/data/x/",
        "../",
        "?C=N",
        "//h/y/",
        "a%2fb/",
        "two words/",
    )
    return [
        "\n".join(f'<li><a class="d" href="{link}">{link}</a>' for link in links).encode(),
        b"<A HREF='birds/'>" + b"<a " + b" " * 500,
        b"",
    ]


def check(data: bytes) -> None:
    """Folders directly below the page's, each once."""
    found = linked_folders(data, URL)
    assert found == sorted(set(found))
    for folder in found:
        name = folder.removeprefix(f"{URL}/")
        assert name != folder
        assert name
        assert not set(name) & set("/?#\r\n")
