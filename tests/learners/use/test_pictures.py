"""An image of any form gets the pixels that the builder would store."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, features

from learners.use.pictures import ImageInput, ImageInputs, image_names, list_images, load_pixels
from pipeline.build.builder import build_shards
from pipeline.errors import IntegrityError, SourceMissing, UsageError
from pipeline.records import DEFAULT_RESIZE, Encoding, Recipe, ResizeMethod
from pipeline.sources.folder import FolderSource
from pipeline.torch_datasets import ClassDataset
from tests.images import jpeg_bytes, make_image

SIZE = 24


def load(pictures: ImageInputs, how: ResizeMethod = DEFAULT_RESIZE) -> torch.Tensor:
    each = list_images(pictures)
    return load_pixels(each, SIZE, how, image_names(each))


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for each unusual image, all of different sizes."""
    root = tmp_path_factory.mktemp("odd")
    turned = Image.Exif()
    turned[0x0112] = 6
    ramp = np.linspace(0, 65535, 30 * 20).astype(np.uint16).reshape(30, 20)
    clear = make_image(7, 33, 44).convert("RGBA")
    clear.putalpha(make_image(8, 33, 44).convert("L"))
    palette = make_image(9, 25, 24).convert("P")
    files: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "colour.jpg": (make_image(1, 90, 41), {}), "grey.jpg": (make_image(2, 31, 57).convert("L"), {}),
        "print.jpg": (make_image(3, 70, 70).convert("CMYK"), {}),
        "turned.jpg": (make_image(4, 60, 20), {"exif": turned}), "same.png": (make_image(5, SIZE, SIZE), {}),
        "palette.gif": (palette, {"transparency": 3}), "clear.png": (clear, {}),
        "deep.png": (Image.fromarray(ramp), {}), "one.png": (make_image(6, 1, 1), {}),
        "bits.tiff": (make_image(10, 50, 22).convert("1"), {}), "web.webp": (make_image(11, 300, 20), {}),
    }  # fmt: skip
    if not features.check("webp"):
        del files["web.webp"]
    for name, (image, options) in files.items():
        (root / name).mkdir()
        image.save(root / name / name, **options)
    return root


@pytest.fixture(scope="module")
def stored(odd: Path, tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    """The same images as the builder stores them, in the order of their names."""
    return built(odd, tmp_path_factory.mktemp("built") / "odd", DEFAULT_RESIZE)


def built(odd: Path, out: Path, how: ResizeMethod) -> torch.Tensor:
    raw = Recipe(sizes=(SIZE,), encodings=(Encoding.parse("raw"),), resize=how.shape, filter=how.filter)
    build_shards(FolderSource(name="odd", root=odd), out, raw)
    data = ClassDataset(out, split="", image_size=SIZE)
    assert data.classes == sorted(path.name for path in odd.iterdir())
    return torch.stack([data[at][0] for at in np.argsort(data.labels)])


def test_files_have_the_pixels_that_the_builder_stores(odd: Path, stored: torch.Tensor) -> None:
    pixels = load(odd)
    assert pixels.dtype == torch.uint8
    assert torch.equal(pixels, stored)
    assert pixels.is_contiguous(memory_format=torch.channels_last)


def test_they_do_so_with_another_resize_method_too(odd: Path, tmp_path: Path) -> None:
    how = ResizeMethod("crop", "bicubic")
    assert torch.equal(load(odd, how), built(odd, tmp_path / "odd", how))
    assert not torch.equal(load(odd, how), load(odd))


def test_bytes_pil_images_and_text_paths_have_the_same_pixels(odd: Path, stored: torch.Tensor) -> None:
    files = sorted(odd.glob("*/*"))
    assert torch.equal(load([file.read_bytes() for file in files]), stored)
    opened = [Image.open(io.BytesIO(file.read_bytes())) for file in files]
    assert torch.equal(load(opened), stored)
    assert torch.equal(load([str(file) for file in files]), stored)
    mixed: list[ImageInput] = [str(files[0]), files[1], files[2].read_bytes(), opened[3]]
    assert torch.equal(load(mixed), stored[:4])


def test_an_opened_image_is_left_as_it_is(odd: Path) -> None:
    image = Image.open(odd / "turned.jpg" / "turned.jpg")
    before = image.size
    load(image)
    assert (image.size, image.getexif()[0x0112]) == (before, 6)


def test_tensors_are_taken_as_they_are_and_resized_if_need_be(stored: torch.Tensor) -> None:
    assert torch.equal(load(stored), stored)
    assert torch.equal(load(stored.contiguous()), stored)
    assert torch.equal(load(stored[0]), stored[:1])
    assert torch.equal(load(list(stored)), stored)
    wide = torch.from_numpy(np.array(make_image(1, 90, 41))).permute(2, 0, 1)
    assert torch.equal(load(wide), load(make_image(1, 90, 41)))


def test_a_folder_is_all_files_below_it_by_name_except_hidden_ones(tmp_path: Path) -> None:
    for name in ("b.jpg", "a/z.jpg", ".hidden/x.jpg", ".DS_Store", "Thumbs.db", "._b.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(jpeg_bytes(1))
    assert list_images(tmp_path) == [tmp_path / "a" / "z.jpg", tmp_path / "b.jpg"]
    assert len(list_images([tmp_path, str(tmp_path / "b.jpg")])) == 3


def test_every_picture_that_cannot_be_used_is_named_with_its_reason(tmp_path: Path) -> None:
    bad = {
        "text.jpg": b"hello there", "empty.jpg": b"", "cut.jpg": jpeg_bytes(1)[:200],
        "phone.heic": b"\0\0\0\x18ftypheic" + bytes(20),
    }  # fmt: skip
    for name, data in bad.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "good.jpg").write_bytes(jpeg_bytes(1))
    with pytest.raises(IntegrityError) as caught:
        load([tmp_path, Image.new("RGB", (0, 3))])
    message = str(caught.value)
    assert message.startswith("5 pictures cannot be used: ")
    for name, reason in {
        "text.jpg": "not a picture (it starts with b'hello", "empty.jpg": "the file is empty",
        "cut.jpg": "cannot be decoded", "phone.heic": "HEIC or AVIF.*save it as JPEG or PNG",
    }.items():  # fmt: skip
        assert f"{tmp_path / name}: {reason.partition('.*')[0]}" in message
    assert "picture 6: it has no pixels" in message
    assert "good.jpg" not in message


def test_a_damaged_picture_is_used_and_named(caplog: pytest.LogCaptureFixture) -> None:
    half = jpeg_bytes(1, 300, 300)[:2000] + b"\xff\xd9"
    assert load([half]).shape == (1, 3, SIZE, SIZE)
    assert "picture 1 is used with gaps, as its file is damaged: Corrupt JPEG data" in caplog.text


def test_a_pipe_and_a_huge_file_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with (tmp_path / "huge.jpg").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(
        IntegrityError, match=r"pipe\.jpg: the file is no regular file.*huge\.jpg: the file has"
    ):
        load([tmp_path / "pipe.jpg", tmp_path / "huge.jpg"])


def test_of_many_bad_pictures_the_first_are_named_and_the_rest_counted() -> None:
    with pytest.raises(IntegrityError, match=r"^8 pictures .*picture 5: .*; and 3 more; replace"):
        load([b"no"] * 8)


def test_a_damaged_file_that_pil_has_opened_and_not_read_is_an_error() -> None:
    lazy = Image.open(io.BytesIO(jpeg_bytes(1, 200, 200)[:1500]))
    with pytest.raises(IntegrityError, match=r"a picture cannot be used: picture 1: cannot be read"):
        load([lazy])


def test_values_that_are_no_images_are_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(SourceMissing, match=r"nowhere\.jpg: there is no such picture or folder"):
        list_images([tmp_path / "nowhere.jpg"])
    with pytest.raises(UsageError, match=r"uint8, N x 3 x H x W.*torch\.float32"):
        list_images(torch.rand(2, 3, 8, 8))
    with pytest.raises(UsageError, match=r"a shape of \(8, 8, 3\) for each"):
        list_images(torch.zeros(2, 8, 8, 3, dtype=torch.uint8))
    with pytest.raises(UsageError, match=r"not ndarray; PIL\.Image\.fromarray"):
        list_images([np.zeros((8, 8, 3), np.uint8)])  # type: ignore[list-item]
