"""What the page can request, without HTTP: keep images, adapt to classes, classify, save the classifier."""

from __future__ import annotations

import base64
import io
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from threading import BoundedSemaphore
from typing import Any, Final

from PIL import Image

from learners.demo.refused import RefusedRequest
from learners.demo.sessions import MAX_IMAGES, PageSession, SessionTable
from learners.use.classifier import Learner, PortableClassifier
from learners.use.pictures import refuse_phone_formats
from pipeline.build.images import DECODE_ERRORS, clean_image, resize_to_square
from pipeline.errors import IntegrityError, UsageError
from pipeline.records import Item

MAX_IMAGE_BYTES: Final = 32 << 20
MAX_NAME_LETTERS: Final = 80
THUMBNAIL_PIXELS: Final = 192  # of the longer side; sharp on screens with two pixels per point
THUMBNAIL_QUALITY: Final = 85
DECODING_AT_ONCE: Final = 2  # images; a large one takes 200 MB while it is whole
WAIT_SECONDS: Final = 60.0  # for other pages' images and computations, before a request is refused
READABLE_FORMATS: Final = "JPEG, PNG, GIF, BMP, PPM, WebP and TIFF are read"


@dataclass(frozen=True, slots=True)
class NamedImages:
    """A class in an `AdaptRequest`."""

    name: str
    pictures: list[str]


@dataclass(frozen=True, slots=True)
class AdaptRequest:
    """The JSON of a request to adapt; images go by the names that `DemoService.add` gave them."""

    classes: list[NamedImages]


@dataclass(frozen=True, slots=True)
class ClassifyRequest:
    """The JSON of a request to classify images."""

    pictures: list[str]


class DemoService:
    """A learner and the pages that use it; threads may call it at the same time."""

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        self.sessions = SessionTable()
        self._decoding = BoundedSemaphore(DECODING_AT_ONCE)
        self._computing = BoundedSemaphore(1)  # two would take twice the memory and no less time

    def open(self) -> dict[str, Any]:
        """Open a session for a new page: its key, the learner and the limits."""
        about = self.learner.info
        device = next(self.learner.net.parameters()).device.type
        return {
            "session": self.sessions.open(),
            "learner": f"{about.learner}, {about.backbone}, {about.image_size} px, {device}",
            "picture_bytes": MAX_IMAGE_BYTES,
            "pictures": MAX_IMAGES,
        }

    def add(self, session: PageSession, data: bytes) -> dict[str, Any]:
        """Keep an image, resized as the pipeline does; the answer has its name and a thumbnail."""
        session.check_room()
        about = self.learner.info
        with _turn(self._decoding):
            image = _decode_upright(data)
            small = resize_to_square(image, about.image_size, about.resizing)
            image.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS), Image.Resampling.LANCZOS)
        return {"picture": session.add(small), "thumbnail": _data_uri(image)}

    def adapt(self, session: PageSession, request: AdaptRequest) -> dict[str, Any]:
        """Adapt to the classes of a request and keep the classifier in the session."""
        _check_count(sum(len(one.pictures) for one in request.classes))
        names = [_checked_name(one.name) for one in request.classes]
        if len(set(names)) < len(names):
            twice, _ = Counter(names).most_common(1)[0]
            raise UsageError(f"two classes are called {twice!r}; give each a name of its own")
        by_class = {
            name: [session.find(picture) for picture in one.pictures]
            for name, one in zip(names, request.classes, strict=True)
        }
        with _turn(self._computing):
            begin = time.perf_counter()
            session.classifier = self.learner.adapt(by_class)
            seconds = time.perf_counter() - begin
        return {"classes": names, "seconds": seconds}

    def classify(self, session: PageSession, request: ClassifyRequest) -> dict[str, Any]:
        """The classes' probabilities, a row for each image of a request."""
        classifier = _classifier_of(session, "yet")
        _check_count(len(request.pictures))
        queries = [session.find(picture) for picture in request.pictures]
        with _turn(self._computing):
            probabilities = classifier(queries)
        return {"classes": classifier.classes, "probabilities": probabilities.tolist()}

    def classifier_file(self, session: PageSession) -> bytes:
        """The session's classifier as a file that `PortableClassifier.load` reads."""
        classifier = _classifier_of(session, "to save yet")
        with _turn(self._computing):
            return classifier.packed("the classifier of this page")


@contextmanager
def _turn(places: BoundedSemaphore) -> Iterator[None]:
    """Wait for a place that other requests hold, for a limited time: threads must not pile up."""
    if not places.acquire(timeout=WAIT_SECONDS):
        raise RefusedRequest(
            HTTPStatus.SERVICE_UNAVAILABLE,
            f"other requests have taken more than {WAIT_SECONDS:.0f} s; try again in a while",
        )
    try:
        yield
    finally:
        places.release()


def _decode_upright(data: bytes) -> Image.Image:
    """An image upright in RGB, decoded by the pipeline's decoder within its limits."""
    refuse_phone_formats(data)
    try:
        return clean_image(data, Item(name="", class_id=0))
    except IntegrityError as error:
        raise IntegrityError(f"{error}; {READABLE_FORMATS}") from error
    except DECODE_ERRORS as error:
        raise IntegrityError(f"cannot be decoded: {error}; {READABLE_FORMATS}") from error


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=THUMBNAIL_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _classifier_of(session: PageSession, purpose: str) -> PortableClassifier:
    if session.classifier is None:
        raise UsageError(f"there is no classifier {purpose}; adapt to the classes first")
    return session.classifier


def _checked_name(name: str) -> str:
    """The name of a class, without spaces around it."""
    name = " ".join(name.split())
    if not 1 <= len(name) <= MAX_NAME_LETTERS:
        raise UsageError(f"a class has a name of 1 to {MAX_NAME_LETTERS} letters, got {len(name)}; name it")
    return name


def _check_count(pictures: int) -> None:
    if pictures > MAX_IMAGES:
        raise UsageError(f"at most {MAX_IMAGES} pictures at a time, got {pictures}")
