"""In a real browser images are dropped, adapted to and classified; errors are shown on the page."""

from __future__ import annotations

import tarfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from learners.demo.server import DemoServer
from learners.use.classifier import Learner, PortableClassifier
from tests.browser import BROWSER, HeadlessBrowser
from tests.learners.demo.serving import CLASS_COLOURS, query_file, served, support_files

pytestmark = pytest.mark.skipif(not BROWSER, reason="no Chromium is installed")
TILES = "document.querySelectorAll('.tiles [data-picture]').length"
ADAPTED = "document.getElementById('state').textContent.startsWith('Adapted')"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HeadlessBrowser]:
    with closing(HeadlessBrowser(tmp_path_factory.mktemp("browser"))) as browser:
        yield browser


@pytest.fixture
def page(running: HeadlessBrowser, server: DemoServer) -> HeadlessBrowser:
    """A new page."""
    running.open(server.url)
    running.wait("document.getElementById('about').textContent")
    running.problems.clear()
    return running


def show_all(page: HeadlessBrowser, photos: Path) -> None:
    """Name two classes and drop pictures into them; drop the third as a folder."""
    for at, name in enumerate([*CLASS_COLOURS][:2]):
        page.run(f"document.querySelectorAll('.name')[{at}].focus()")
        page.type(name)
        page.drop(f".card:nth-child({at + 1})", support_files(photos, name))
        page.wait(f"{TILES} === {5 * (at + 1)}")
    page.drop("#more", [photos / "sky"])
    page.wait(f"{TILES} === 16")


def answers(page: HeadlessBrowser) -> list[tuple[str, str, dict[str, int]]]:
    """Of each answer: the picture, the class, and the bars in per cent."""
    found = page.run(
        "[...document.querySelectorAll('.answer')].map((card) => [card.querySelector('img').alt,"
        "card.querySelector('.best').innerText, [...card.querySelectorAll('.bars li')].map((bar) =>"
        "[bar.querySelector('.label').innerText, bar.querySelector('.percent').innerText])])"
    )
    return [
        (name, best, {label: int(text.strip("<% ")) for label, text in bars}) for name, best, bars in found
    ]


def test_pictures_are_dropped_adapted_to_and_asked_about(page: HeadlessBrowser, photos: Path) -> None:
    show_all(page, photos)
    page.click("#adapt")
    page.wait(ADAPTED)
    assert page.text("#state").startswith("Adapted to 16 pictures of 3 classes in ")
    page.drop("#query", [query_file(photos, name) for name in CLASS_COLOURS])
    page.wait("document.querySelectorAll('.answer .bars li').length === 9")
    found = answers(page)
    assert [(name, best) for name, best, _ in found] == [
        (f"{name} 5.jpg", name) for name in reversed(CLASS_COLOURS)
    ]
    for _, best, bars in found:
        assert set(bars) == set(CLASS_COLOURS)
        assert max(bars, key=bars.__getitem__) == best
        assert 98 <= sum(bars.values()) <= 102
    assert page.problems == []
    looks_right(page)


def looks_right(page: HeadlessBrowser) -> None:
    """At every width, light and dark: pictures are drawn, nothing stands out at the side."""
    for width, dark in ((1280, False), (1280, True), (400, False), (400, True)):
        page.set_screen(width=width, height=900, dark=dark)
        assert page.run("document.documentElement.scrollWidth <= innerWidth")
        pixels = np.asarray(page.screenshot(), np.int16)
        paper = (20, 22, 26) if dark else (252, 252, 250)
        assert tuple(pixels[2, 2]) == paper
        for colour in CLASS_COLOURS.values():
            assert (abs(pixels - colour).max(2) < 12).sum() > 200, (width, dark, colour)
    page.set_screen(width=1280, height=900, dark=False)


def test_the_saved_classifier_is_downloaded_and_answers_elsewhere(
    page: HeadlessBrowser, photos: Path
) -> None:
    show_all(page, photos)
    page.click("#adapt")
    page.wait(ADAPTED)
    page.click("#save")
    file = page.downloads / "classifier.safetensors"
    end = time.monotonic() + 30
    while not file.is_file() and time.monotonic() < end:
        time.sleep(0.02)
    loaded = PortableClassifier.load(file, "cpu")
    assert loaded.classes == (*CLASS_COLOURS,)
    files = [query_file(photos, name) for name in CLASS_COLOURS]
    assert [answer.name for answer in loaded.classify(files)] == [*CLASS_COLOURS]
    file.unlink()


def test_a_change_of_classes_outdates_answers_until_the_next_adapt(
    page: HeadlessBrowser, photos: Path
) -> None:
    page.drop("#query", [query_file(photos, "ruby")])
    page.wait("document.querySelector('.answer[data-picture]') !== null")
    assert page.text(".best") == "Adapt, and the answer comes."
    show_all(page, photos)
    page.click("#adapt")
    page.wait(ADAPTED)
    assert page.text(".best") == "ruby"
    page.click(".card .remove")
    assert page.text("#state") == "The classes have changed: adapt again."
    assert page.run("document.getElementById('save').hidden")
    assert page.run("document.getElementById('answers').classList.contains('old')")
    assert page.run("document.activeElement.value") == "leaf"
    page.click("#adapt")
    page.wait(ADAPTED)
    assert set(answers(page)[0][2]) == {"leaf", "sky"}
    assert not page.run("document.getElementById('answers').classList.contains('old')")
    assert page.problems == []


def test_adapt_waits_for_pictures_on_their_way(page: HeadlessBrowser, photos: Path, tmp_path: Path) -> None:
    for name in ("ruby", "leaf"):  # large enough that they take a while
        with Image.open(query_file(photos, name)) as small:
            small.resize((3000, 2000)).save(tmp_path / f"{name}.jpg")
    page.choose(".card input[type=file]", [tmp_path / "ruby.jpg"])
    page.choose(".card:nth-child(2) input[type=file]", [tmp_path / "leaf.jpg"])
    assert page.run(TILES) < 2
    page.run("document.getElementById('adapt').click()")
    page.wait(ADAPTED)
    assert page.text("#state").startswith("Adapted to 2 pictures of 2 classes in ")


def test_files_that_cannot_be_used_are_named_where_they_were_dropped(
    page: HeadlessBrowser, photos: Path
) -> None:
    page.drop(".card", [photos / "notes.txt", *support_files(photos, "ruby")])
    page.wait(f"{TILES} === 5")
    message = page.wait("document.querySelector('.card .problem').textContent")
    assert message.startswith("notes.txt: Not a picture (it starts with b'no pictu'); JPEG, PNG")
    assert page.text(".count") == "5 pictures"
    page.choose("#query input", [photos / "notes.txt"])
    assert "notes.txt: Not a" in page.wait("document.querySelector('#query .problem').textContent")
    assert page.run("document.querySelectorAll('.answer').length") == 0
    page.drop(".card", [query_file(photos, "ruby")])
    page.wait(f"{TILES} === 6")
    assert page.run("document.querySelector('.card .problem').hidden")


def test_what_is_missing_is_named_and_focused(page: HeadlessBrowser, photos: Path) -> None:
    def refusal() -> str:
        page.click("#adapt")
        message: str = page.wait("document.getElementById('trouble').textContent")
        return message

    focused = "document.activeElement.ariaLabel"
    assert refusal() == "There are no pictures yet."
    page.choose(".card input[type=file]", support_files(photos, "ruby"))
    page.wait(f"{TILES} === 5")
    assert page.run("document.getElementById('trouble').hidden")
    assert refusal() == "“Class 2” has no pictures. Add some, or remove the class."
    assert page.run(focused) == "Choose pictures of Class 2"
    page.run("document.querySelectorAll('.name')[1].focus()")
    page.type("Class 1")
    assert refusal() == "Two classes are called “Class 1”."
    page.click(".card:nth-child(2) .remove")
    assert refusal() == "One class only: there is nothing to tell apart. Add a second one."
    assert page.run("document.activeElement.id") == "add"
    assert page.problems == []


def test_everything_has_a_name_and_works_from_the_keyboard(page: HeadlessBrowser, photos: Path) -> None:
    page.choose(".card input[type=file]", support_files(photos, "ruby"))
    page.wait(f"{TILES} === 5")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    roles = ("button", "textbox", "image", "group", "list", "main", "region", "status", "alert")
    named = [
        (node["role"]["value"], node.get("name", {}).get("value", ""))
        for node in nodes
        if not node["ignored"] and node["role"]["value"] in roles
    ]
    assert {role for role, _ in named} >= {"button", "textbox", "image", "group", "region"}
    unnamed = [
        role for role, name in named if role in ("button", "textbox", "image", "group", "region") and not name
    ]
    assert unnamed == []
    assert ("button", "Remove ruby 0.jpg") in named
    assert ("textbox", "Name of the class") in named
    page.run("document.querySelector('.name').focus()")
    for _ in range(2):  # past the class' own button, to the first picture's
        page.press("Tab")
    page.press("Enter")
    page.wait(f"{TILES} === 4")
    assert page.run("document.activeElement.ariaLabel") == "Remove ruby 1.jpg"
    page.run("document.getElementById('add').focus()")
    page.press("Space")
    assert page.run("document.activeElement.value") == "Class 3"
    page.type("pebble")
    assert page.run("document.querySelector('.card:nth-child(3)').ariaLabel") == "pebble"


def test_the_camera_takes_pictures_of_a_class_and_to_ask_about(page: HeadlessBrowser) -> None:
    page.click(".card .photograph")
    for count in (1, 2):
        page.wait("!document.querySelector('.shoot').disabled")
        page.press("Space")
        page.wait(f"{TILES} === {count}")
    page.click("#camera .close")
    assert not page.run("document.getElementById('camera').open")
    page.wait("document.querySelector('video').srcObject === null")
    page.click("#query .photograph")
    page.wait("!document.querySelector('.shoot').disabled")
    page.press("Enter")
    page.wait("document.querySelector('.answer[data-picture]') !== null")
    assert not page.run("document.getElementById('camera').open")
    assert page.problems == []


def test_a_server_that_has_ended_is_an_error_on_the_page(page: HeadlessBrowser, photos: Path) -> None:
    page.call("Network.enable")
    page.call(
        "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=-1,
        uploadThroughput=-1,
    )  # fmt: skip
    page.drop(".card", support_files(photos, "ruby")[:1])
    message = page.wait("document.querySelector('.card .problem').textContent")
    assert message.endswith("The server does not answer. Is python -m learners.demo still running?")
    page.call("Network.disable")


def test_real_photographs_are_told_apart(running: HeadlessBrowser, real_data: Path, tmp_path: Path) -> None:
    names = ("dalmatian", "laptop", "strawberry")
    with tarfile.open(real_data / "caltech101" / "101_ObjectCategories_50.tar") as tar:
        for member in tar:
            folder, file = Path(member.name).parts[-2:] if member.isfile() else ("", "")
            if folder in names and "image_0001.jpg" <= file <= "image_0006.jpg":
                (tmp_path / folder).mkdir(exist_ok=True)
                data = tar.extractfile(member)
                assert data is not None
                (tmp_path / folder / file).write_bytes(data.read())
    weights = real_data / "weights" / "mobilenetv1_075_224.safetensors"
    for name in names:
        (tmp_path / name / "image_0006.jpg").rename(tmp_path / f"{name}.jpg")
    learner = Learner.pretrained("mobilenetv1_075", weights=weights, device="cpu")
    with served(learner) as server:
        running.open(server.url)
        running.wait("document.getElementById('about').textContent")
        running.drop("#more", [tmp_path / name for name in names])
        running.wait(f"{TILES} === 15")
        running.click("#adapt")
        running.wait(ADAPTED)
        running.drop("#query", [tmp_path / f"{name}.jpg" for name in names])
        running.wait("document.querySelectorAll('.answer .bars li').length === 9")
        found = {name: best for name, best, _ in answers(running)}
        assert found == {f"{name}.jpg": name for name in names}
