"""The fonts of sheets, also where Pillow was built without FreeType."""

from __future__ import annotations

from typing import Any, TypeAlias

from PIL import ImageFont, features

Font: TypeAlias = ImageFont.FreeTypeFont | ImageFont.ImageFont


class BitmapFont(ImageFont.ImageFont):
    """Pillow's built-in bitmap font: one size, Latin-1, and placed by anchors as FreeType's fonts are."""

    def __init__(self) -> None:
        vars(self).update(vars(ImageFont.load_default_imagefont()))

    def getlength(self, text: str | bytes | bytearray, *_: Any, **__: Any) -> int:
        return super().getlength(_latin(text))

    def getmask2(
        self, text: str, mode: str, *, anchor: str | None = None, **_: Any
    ) -> tuple[Any, tuple[int, int]]:
        """The letters, and where their upper left corner lies from the anchor."""
        mask = self.getmask(_latin(text), mode)
        width, height = mask.size
        halves = ("lmr".index((anchor or "la")[0]), "ams".index((anchor or "la")[1]))
        return mask, (-width * halves[0] // 2, -height * halves[1] // 2)


def _latin(text: str | bytes | bytearray) -> bytes:
    return text.encode("latin-1", "replace") if isinstance(text, str) else bytes(text)


def load_font(size: int) -> Font:
    """Pillow's own font of a size in pixels; the bitmap font where there is no FreeType."""
    return ImageFont.load_default(size) if features.check("freetype2") else BitmapFont()
