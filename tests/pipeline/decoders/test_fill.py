"""From stored bytes to pixels, by every decoder: the same pixels, the same faults."""

from __future__ import annotations

import gc
import io
import os
import weakref
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.decoders.base import ChunkDecoder
from pipeline.decoders.choose import DecoderName, has_dali, open_decoder
from pipeline.errors import SourceMissing, UsageError
from pipeline.shardset import ShardSet
from pipeline.store.local import LocalStore, locate_samples
from tests.images import make_image
from tests.pipeline.decoders.planted import (
    SIZE,
    decode_all,
    decode_by_pillow,
    image_bytes,
    job_for,
    make_jpegs,
    npy_bytes,
    open_cpu_decoder,
    write_shard,
)

NAMES: list[DecoderName] = ["turbo", "dali"] if has_dali() else ["turbo"]


UNCOMPILED = ("turbo uncompiled", "turbo uncompiled mapped")


@pytest.fixture(
    params=[f"{name}{kind}" for name in NAMES for kind in ("", " mapped")] + [*UNCOMPILED], scope="module"
)
def decoder(request: pytest.FixtureRequest) -> Iterator[ChunkDecoder]:
    """All ways from bytes to pixels; "uncompiled" is turbo where native.c could not be compiled."""
    name, *kinds = request.param.split()
    with pytest.MonkeyPatch.context() as patch, open_cpu_decoder(name, mapped="mapped" in kinds) as decoder:
        if "uncompiled" in kinds:
            patch.setattr("pipeline.decoders.fill.native", None)
        yield decoder


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [17, 84, 224])
@pytest.mark.parametrize("subsampling", ["4:2:0", "4:2:2", "4:4:4"])
def test_jpeg_pixels_are_pillows_exactly(
    name: DecoderName, size: int, subsampling: str, tmp_path: Path
) -> None:
    pictures = make_jpegs(20, size, subsampling=subsampling)
    with open_cpu_decoder(name, size=size) as decoder:
        images, faults = decode_all(decoder, write_shard(tmp_path, pictures, size=size))
    assert not faults
    assert np.array_equal(images.numpy(), decode_by_pillow(pictures))


def test_noise_grey_progressive_and_rgb_jpegs_are_pillows_exactly(
    decoder: ChunkDecoder, tmp_path: Path
) -> None:
    noise = make_image(0, SIZE, SIZE).effect_spread(40)
    pictures = [
        image_bytes(noise, quality=95),
        image_bytes(noise.convert("L"), quality=95),
        image_bytes(noise, quality=95, progressive=True),
        image_bytes(noise, quality=95, keep_rgb=True),
        image_bytes(noise, quality=20, restart_marker_blocks=4),
    ]
    images, faults = decode_all(decoder, write_shard(tmp_path, pictures))
    assert not faults
    assert np.array_equal(images.numpy(), decode_by_pillow(pictures))


@pytest.mark.parametrize("form", ["raw", "png"])
def test_raw_and_png_are_what_was_stored(decoder: ChunkDecoder, tmp_path: Path, form: str) -> None:
    images = [make_image(seed, SIZE, SIZE) for seed in range(70)]
    stored = [
        npy_bytes(np.asarray(image)) if form == "raw" else image_bytes(image, "PNG") for image in images
    ]
    found, faults = decode_all(decoder, write_shard(tmp_path, stored, form))
    assert not faults
    assert np.array_equal(found.numpy(), np.stack([np.asarray(image) for image in images]))


def test_a_built_dataset_decodes_at_each_of_its_sizes(built: Path) -> None:
    dataset = ShardSet.open(built)["pets"]
    for size, extension in ((24, "npy"), (48, "jpg")):
        locations = locate_samples(dataset, size, np.arange(60)[::-1])
        with open_cpu_decoder("turbo", size=size) as decoder:
            images, faults = decode_all(decoder, locations)
        assert not faults
        for at in (0, 31, 59):
            with locations.file(at).open("rb") as file:
                file.seek(locations.offsets[at])
                data = file.read(locations.lengths[at])
            needed = np.load(io.BytesIO(data)) if extension == "npy" else decode_by_pillow([data])[0]
            assert np.array_equal(images[at].numpy(), needed)


def bad_jpegs() -> dict[str, tuple[bytes, str]]:
    sound = make_jpegs(1)[0]
    return {
        "empty": (b"", "cannot be decoded"),
        "text": (b"this is no picture at all\n" * 20, "cannot be decoded"),
        "zeros": (bytes(2000), "cannot be decoded"),
        "header only": (sound[:100], "cannot be decoded"),
        "truncated": (sound[: len(sound) * 2 // 3], "cannot be decoded"),
        "smaller": (image_bytes(make_image(0, 40, 48)), "40 x 48"),
        "turned": (image_bytes(make_image(0, 48, 40)), "48 x 40"),
        "larger": (image_bytes(make_image(0, 480, 480)), "480"),
        "PNG": (image_bytes(make_image(0, SIZE, SIZE), "PNG"), "cannot be decoded"),
    }


@pytest.mark.parametrize("kind", bad_jpegs())
def test_a_bad_jpeg_is_a_fault_and_its_neighbours_are_exact(
    kind: str, decoder: ChunkDecoder, tmp_path: Path
) -> None:
    pictures = make_jpegs(40)
    needed = decode_by_pillow(pictures)
    pictures[3], reason = bad_jpegs()[kind]
    pictures[39] = pictures[3]
    needed[[3, 39]] = 0
    images, faults = decode_all(decoder, write_shard(tmp_path, pictures))
    assert [fault.at for fault in faults] == [3, 39]
    assert all(reason in fault.reason for fault in faults)
    assert "sample 000000003" in faults[0].reason
    assert np.array_equal(images.numpy(), needed)


def test_cmyk_is_turned_into_rgb_by_turbo_and_refused_before_dali(tmp_path: Path) -> None:
    locations = write_shard(tmp_path, [image_bytes(make_image(0, SIZE, SIZE).convert("CMYK"))])
    found = {}
    for name in NAMES:
        with open_cpu_decoder(name) as decoder:
            found[name] = decode_all(decoder, locations)
    assert not found["turbo"][1]
    if "dali" in found:
        assert "CMYK" in found["dali"][1][0].reason


class Trap:
    """Unpickling it would say so."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (pytest.fail, ("something was unpickled",))


def bad_raws() -> dict[str, bytes]:
    sound = npy_bytes(np.asarray(make_image(0, SIZE, SIZE)))
    pickled = io.BytesIO()
    np.save(pickled, np.array([Trap()] * (SIZE * SIZE * 3), object), allow_pickle=True)
    return {
        "short": sound[:-1],
        "long": sound + b"\0",
        "empty": b"",
        "pixels alone": sound[128:],
        "no magic": b"x" + sound[1:],
        "damaged header": sound[:20] + b"\0\0" + sound[22:],
        "open bracket": sound[:10] + b"(" + sound[11:],
        "another order": npy_bytes(np.zeros((SIZE, SIZE, 3), np.uint8, order="F")[:, ::1].T.copy().T),
        "signed": npy_bytes(np.zeros((SIZE, SIZE, 3), np.int8)),
        "channels first": npy_bytes(np.zeros((3, SIZE, SIZE), np.uint8)),
        "another version": sound[:6] + b"\x03\0" + sound[8:],
        "huge header": sound[:8] + b"\xff\xff" + sound[10:],
        "pickled": pickled.getvalue()[: len(sound)].ljust(len(sound), b"."),
    }


@pytest.mark.parametrize("kind", bad_raws())
def test_a_bad_raw_is_a_fault_and_its_neighbours_are_exact(
    kind: str, decoder: ChunkDecoder, tmp_path: Path
) -> None:
    needed = np.stack([np.asarray(make_image(seed, SIZE, SIZE)) for seed in range(5)])
    stored = [npy_bytes(pixels) for pixels in needed]
    stored[2] = bad_raws()[kind]
    needed[2] = 0
    images, faults = decode_all(decoder, write_shard(tmp_path, stored, "raw"))
    assert [fault.at for fault in faults] == [2]
    assert "no .npy picture" in faults[0].reason
    assert np.array_equal(images.numpy(), needed)


@pytest.mark.parametrize("kind", ["truncated", "text", "empty", "grey", "smaller", "enormous"])
def test_a_bad_png_is_a_fault(kind: str, decoder: ChunkDecoder, tmp_path: Path) -> None:
    sound = image_bytes(make_image(0, SIZE, SIZE), "PNG")
    header = sound[:16] + b"\0\1\0\0" * 2 + sound[24:29]  # claims 65536 x 65536 pixels
    bad = {
        "truncated": sound[: len(sound) // 2],
        "text": b"no picture",
        "empty": b"",
        "grey": image_bytes(make_image(0, SIZE, SIZE).convert("L"), "PNG"),
        "smaller": image_bytes(make_image(0, SIZE, 40), "PNG"),
        "enormous": header + zlib.crc32(header[12:]).to_bytes(4, "big") + sound[33:],
    }
    images, faults = decode_all(decoder, write_shard(tmp_path, [bad[kind], sound], "png"))
    assert [fault.at for fault in faults] == [0]
    assert not images[0].any()
    assert np.array_equal(images[1].numpy(), np.asarray(make_image(0, SIZE, SIZE)))


@pytest.mark.parametrize("form", ["jpeg:95", "raw"])
def test_bytes_that_changed_on_disk_are_a_fault(form: str, decoder: ChunkDecoder, tmp_path: Path) -> None:
    stored = (
        make_jpegs(9)
        if form != "raw"
        else [npy_bytes(decode_by_pillow(make_jpegs(9))[at]) for at in range(9)]
    )
    locations = write_shard(tmp_path, stored, form)
    with locations.file(0).open("r+b") as file:
        file.seek(locations.offsets[4] + 300)
        file.write(b"\x55\xaa\x55")
    images, faults = decode_all(decoder, locations)
    assert [fault.at for fault in faults] == [4]
    assert "crc32 differs" in faults[0].reason
    assert not images[4].any()


@pytest.mark.parametrize("form", ["jpeg:95", "raw", "png"])
def test_a_shard_may_be_cut_short_emptied_and_replaced_between_jobs(
    form: str, decoder: ChunkDecoder, tmp_path: Path
) -> None:
    images = [make_image(seed, SIZE, SIZE) for seed in range(9)]
    stored = {
        "jpeg:95": [image_bytes(image, quality=95) for image in images],
        "raw": [npy_bytes(np.asarray(image)) for image in images],
        "png": [image_bytes(image, "PNG") for image in images],
    }[form]
    locations = write_shard(tmp_path, stored, form)
    path = locations.file(0)
    whole, _ = decode_all(decoder, locations)
    for length in (locations.offsets[6] + 10, 10, 0):
        os.truncate(path, length)
        cut, faults = decode_all(decoder, locations)
        sound = sum(
            begin + n <= length for begin, n in zip(locations.offsets, locations.lengths, strict=True)
        )
        assert [fault.at for fault in faults] == list(range(sound, 9))
        assert all("the file ends after" in fault.reason for fault in faults)
        assert torch.equal(cut[:sound], whole[:sound])
        assert not cut[sound:].any()
    path.write_bytes(b"".join(stored))  # the same file, long again
    assert torch.equal(decode_all(decoder, locations)[0], whole)
    path.write_bytes(bytes(sum(locations.lengths)))
    assert len(decode_all(decoder, locations)[1]) == 9
    write_shard(tmp_path / "mended", stored, form).file(0).rename(path)  # another file, as repairs do
    found, faults = decode_all(decoder, locations)
    assert torch.equal(found, whole)
    assert not faults


def test_a_shard_that_is_gone_fails_its_jobs_and_no_others(decoder: ChunkDecoder, tmp_path: Path) -> None:
    pictures = make_jpegs(300)
    here, gone = write_shard(tmp_path / "here", pictures), write_shard(tmp_path / "gone", pictures)
    gone.file(0).unlink()
    jobs = [job_for(locations) for locations in (here, gone, here)]
    for job in jobs:
        decoder.submit(job)
    assert all(job.wait(60) for job in jobs)
    assert isinstance(jobs[1].error, SourceMissing)
    for job in (jobs[0], jobs[2]):
        assert job.error is None
        assert np.array_equal(job.out.numpy(), decode_by_pillow(pictures))


@pytest.mark.parametrize("name", NAMES)
def test_nothing_holds_a_closed_decoder_or_its_store(name: DecoderName, tmp_path: Path) -> None:
    pictures = make_jpegs(40)
    pictures[5], pictures[9] = b"bad", pictures[9][:500]
    locations = write_shard(tmp_path, pictures)
    gc.disable()  # a circle would keep memory and files for as long as a program pleases
    try:
        store = LocalStore()
        decoder = open_decoder(name, store, size=SIZE, threads=2, device="cpu")
        assert len(decode_all(decoder, locations)[1]) == 2
        decoder.close()
        refused = ""
        try:
            decoder.submit(job_for(locations))
        except UsageError as error:
            refused = str(error)
        assert "was closed" in refused
        gone = weakref.ref(decoder), weakref.ref(store)
        del decoder, store
        assert [reference() for reference in gone] == [None, None]
    finally:
        gc.enable()


def test_an_empty_job_is_done_at_once(decoder: ChunkDecoder, tmp_path: Path) -> None:
    job = job_for(write_shard(tmp_path, make_jpegs(1)).part(0, 0))
    decoder.submit(job)
    assert job.wait(1)
    assert job.error is None


def test_jobs_of_any_size_in_any_mix_get_their_own_pixels(decoder: ChunkDecoder, tmp_path: Path) -> None:
    jpeg, raw = make_jpegs(40), [npy_bytes(pixels) for pixels in decode_by_pillow(make_jpegs(40))]
    needed = decode_by_pillow(jpeg)
    locations = {
        "jpeg:95": write_shard(tmp_path / "jpeg", jpeg),
        "raw": write_shard(tmp_path / "raw", raw, "raw"),
    }
    draw = np.random.default_rng(0)
    jobs = []
    for _ in range(120):
        some = locations["raw" if draw.random() < 0.3 else "jpeg:95"]
        chosen = draw.integers(0, 40, draw.choice([1, 2, 7, 40, 129, 300]))
        job = job_for(locate_samples(some.dataset, SIZE, chosen))
        decoder.submit(job)
        jobs.append((job, chosen))
        if draw.random() < 0.2:  # nothing follows for a while
            assert job.wait(60)
    for job, chosen in jobs:
        assert job.wait(60)
        assert torch.equal(job.out, torch.from_numpy(needed[chosen]))
        assert job.seconds > 0
