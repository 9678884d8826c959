"""Answers of web servers: read no further than was asked for, and listings of folders in linear time."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urljoin

import aiohttp
from aiohttp import hdrs

from pipeline.store.server_errors import HTTP_ERROR, check_length

UNASKED_BYTES: Final = 2**20  # of an answer to a request without a range; the store makes none
RANGE_HEADER: Final = re.compile(r"bytes=(\d+)-(\d+)")
LINK: Final = re.compile(r"""\bhref=["']([^"'<>\r\n]{1,2048})["']""", re.IGNORECASE)
"""In linear time: fsspec's own expression takes the third power of the spaces in a tag."""
FOLDER_NAME: Final = re.compile(r"[^/?#]+/")


class BoundedResponse(aiohttp.ClientResponse):
    """An answer of which as many bytes are read as the request's range has."""

    async def start(self, connection: Any) -> aiohttp.ClientResponse:
        """Wait for the head. Raises ClientPayloadError for what is no HTTP; aiohttp says that it has status 400."""
        try:
            return await super().start(connection)
        except aiohttp.ClientResponseError as error:
            raise aiohttp.ClientPayloadError(f"no HTTP answer: {error.message}") from error

    async def read(self) -> bytes:
        """Read the body. Raises AnswerTooLong as soon as it is certain; an error's body is left unread."""
        if self.status >= HTTP_ERROR:
            self.release()
            return b""
        if self._body is None:
            try:
                self._body = await self._read_up_to(range_bytes(self.request_info.headers))
            except BaseException:
                self.close()
                raise
        return self._body

    async def _read_up_to(self, limit: int) -> bytes:
        check_length(self.content_length or 0, limit)
        body = bytearray()
        async for part in self.content.iter_any():
            body += part
            check_length(len(body), limit)
        return bytes(body)


def range_bytes(headers: Any) -> int:
    """How many bytes a request with these headers asks for."""
    asked = RANGE_HEADER.fullmatch(headers.get(hdrs.RANGE, ""))
    return int(asked[2]) - int(asked[1]) + 1 if asked else UNASKED_BYTES


async def open_session(**options: Any) -> aiohttp.ClientSession:
    """Open a session whose answers are bounded, which keeps no cookies and leaves timeouts to the caller."""
    return aiohttp.ClientSession(
        **{
            "response_class": BoundedResponse,
            "cookie_jar": aiohttp.DummyCookieJar(),
            "timeout": aiohttp.ClientTimeout(total=None),
            **options,
        }
    )


def linked_folders(page: bytes, url: str) -> list[str]:
    """The folders directly below `url` that its page, a listing, links to; sorted, without duplicates."""
    base = url.rstrip("/") + "/"
    found = set()
    for link in LINK.findall(page.decode(errors="replace")):
        with suppress(ValueError):  # no URL
            target = urljoin(base, link)
            if target.startswith(base) and FOLDER_NAME.fullmatch(target, len(base)):
                found.add(target.rstrip("/"))
    return sorted(found)
