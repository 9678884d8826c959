"""The server answers as the learner would, and refuses wrong requests with a sentence."""

from __future__ import annotations

import io
import json
import re
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from learners.demo.server import DISCARD_LIMIT_BYTES, DemoServer
from learners.demo.service import MAX_IMAGE_BYTES
from learners.demo.sessions import MAX_IMAGES, MAX_SESSIONS
from learners.use.classifier import Learner, PortableClassifier
from tests.images import jpeg_bytes
from tests.learners.demo.serving import CLASS_COLOURS, DEMO_SIZE, PageClient, query_file, support_files
from tests.learners.scarce_memory import memory_for


@pytest.fixture
def client(server: DemoServer) -> Iterator[PageClient]:
    page = PageClient(server)
    with closing(page.connection):
        yield page


def test_answers_are_those_of_the_learner_itself(
    client: PageClient, learner: Learner, photos: Path, tmp_path: Path
) -> None:
    assert client.adapt_to(photos)["seconds"] > 0
    queries = [client.add(query_file(photos, name).read_bytes()) for name in CLASS_COLOURS]
    status, answer = client.ask("POST", "/api/classify", {"pictures": queries})
    expected = learner.adapt({name: [*map(str, support_files(photos, name))] for name in CLASS_COLOURS})
    assert (status, answer["classes"]) == (200, [*CLASS_COLOURS])
    files = [query_file(photos, name) for name in CLASS_COLOURS]
    probabilities = torch.tensor(answer["probabilities"])
    assert torch.equal(probabilities, expected(files))
    assert probabilities.argmax(1).tolist() == [0, 1, 2]
    status, data = client.raw("GET", "/api/classifier")
    (tmp_path / "saved.safetensors").write_bytes(data)
    assert status == 200
    again = PortableClassifier.load(tmp_path / "saved.safetensors", "cpu")
    assert torch.equal(again(files), probabilities)


def test_a_page_reads_what_to_do_where_memory_does_not_suffice(client: PageClient, photos: Path) -> None:
    pictures = [client.add(query_file(photos, name).read_bytes()) for name in CLASS_COLOURS]
    shown = {
        "classes": [{"name": name, "pictures": [one]} for name, one in zip("abc", pictures, strict=True)]
    }
    with memory_for(0, forward=0):
        status, answer = client.ask("POST", "/api/adapt", shown)
    assert status == 400
    assert "smaller images or a smaller network need less" in answer["error"]
    assert client.ask("POST", "/api/adapt", shown)[0] == 200


def test_pages_do_not_see_one_another(server: DemoServer, client: PageClient, photos: Path) -> None:
    client.adapt_to(photos)
    other = PageClient(server)
    with closing(other.connection):
        status, answer = other.ask("POST", "/api/classify", {"pictures": []})
        assert (status, "no classifier yet" in answer["error"]) == (400, True)
        classes = [{"name": "a", "pictures": ["1"]}, {"name": "b", "pictures": ["2"]}]
        status, answer = other.ask("POST", "/api/adapt", {"classes": classes})
        assert (status, answer["error"]) == (
            404, "there is no picture '1' on this page; reload the page",
        )  # fmt: skip


def test_many_at_once_get_the_answers_of_one(server: DemoServer, client: PageClient, photos: Path) -> None:
    client.adapt_to(photos)
    names = [name for name in CLASS_COLOURS for _ in range(6)]

    def ask(name: str) -> list[float]:
        own = PageClient.__new__(PageClient)
        own.connection, own.session = HTTPConnection(server.hosts[0]), client.session
        with closing(own.connection):
            picture = own.add(query_file(photos, name).read_bytes())
            answer = own.ask("POST", "/api/classify", {"pictures": [picture]})[1]
        row: list[float] = answer["probabilities"][0]
        return row

    with ThreadPoolExecutor(8) as pool:
        rows = list(pool.map(ask, names))
    assert rows == [ask(name) for name in names]


def test_a_removed_image_is_gone_and_may_be_removed_twice(client: PageClient) -> None:
    picture = client.add(jpeg_bytes(1))
    assert client.ask("DELETE", f"/api/pictures/{picture}") == (200, {})
    assert client.ask("DELETE", f"/api/pictures/{picture}") == (200, {})
    classes = [{"name": "a", "pictures": [picture]}, {"name": "b", "pictures": [picture]}]
    assert client.ask("POST", "/api/adapt", {"classes": classes})[0] == 404


def test_images_are_turned_upright_and_resized(client: PageClient, server: DemoServer) -> None:
    turned = Image.new("RGB", (600, 300), "white")
    turned.paste("black", (0, 0, 600, 150))
    exif = Image.Exif()
    exif[0x0112] = 6  # the top of the picture is at its left
    buffer = io.BytesIO()
    turned.save(buffer, "JPEG", exif=exif)
    picture = client.add(buffer.getvalue())
    kept = server.service.sessions.find(client.session).find(picture)
    pixels = np.asarray(kept.convert("L"))
    assert pixels.shape == (DEMO_SIZE, DEMO_SIZE)
    assert pixels[:, -8:].max() < 20
    assert pixels[:, :8].min() > 235


def huge_png() -> bytes:
    """A header that promises ten billion pixels."""
    parts = (b"IHDR" + struct.pack(">IIBBBBB", 100_000, 100_000, 8, 2, 0, 0, 0), b"IDAT")
    chunks = (struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts)
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"hello there", r"not a picture \(it starts with b'hello th'\); JPEG, PNG"),
        (b"", r"the file is empty"),
        (jpeg_bytes(1)[:400], r"(cannot be decoded|not a readable JPEG).+; JPEG, PNG"),
        (huge_png(), r"100000 x 100000 pixels are more than the limit of 67,108,864"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", r"HEIC or AVIF, which is not read here; save it as JPEG"),
    ],
)
def test_a_file_that_is_no_usable_image_is_refused_and_the_page_goes_on(
    data: bytes, message: str, client: PageClient
) -> None:
    status, answer = client.ask("POST", "/api/pictures", data)
    assert status == 422
    assert re.search(message, answer["error"])
    assert client.add(jpeg_bytes(2))


def classes(*shown: tuple[str, list[str]]) -> dict[str, Any]:
    return {"classes": [{"name": name, "pictures": pictures} for name, pictures in shown]}


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/api/adapt", classes(("cat", ["1"])), 400, "one class only, 'cat': there is nothing to"),
        ("/api/adapt", classes(("cat", ["1"]), ("dog", [])), 400, "there is none of 'dog'"),
        ("/api/adapt", classes(("cat", ["1"]), ("cat ", ["1"])), 400, "two classes are called 'cat'"),
        ("/api/adapt", classes((" ", ["1"]), ("dog", ["1"])), 400, "1 to 80 letters, got 0"),
        ("/api/adapt", classes(("x" * 81, ["1"]), ("dog", ["1"])), 400, "1 to 80 letters, got 81"),
        ("/api/adapt", classes(("cat", ["1"]), ("dog", ["9"])), 404, "there is no picture '9'"),
        ("/api/adapt", classes(("cat", ["1"] * 501)), 400, "at most 500 pictures"),
        ("/api/adapt", classes(("cat", ["1"] * 300), ("dog", ["1"] * 201)), 400, "pictures at a time, got 501"),
        ("/api/adapt", {"classes": {"cat": []}}, 400, "classes: Expected `array`, got `object`"),
        ("/api/adapt", {"classes": [{"name": 3, "pictures": []}]}, 400, "name: Expected `str`"),
        ("/api/adapt", {"classes": [{"name": "a"}]}, 400, "the request should be"),
        ("/api/adapt", {}, 400, "the request should be"),
        ("/api/adapt", {"class": []}, 400, "'class', which this version does not know"),
        ("/api/classify", {"pictures": {"1": 1}}, 400, "pictures: Expected `array`"),
        ("/api/adapt", "[" * 100_000, 400, "should be a JSON object"),
        ("/api/adapt", "[1]", 400, "should be a JSON object"),
        ("/api/adapt", b"\xff\xfe", 400, "should be a JSON object"),
        ("/api/adapt", b"", 400, "should be a JSON object"),
        ("/api/adapt", b" " * (2 << 20), 413, "2 MB are more than the limit of 1 MB"),
        ("/api/classify", {"pictures": []}, 400, "there is no classifier yet"),
        ("/api/pictures", bytes(MAX_IMAGE_BYTES + 1), 413, "more than the limit of 32 MB"),
        ("/api/nothing", {}, 404, "there is nothing at /api/nothing"),
        ("/../service.py", {}, 404, "there is nothing at /../service.py"),
        ("/api/classifier", {}, 405, "/api/classifier answers GET alone"),
        ("/page.js", {}, 405, "/page.js answers GET alone"),
    ],
)  # fmt: skip
def test_a_malformed_request_is_answered_with_a_sentence(
    path: str, body: object, status: int, message: str, client: PageClient
) -> None:
    assert client.add(jpeg_bytes(1)) == "1"
    code, answer = client.ask("POST", path, body)
    assert (code, message in answer["error"]) == (status, True), answer
    assert client.add(jpeg_bytes(2)) == "2"


@pytest.mark.parametrize("method", ["GET", "DELETE", "PUT", "OPTIONS", "HEAD"])
def test_other_methods_are_answered_in_the_same_form(method: str, client: PageClient) -> None:
    status, body = client.raw(method, "/api/session")
    assert status == {"GET": 405, "DELETE": 405}.get(method, 501)
    assert body == b"" if method == "HEAD" else json.loads(body)["error"]


def test_saving_needs_a_classifier(client: PageClient) -> None:
    status, answer = client.ask("GET", "/api/classifier")
    assert (status, "no classifier to save yet" in answer["error"]) == (400, True)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1", "127.0.0.1:1", ""])
def test_requests_to_another_host_name_are_refused(host: str, client: PageClient) -> None:
    for method, path in (("GET", "/"), ("POST", "/api/session")):
        status, answer = client.ask(method, path, Host=host)
        assert status == 421
        assert re.search(r"answers to http://127\.0\.0\.1:\d+/ alone", answer["error"])


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1", "https://{}"])
def test_requests_from_another_site_are_refused(origin: str, client: PageClient, server: DemoServer) -> None:
    place = server.hosts[0]
    for path in ("/api/session", "/api/pictures"):
        status, answer = client.ask("POST", path, jpeg_bytes(1), Origin=origin.format(place))
        assert (status, "may not use this page" in answer["error"]) == (403, True)
    for host in server.hosts:
        status, _ = client.ask("POST", "/api/pictures", jpeg_bytes(1), Host=host, Origin=f"http://{host}")
        assert status == 201


@pytest.mark.parametrize("key", ["", "guessed", "é"])
def test_every_request_needs_the_key_of_a_page(key: str, client: PageClient) -> None:
    for method, path in (("POST", "/api/pictures"), ("GET", "/api/classifier")):
        status, answer = client.ask(method, path, X_Session=key)
        assert (status, "reload the page" in answer["error"]) == (410, True)


@pytest.mark.parametrize("key", ["", "guessed", "é"])
def test_a_page_is_opened_by_those_alone_who_know_the_address_of_the_terminal(
    key: str, client: PageClient, server: DemoServer
) -> None:
    """Other users of the computer reach the port too."""
    status, answer = client.ask("POST", "/api/session", X_Key=key)
    assert (status, "open the address that its terminal shows" in answer["error"]) == (403, True)
    _, refusal = client.ask("GET", "/", Host="evil.example")
    assert server.key in server.url
    assert server.key not in refusal["error"]


def test_the_page_that_was_idle_for_longest_makes_room(server: DemoServer, client: PageClient) -> None:
    others = [PageClient(server) for _ in range(MAX_SESSIONS - 1)]
    assert client.add(jpeg_bytes(1))
    newest = PageClient(server)
    assert client.add(jpeg_bytes(1))
    assert others[0].ask("POST", "/api/pictures", jpeg_bytes(1))[0] == 410
    for other in (*others, newest):
        other.connection.close()


def test_a_page_holds_a_limited_number_of_images(server: DemoServer, client: PageClient) -> None:
    session = server.service.sessions.find(client.session)
    for _ in range(MAX_IMAGES):
        session.add(Image.new("RGB", (1, 1)))
    status, answer = client.ask("POST", "/api/pictures", jpeg_bytes(1))
    assert (status, f"a page holds {MAX_IMAGES} pictures" in answer["error"]) == (409, True)
    session.remove("7")
    assert client.add(jpeg_bytes(1))


@pytest.mark.parametrize(
    ("name", "value", "status"),
    [
        ("Content-Length", "-1", 400),
        ("Content-Length", "\u00b2", 400),
        ("Content-Length", "1" * 30, 400),
        ("Content-Length", ("5", "6"), 400),
        ("Content-Length", str(DISCARD_LIMIT_BYTES + 1), 413),
        ("Transfer-Encoding", "chunked", 411),
    ],
)
def test_a_body_of_unknown_or_boundless_length_ends_the_connection(
    name: str, value: str | tuple[str, ...], status: int, client: PageClient
) -> None:
    client.connection.putrequest("POST", "/api/pictures")
    client.connection.putheader("X-Session", client.session)
    for one in (value,) if isinstance(value, str) else value:
        client.connection.putheader(name, one)
    client.connection.endheaders()
    with client.connection.getresponse() as answer:
        assert (answer.status, answer.headers["Connection"]) == (status, "close")
        assert json.loads(answer.read())["error"]


def test_the_page_needs_nothing_from_elsewhere(server: DemoServer) -> None:
    assert set(server.files) == {
        "/", "/answers.js", "/api.js", "/camera.js", "/classes.js", "/files.js", "/icon.svg",
        "/page.css", "/page.js", "/uploads.js",
    }  # fmt: skip
    for path, reply in server.files.items():
        text = reply.body.decode().replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"https?:|//\w+\.|@import|url\(|innerHTML|style=|\son\w+=", text), path
        for link in re.findall(r'(?:src|href|from)[= ]"([^"]+)"', text):
            assert link in server.files
