"""All that the page can ask for, without HTTP: pictures are taken, classes adapted to, queries answered."""

from __future__ import annotations

import base64
import io
import tempfile
import time
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path
from threading import BoundedSemaphore, Lock
from typing import Any, Final

from PIL import Image

from learners.demo.refused import Refused
from learners.demo.sessions import PICTURES, Session, Sessions
from learners.use.classifier import Learner
from learners.use.pictures import refuse_phone_formats
from pipeline.build.images import DECODE_ERRORS, clean, resized
from pipeline.errors import IntegrityError, UsageError
from pipeline.records import Item

PICTURE_BYTES: Final = 32 << 20
NAME_LETTERS: Final = 80
THUMBNAIL: Final = 192  # pixels of the longer side; sharp on screens with two pixels per point
THUMBNAIL_QUALITY: Final = 85
DECODING: Final = 2  # pictures at a time; a large one takes 200 MB while it is whole
READABLE: Final = "JPEG, PNG, GIF, BMP, PPM, WebP and TIFF are read"


class Service:
    """A learner and the pages that use it. Threads may ask at the same time."""

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        self.sessions = Sessions()
        self._decoding = BoundedSemaphore(DECODING)
        self._computing = Lock()  # two at a time would take twice the memory and no less time

    def open(self) -> dict[str, Any]:
        """A new page: its key, and what it should know."""
        about = self.learner.about
        device = next(self.learner.net.parameters()).device.type
        return {
            "session": self.sessions.open(),
            "learner": f"{about.learner}, {about.backbone}, {about.image_size} px, {device}",
            "picture_bytes": PICTURE_BYTES,
            "pictures": PICTURES,
        }

    def add(self, session: Session, data: bytes) -> dict[str, Any]:
        """Keep an encoded picture, resized as the pipeline does; a small copy to look at goes back."""
        session.check_room()
        about = self.learner.about
        with self._decoding:
            image = _opened(data)
            small = resized(image, about.image_size, about.resizing)
            image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
        return {"picture": session.add(small), "thumbnail": _data_uri(image)}

    def adapt(self, session: Session, asked: dict[str, Any]) -> dict[str, Any]:
        """A classifier from `{"classes": [{"name": ..., "pictures": [...]}, ...]}`."""
        shown = _classes(asked)
        names = [name for name, _ in shown]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise UsageError(f"two classes are called {twice!r}; give each a name of its own")
        by_class = {name: [session.find(one) for one in pictures] for name, pictures in shown}
        with self._computing:
            begin = time.perf_counter()
            session.classifier = self.learner.adapt(by_class)
            seconds = time.perf_counter() - begin
        return {"classes": names, "seconds": seconds}

    def classify(self, session: Session, asked: dict[str, Any]) -> dict[str, Any]:
        """Probabilities of `{"pictures": [...]}`, a row for each."""
        classifier = session.classifier
        if classifier is None:
            raise UsageError("there is no classifier yet; adapt to the classes first")
        queries = [session.find(name) for name in _names(asked.get("pictures"))]
        with self._computing:
            probabilities = classifier(queries)
        return {"classes": classifier.classes, "probabilities": probabilities.tolist()}

    def saved(self, session: Session) -> bytes:
        """The classifier as a file that `PortableClassifier.load` reads."""
        classifier = session.classifier
        if classifier is None:
            raise UsageError("there is no classifier to save yet; adapt to the classes first")
        with tempfile.TemporaryDirectory() as folder, self._computing:
            path = Path(folder) / "classifier.safetensors"
            classifier.save(path)
            return path.read_bytes()


def _opened(data: bytes) -> Image.Image:
    """Upright RGB, by the pipeline's own decoder with its limits."""
    refuse_phone_formats(data)
    try:
        return clean(data, Item(name="", class_id=0))
    except IntegrityError as error:
        raise IntegrityError(f"{error}; {READABLE}") from error
    except DECODE_ERRORS as error:
        raise IntegrityError(f"cannot be decoded: {error}; {READABLE}") from error


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=THUMBNAIL_QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _classes(asked: dict[str, Any]) -> list[tuple[str, Sequence[str]]]:
    """Names and pictures; whatever else was sent is refused."""
    classes = asked.get("classes")
    if not isinstance(classes, list) or not all(isinstance(one, dict) for one in classes):
        raise _misunderstood()
    return [(_name(one.get("name")), _names(one.get("pictures"))) for one in classes]


def _name(name: object) -> str:
    if not isinstance(name, str):
        raise _misunderstood()
    name = " ".join(name.split())
    if not 1 <= len(name) <= NAME_LETTERS:
        raise UsageError(
            f"a class has a name of 1 to {NAME_LETTERS} letters, got {len(name)}; name it"
        )
    return name


def _names(pictures: object) -> list[str]:
    if not isinstance(pictures, list) or not all(isinstance(one, str) for one in pictures):
        raise _misunderstood()
    if len(pictures) > PICTURES:
        raise UsageError(f"at most {PICTURES} pictures at a time, got {len(pictures)}")
    return pictures


def _misunderstood() -> Refused:
    return Refused(
        HTTPStatus.BAD_REQUEST,
        'the request should be {"classes": [{"name": ..., "pictures": [...]}, ...]} or {"pictures": [...]}, '
        "and is not; reload the page",
    )
