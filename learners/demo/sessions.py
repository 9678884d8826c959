"""The sessions of open pages; bounded, so that no page can fill the memory."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from http import HTTPStatus
from threading import Lock
from typing import Final

from PIL import Image

from learners.demo.refused import RefusedRequest
from learners.use.classifier import PortableClassifier

MAX_SESSIONS: Final = 4  # pages; the one that was idle for longest makes room
MAX_IMAGES: Final = 500  # of a page; 75 MB at 224 px
KEY_BYTES: Final = 16


@dataclass(slots=True, eq=False)
class PageSession:
    """One page's images, resized to what the learner takes, and its latest classifier."""

    images: dict[str, Image.Image] = field(default_factory=dict)
    classifier: PortableClassifier | None = None
    lock: Lock = field(default_factory=Lock)
    added: int = 0
    """Images so far; gives each a name of its own."""

    def add(self, image: Image.Image) -> str:
        """Keep an image; returns its name."""
        with self.lock:
            self.check_room()
            self.added += 1
            name = str(self.added)
            self.images[name] = image
            return name

    def check_room(self) -> None:
        """Refuse another image on a full page: before it is decoded, and again before it is kept."""
        if len(self.images) >= MAX_IMAGES:
            raise RefusedRequest(
                HTTPStatus.CONFLICT,
                f"a page holds {MAX_IMAGES} pictures; remove some, or use learners.Learner for more",
            )

    def find(self, name: str) -> Image.Image:
        """The image that `add` gave this name."""
        try:
            return self.images[name]
        except KeyError:
            raise RefusedRequest(
                HTTPStatus.NOT_FOUND, f"there is no picture {name!r} on this page; reload the page"
            ) from None

    def remove(self, name: str) -> None:
        """Forget an image, if it is still there."""
        with self.lock:
            self.images.pop(name, None)


class SessionTable:
    """The sessions of all open pages, by a key that only the page itself knows."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, PageSession] = OrderedDict()
        self._lock = Lock()

    def open(self) -> str:
        """Open a session; returns its key."""
        key = secrets.token_urlsafe(KEY_BYTES)
        with self._lock:
            self._open[key] = PageSession()
            while len(self._open) > MAX_SESSIONS:
                self._open.popitem(last=False)
        return key

    def find(self, key: str) -> PageSession:
        """The session of a key."""
        with self._lock:
            session = self._open.get(key)
            if session is None:
                raise RefusedRequest(
                    HTTPStatus.GONE,
                    f"this page is no longer known: {MAX_SESSIONS} others were opened since, or the program "
                    "was started again; reload the page",
                )
            self._open.move_to_end(key)
            return session
