"""What each open page has shown so far; bounded, so that no page can fill the memory."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from http import HTTPStatus
from threading import Lock
from typing import Final

from PIL import Image

from learners.demo.refused import Refused
from learners.use.classifier import PortableClassifier

SESSIONS: Final = 4  # pages; the one that was quiet for longest makes room
PICTURES: Final = 500  # of a page; 75 MB at 224 pixels
KEY_BYTES: Final = 16


@dataclass(slots=True, eq=False)
class Session:
    """One page's pictures, already as small as the learner takes them, and its latest classifier."""

    pictures: dict[str, Image.Image] = field(default_factory=dict)
    classifier: PortableClassifier | None = None
    lock: Lock = field(default_factory=Lock)
    made: int = 0
    """Pictures so far; gives each a name of its own."""

    def add(self, picture: Image.Image) -> str:
        """Keep a picture; its name."""
        with self.lock:
            self.check_room()
            self.made += 1
            name = str(self.made)
            self.pictures[name] = picture
            return name

    def check_room(self) -> None:
        """Before a picture is decoded, and once more before it is kept."""
        if len(self.pictures) >= PICTURES:
            raise Refused(
                HTTPStatus.CONFLICT,
                f"a page holds {PICTURES} pictures; remove some, or use learners.Learner for more",
            )

    def find(self, name: str) -> Image.Image:
        """The picture that `add` named."""
        try:
            return self.pictures[name]
        except KeyError:
            raise Refused(
                HTTPStatus.NOT_FOUND, f"there is no picture {name!r} on this page; reload the page"
            ) from None

    def remove(self, name: str) -> None:
        """Forget a picture; one that is not there is forgotten already."""
        with self.lock:
            self.pictures.pop(name, None)


class Sessions:
    """All open pages, by a key that only the page itself knows."""

    def __init__(self) -> None:
        self._open: OrderedDict[str, Session] = OrderedDict()
        self._lock = Lock()

    def open(self) -> str:
        """A new page's key."""
        key = secrets.token_urlsafe(KEY_BYTES)
        with self._lock:
            self._open[key] = Session()
            while len(self._open) > SESSIONS:
                self._open.popitem(last=False)
        return key

    def find(self, key: str) -> Session:
        """The page of that key."""
        with self._lock:
            session = self._open.get(key)
            if session is None:
                raise Refused(
                    HTTPStatus.GONE,
                    f"this page is no longer known: {SESSIONS} others were opened since, or the program "
                    "was started again; reload the page",
                )
            self._open.move_to_end(key)
            return session
