"""HTTP replies: values as JSON, and the files of the page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from importlib.resources import files
from typing import Final

CONTENT_TYPES: Final = {
    "html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml",
}  # fmt: skip
SECURITY_HEADERS: Final = {  # the page may talk to this server and load from it, and nothing else
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True)
class HttpReply:
    """The status, content type and body of a reply."""

    body: bytes
    kind: str = "application/json"
    status: HTTPStatus = HTTPStatus.OK

    @classmethod
    def of(cls, value: object, status: HTTPStatus = HTTPStatus.OK) -> HttpReply:
        """Reply with a value as JSON."""
        return cls(json.dumps(value).encode(), status=status)

    @property
    def headers(self) -> dict[str, str]:
        """All headers of the reply."""
        length = str(len(self.body))
        return {"Content-Type": self.kind, "Content-Length": length, **SECURITY_HEADERS}


def page_files() -> Mapping[str, HttpReply]:
    """Replies with the page's files, by path."""
    replies = {}
    for file in files("learners.demo").joinpath("page").iterdir():
        kind = CONTENT_TYPES.get(file.name.rpartition(".")[2])
        if kind is not None:
            path = "/" if file.name == "index.html" else f"/{file.name}"
            replies[path] = HttpReply(file.read_bytes(), kind)
    return replies
