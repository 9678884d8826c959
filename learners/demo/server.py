"""Serve the page over HTTP to browsers on this computer alone.

It listens on 127.0.0.1. Other sites that are open in the browser cannot use it: a request must name this
server as its host (so no foreign name can be pointed at it), must not come from another origin, and must
carry the key of a page that this server opened. Other users of the computer can reach the port, but they do
not know the key in the address, without which no page is opened. A request has limits of bytes and of time.
"""

from __future__ import annotations

import json
import logging
import re
import secrets
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedReader
from threading import BoundedSemaphore
from typing import Any, Final, TypeVar

from learners.demo.refused import RefusedRequest
from learners.demo.replies import HttpReply, page_files
from learners.demo.service import MAX_IMAGE_BYTES, AdaptRequest, ClassifyRequest, DemoService
from learners.demo.sessions import KEY_BYTES, PageSession
from learners.demo.timed_input import IDLE_SECONDS, TimedInput
from pipeline.errors import IntegrityError, PipelineError, UsageError
from pipeline.settings import typed

ADDRESS: Final = "127.0.0.1"
MAX_JSON_BYTES: Final = 1 << 20
DISCARD_LIMIT_BYTES: Final = 256 << 20  # of a refused body are read, for browsers to get the reply
DISCARD_READ_BYTES: Final = 1 << 16
REQUEST_SECONDS: Final = 300  # until a request has come: 32 MB through a tunnel at 1 Mbit/s
REPLY_SECONDS: Final = 300  # until a reply has gone
MAX_CONNECTIONS: Final = 32  # at once, each with a thread; a browser opens six for a page
LENGTH_PATTERN: Final = re.compile(r"[0-9]{1,15}")
HTTP_PORT: Final = 80  # which browsers leave out of a host
REQUEST_FORMS: Final = (
    'the request should be {"classes": [{"name": ..., "pictures": [...]}, ...]} or {"pictures": [...]}, '
    "and is not; reload the page"
)
RequestT = TypeVar("RequestT")
log = logging.getLogger(__name__)


class DemoServer(ThreadingHTTPServer):
    """Serves one learner; `port` 0 takes any that is free."""

    def __init__(self, port: int) -> None:
        """Take the port; set `service` before anything is served."""
        super().__init__((ADDRESS, port), DemoHandler)
        self.service: DemoService
        self.files = page_files()
        self.key = secrets.token_urlsafe(KEY_BYTES)
        """What a page must know before it is opened; other users of this computer do not."""
        self._places = BoundedSemaphore(MAX_CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own, or close it where there are too many."""
        if not self._places.acquire(blocking=False):
            log.warning("more than %d connections at once; the latest is closed", MAX_CONNECTIONS)
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve a connection, and give its place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names under which browsers may reach this server."""
        port = self.server_address[1]
        names = (ADDRESS, "localhost")
        bare = names if port == HTTP_PORT else ()
        return (*(f"{name}:{port}" for name in names), *bare)

    @property
    def origin(self) -> str:
        """The server's address, without the key."""
        return f"http://{self.hosts[0]}/"

    @property
    def url(self) -> str:
        """The page's address, for the person who started the program."""
        return f"{self.origin}?key={self.key}"


class DemoHandler(BaseHTTPRequestHandler):
    """One connection of a browser."""

    server: DemoServer
    protocol_version = "HTTP/1.1"
    server_version = "lite-shards"
    sys_version = ""
    timeout = IDLE_SECONDS  # until the first request; see `TimedInput`
    disable_nagle_algorithm = True  # a reply is two small writes, and would wait 40 ms between them
    unread = 0
    """Bytes of the request's body that have not been read."""

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_DELETE(self) -> None:
        self._serve()

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self._input = TimedInput(self.connection)
        self.rfile = BufferedReader(self._input)

    def handle_one_request(self) -> None:
        self._input.limit(REQUEST_SECONDS)
        super().handle_one_request()

    def handle(self) -> None:
        try:
            super().handle()
        except ConnectionError:  # the browser has gone
            log.debug("a connection ended early")

    def _serve(self) -> None:
        self.unread = 0
        try:
            self.unread = self._length()
            self._check_sender()
            reply = self._route()()
        except PipelineError as error:
            reply = HttpReply.of({"error": str(error)}, _status_of(error))
        except (TimeoutError, ConnectionError):
            raise
        except Exception:
            log.exception("%s %s failed", self.command, self.path)
            text = "something failed that should not; the terminal of learners.demo says what"
            reply = HttpReply.of({"error": text}, HTTPStatus.INTERNAL_SERVER_ERROR)
        self._send(reply)

    def _check_sender(self) -> None:
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or hosts[0].lower() not in self.server.hosts:
            raise RefusedRequest(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"this server answers to {self.server.origin} alone; open that",
            )
        origin = self.headers.get("Origin")
        if origin is not None and origin.lower() != f"http://{hosts[0].lower()}":
            raise RefusedRequest(HTTPStatus.FORBIDDEN, f"another site, {origin[:100]}, may not use this page")

    def _length(self) -> int:
        if "Transfer-Encoding" in self.headers:
            self.close_connection = True
            raise RefusedRequest(HTTPStatus.LENGTH_REQUIRED, "a request must say its length and be whole")
        lengths = set(self.headers.get_all("Content-Length", ["0"]))
        length = lengths.pop()
        if lengths or not LENGTH_PATTERN.fullmatch(length):
            self.close_connection = True
            raise UsageError(f"{length[:20]!r} is no length of a request")
        return int(length)

    def _route(self) -> Callable[[], HttpReply]:
        """The method that answers this request."""
        path = self.path.partition("?")[0]
        routes = {
            ("POST", "/api/session"): self._open_session,
            ("POST", "/api/pictures"): self._add_image,
            ("POST", "/api/adapt"): self._adapt,
            ("POST", "/api/classify"): self._classify,
            ("GET", "/api/classifier"): self._send_classifier,
        }
        if self.command == "GET" and path in self.server.files:
            return lambda: self.server.files[path]
        if self.command == "DELETE" and path.startswith("/api/pictures/"):
            return self._remove_image
        if (self.command, path) in routes:
            return routes[self.command, path]
        methods = {method for method, other in routes if other == path}
        if methods or path in self.server.files:
            needed = ", ".join(methods or {"GET"})
            raise RefusedRequest(HTTPStatus.METHOD_NOT_ALLOWED, f"{path} answers {needed} alone")
        raise RefusedRequest(HTTPStatus.NOT_FOUND, f"there is nothing at {path[:100]}")

    def _open_session(self) -> HttpReply:
        if not secrets.compare_digest(self.headers.get("X-Key", "").encode(), self.server.key.encode()):
            raise RefusedRequest(
                HTTPStatus.FORBIDDEN,
                "this page needs the key of the program's start; open the address that its terminal shows",
            )
        return HttpReply.of(self.server.service.open(), HTTPStatus.CREATED)

    def _add_image(self) -> HttpReply:
        session = self._session()
        return HttpReply.of(self.server.service.add(session, self._body(MAX_IMAGE_BYTES)), HTTPStatus.CREATED)

    def _remove_image(self) -> HttpReply:
        self._session().remove(self.path.rpartition("/")[2])
        return HttpReply.of({})

    def _adapt(self) -> HttpReply:
        session, request = self._session(), self._request(AdaptRequest)
        return HttpReply.of(self.server.service.adapt(session, request))

    def _classify(self) -> HttpReply:
        session, request = self._session(), self._request(ClassifyRequest)
        return HttpReply.of(self.server.service.classify(session, request))

    def _send_classifier(self) -> HttpReply:
        file = self.server.service.classifier_file(self._session())
        return HttpReply(file, "application/octet-stream")

    def _session(self) -> PageSession:
        return self.server.service.sessions.find(self.headers.get("X-Session", ""))

    def _request(self, kind: type[RequestT]) -> RequestT:
        """The JSON body as a request of that kind."""
        try:
            values = json.loads(self._body(MAX_JSON_BYTES))
        except (ValueError, RecursionError):
            values = None
        if not isinstance(values, dict):
            raise UsageError("the request's body should be a JSON object")
        return typed(values, kind, REQUEST_FORMS, UsageError)

    def _body(self, limit: int) -> bytes:
        if self.unread > limit:
            raise RefusedRequest(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"{self.unread / 2**20:,.0f} MB are more than the limit of {limit >> 20} MB",
            )
        length, self.unread = self.unread, 0
        body = self.rfile.read(length)
        if len(body) < length:
            raise ConnectionAbortedError
        return body

    def _send(self, reply: HttpReply) -> None:
        self._discard()
        self.connection.settimeout(REPLY_SECONDS)
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(reply.body)

    def _discard(self) -> None:
        """Read the rest of the body, so that it is not taken for the next request."""
        if self.unread > DISCARD_LIMIT_BYTES:
            self.close_connection = True
            return
        while self.unread > 0:
            read = self.rfile.read(min(self.unread, DISCARD_READ_BYTES))
            if not read:
                raise ConnectionAbortedError
            self.unread -= len(read)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Send what the standard library refuses by itself as our JSON."""
        self.close_connection = True
        status = HTTPStatus(code)
        self._send(HttpReply.of({"error": message or explain or status.description}, status))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class' name
        log.debug(format, *args)


def _status_of(error: PipelineError) -> HTTPStatus:
    if isinstance(error, RefusedRequest):
        return error.status
    if isinstance(error, IntegrityError):
        return HTTPStatus.UNPROCESSABLE_ENTITY
    return HTTPStatus.BAD_REQUEST if isinstance(error, UsageError) else HTTPStatus.INTERNAL_SERVER_ERROR
