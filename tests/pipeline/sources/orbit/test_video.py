"""Videos are read frame by frame, upright and by number, whatever happens to the decoder."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.errors import UsageError
from pipeline.sources.orbit import video
from pipeline.sources.orbit.video import (
    DECORD_BYTES,
    FRAME_TIMEOUT,
    FrameOrReason,
    VideoFacts,
    VideoProbe,
    decode_frames,
    require_decoders,
)
from pipeline.sources.orbit.video_child import PYAV_MEMORY
from tests.pipeline.sources.orbit.clips import cut_start, damage, read_number, turn_clip, write_clip

REAL = os.environ.get("REAL_DATA")
needs_real_data = pytest.mark.skipif(not REAL, reason="REAL_DATA is not set")
CLIPS = Path(REAL or "/") / "video"
CAN_TURN = hasattr(av.VideoStream, "set_display_rotation")
SCALES = np.linspace(0.4, 1.4, 21)  # at which the keys may appear


def read(path: Path, last: int, decord_bytes: int = DECORD_BYTES) -> dict[int, FrameOrReason]:
    return dict(decode_frames(path, range(1, last + 1), timeout=20, decord_bytes=decord_bytes))


def probe(path: Path) -> VideoFacts | str:
    with closing(VideoProbe(timeout=20)) as counter:
        return counter.read_facts(path)


def shown(found: dict[int, FrameOrReason]) -> dict[int, int | str]:
    return {n: f if isinstance(f, str) else read_number(f) for n, f in found.items()}


def children() -> list[int]:
    """Processes whose parent we are, zombies too."""
    found = []
    for entry in Path("/proc").iterdir():
        try:
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
        except (OSError, IndexError):
            continue
        if parent == str(os.getpid()):
            found.append(int(entry.name))
    return sorted(found)


@pytest.fixture(autouse=True)
def _no_process_stays() -> Iterator[None]:
    before = children()
    yield
    assert children() == before


@pytest.mark.parametrize("limit", [DECORD_BYTES, 0], ids=["decord", "pyav"])
@pytest.mark.parametrize(
    ("name", "options"),
    [("a.mp4", {"g": "6"}), ("b.mov", {"g": "6", "x264-params": "open-gop=1"}), ("c.mkv", {})],
)
def test_every_frame_comes_with_its_number(
    tmp_path: Path, name: str, options: dict[str, str], limit: int, caplog: pytest.LogCaptureFixture
) -> None:
    clip = write_clip(tmp_path / name, 30, options=options)
    with caplog.at_level(logging.DEBUG):
        found = read(clip, 30, limit)
    assert f"decoded by {'decord' if limit else 'PyAV'}" in caplog.text
    assert shown(found) == {number: number for number in range(1, 31)}
    wanted = [4, 10, 11, 27]
    assert [shown(dict([pair])) for pair in decode_frames(clip, wanted, decord_bytes=limit)] == [
        {number: number} for number in wanted
    ]


def test_both_decoders_give_the_same_pixels(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", 20)
    ours, theirs = read(clip, 20), read(clip, 20, 0)
    assert all(np.array_equal(ours[number], theirs[number]) for number in range(1, 21))


@pytest.mark.skipif(not CAN_TURN, reason="this PyAV cannot write a display matrix; 18 can")
@pytest.mark.parametrize("rotation", [90, 180, 270])
@pytest.mark.parametrize("limit", [DECORD_BYTES, 0], ids=["decord", "pyav"])
def test_a_rotated_video_comes_out_upright(tmp_path: Path, rotation: int, limit: int) -> None:
    clip = write_clip(tmp_path / "plain.mp4", 3)
    plain = read(clip, 3, limit)[2]
    turned = read(turn_clip(clip, tmp_path / "turned.mp4", rotation), 3, limit)[2]
    assert not isinstance(plain, str)
    assert np.array_equal(np.rot90(plain, rotation // 90), turned)


def test_what_decord_reads_wrongly_or_not_at_all_goes_to_pyav(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clip = write_clip(tmp_path / "a.mp4", 8, codec="libx264", pixels="yuv444p")
    with caplog.at_level(logging.DEBUG):
        assert shown(read(clip, 8)) == {number: number for number in range(1, 9)}
    assert "decoded by PyAV" in caplog.text
    assert "decord" not in caplog.text


def test_a_clip_too_large_for_decords_buffers_goes_to_pyav(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clip = write_clip(tmp_path / "a.mp4", 8)
    decoded = 8 * 160 * 96 * 3
    with caplog.at_level(logging.DEBUG):
        assert len(read(clip, 8, decoded - 1)) == 8
        assert "decoded by PyAV" in caplog.text
        assert len(read(clip, 8, decoded)) == 8
    assert "decoded by decord" in caplog.text


@pytest.mark.parametrize("limit", [DECORD_BYTES, 0], ids=["decord first", "pyav"])
def test_a_damaged_frame_is_missing_and_moves_no_other(tmp_path: Path, limit: int) -> None:
    clip = write_clip(tmp_path / "a.mp4", 40, options={"g": "1", "bf": "0"})
    whole = read(clip, 40)
    found = read(damage(clip, 20), 40, limit)
    assert list(found) == list(range(1, 41))
    assert "Invalid data" in str(found.pop(20))
    assert all(np.array_equal(frame, whole[number]) for number, frame in found.items())


@pytest.mark.parametrize("limit", [DECORD_BYTES, 0], ids=["decord first", "pyav"])
def test_frames_that_a_decoder_drops_without_a_word_move_no_other(tmp_path: Path, limit: int) -> None:
    """decord alone would call original frame 7 the first, and repeat the last at the end."""
    clip = write_clip(tmp_path / "a.mp4", 24, options={"g": "6", "bf": "0"})
    found = shown(read(cut_start(clip, tmp_path / "cut.mp4", 2), 22, limit))
    assert [found[number] for number in (1, 2, 3, 4)] == ["does not decode"] * 4
    assert {number: found[number] for number in range(5, 23)} == {n: n + 2 for n in range(5, 23)}


def test_a_cut_off_video_gives_what_is_there(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", 60, container={"movflags": "faststart"})
    whole = read(clip, 60)
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 2 // 3])
    facts = probe(clip)
    assert isinstance(facts, VideoFacts)
    assert 20 < facts.frames < facts.listed == 60
    found = read(clip, facts.frames)
    good = [number for number, frame in found.items() if not isinstance(frame, str)]
    assert good[: facts.frames - 2] == list(range(1, facts.frames - 1))
    assert all(np.array_equal(found[number], whole[number]) for number in good[:-1])


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Invalid data"),
        (b"this is text, not a video\n" * 50, "Invalid data"),
        (b"\x00\x00\x00\x18ftypisom" + bytes(4000), "Invalid data"),
    ],
    ids=["empty", "text", "no moov"],
)
def test_what_is_no_video_is_a_reason_and_not_an_exception(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    assert reason in str(probe(path))
    assert all(reason in str(found) for found in read(path, 2).values())


def test_a_video_without_its_index_is_a_reason(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4")
    data = clip.read_bytes()
    clip.write_bytes(data[: data.index(b"moov") - 4])
    assert "Invalid data" in str(probe(clip))


def test_a_file_of_sound_alone_holds_no_video(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4")
    clip.write_bytes(clip.read_bytes().replace(b"vide", b"soun"))
    assert isinstance(probe(clip), str)


def test_numbers_beyond_the_end_have_a_reason(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", 5)
    assert [isinstance(f, str) for _, f in decode_frames(clip, [4, 5, 6, 9])] == [False, False, True, True]


def test_a_video_that_went_away_stops_the_build(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        next(decode_frames(tmp_path / "gone.mp4", [1]))


def test_pyav_goes_on_where_a_killed_decoder_stopped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clip = write_clip(tmp_path / "a.mp4", 60, size=(640, 480))  # more than the pipe holds
    found: dict[int, FrameOrReason] = {}
    with caplog.at_level(logging.DEBUG):
        before = set(children())
        for number, frame in decode_frames(clip, range(1, 61)):
            found[number] = frame
            if number == 2:
                (decoder,) = set(children()) - before
                os.kill(decoder, signal.SIGKILL)
    assert "SIGKILL" in caplog.text
    assert shown(found) == {number: number for number in range(1, 61)}


def test_when_both_decoders_die_the_frames_have_a_reason(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", 60, size=(640, 480))
    found: dict[int, FrameOrReason] = {}
    before = set(children())
    for number, frame in decode_frames(clip, range(1, 61), decord_bytes=0):
        found[number] = frame
        if number == 2:
            (decoder,) = set(children()) - before
            os.kill(decoder, signal.SIGKILL)
    assert list(found) == list(range(1, 61))
    assert found[60] == "the decoder died (SIGKILL)"


def test_a_decoder_that_stands_still_is_replaced(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clip = write_clip(tmp_path / "a.mp4", 60, size=(640, 480))
    found: dict[int, FrameOrReason] = {}
    before = set(children())
    with caplog.at_level(logging.DEBUG):
        for number, frame in decode_frames(clip, range(1, 61), timeout=3):
            found[number] = frame
            if number == 2:
                (decoder,) = set(children()) - before
                os.kill(decoder, signal.SIGSTOP)
    assert "no progress for 3 s" in caplog.text
    assert shown(found) == {number: number for number in range(1, 61)}


def test_a_file_that_never_answers_is_given_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mp4")
    with closing(VideoProbe(timeout=0.5)) as counter:
        assert counter.read_facts(tmp_path / "a.mp4") == "the decoder made no progress for 0.5 s"
        counter.timeout = FRAME_TIMEOUT  # a new decoder may take long to start on a busy machine
        assert isinstance(counter.read_facts(write_clip(tmp_path / "b.mp4")), VideoFacts)


def test_a_reader_that_stops_half_way_leaves_no_process(tmp_path: Path) -> None:
    before = children()
    reading = decode_frames(write_clip(tmp_path / "a.mp4", 60, size=(640, 480)), range(1, 61))
    next(reading)
    assert len(children()) == len(before) + 1
    reading.close()  # type: ignore[attr-defined]
    assert children() == before


def test_a_decoder_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4", 60, size=(640, 480))
    script = (
        "import sys, time; from pathlib import Path\n"
        "from pipeline.sources.orbit.video import VideoProbe, decode_frames\n"
        "counter = VideoProbe(); counter.read_facts(Path(sys.argv[1]))\n"
        "reading = decode_frames(Path(sys.argv[1]), range(1, 61)); next(reading)\n"
        "print(flush=True); time.sleep(60)\n"
    )
    root = str(Path(video.__file__).parents[3])
    with subprocess.Popen(
        [sys.executable, "-c", script, str(clip)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": root},
    ) as parent:
        assert parent.stdout is not None
        parent.stdout.readline()
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        mine = [pid for pid in pids if _is_decoder(pid, parent.pid)]
        assert len(mine) == 2
        parent.kill()
    deadline = time.monotonic() + 20
    while any(_is_decoder(pid) for pid in mine) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(_is_decoder(pid) for pid in mine)


def _is_decoder(pid: int, parent: int | None = None) -> bool:
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        above = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]
    except OSError:
        return False
    return b"video_child" in command and parent in (None, int(above))


def test_nothing_is_left_in_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = write_clip(tmp_path / "a.mp4")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    read(clip, 12)
    assert list((tmp_path / "tmp").iterdir()) == []


def test_decoding_libraries_are_not_imported_here(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4")
    script = (
        "import sys; from pathlib import Path; from pipeline.sources.orbit.video import decode_frames\n"
        "assert len(list(decode_frames(Path(sys.argv[1]), range(1, 13)))) == 12\n"
        "assert not {'av', 'decord', 'torch'} & set(sys.modules)\n"
    )
    root = str(Path(video.__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": root}
    subprocess.run([sys.executable, "-c", script, str(clip)], check=True, env=environment)


def test_without_decord_pyav_reads_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "decord", None)
    with caplog.at_level(logging.DEBUG):
        require_decoders()
        found = dict(decode_frames(write_clip(tmp_path / "a.mp4"), range(1, 13)))
    assert shown(found) == {number: number for number in range(1, 13)}
    assert "decord is not installed" in caplog.text
    assert "decoded by PyAV" in caplog.text


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UsageError, match=r"pip install -e '\.\[video\]'"):
        next(decode_frames(tmp_path / "a.mp4", [1]))


def test_a_decoder_may_allocate_a_limited_amount_of_memory(tmp_path: Path) -> None:
    clip = write_clip(tmp_path / "a.mp4")
    with closing(VideoProbe(timeout=20)) as counter:
        counter.read_facts(clip)
        limits = Path(f"/proc/{counter._process.pid}/limits").read_text()  # type: ignore[union-attr]
    (line,) = (line for line in limits.splitlines() if line.startswith("Max address space"))
    assert int(line.split()[3]) == PYAV_MEMORY


def test_the_decoder_does_not_hold_the_whole_clip(tmp_path: Path) -> None:
    options = {"g": "30", "preset": "ultrafast"}
    clip = write_clip(tmp_path / "a.mp4", 200, size=(1088, 1088), options=options)  # 710 MB of RGB
    before = set(children())
    for number, frame in decode_frames(clip, [*range(1, 190, 8), 200]):
        assert not isinstance(frame, str)
        if number == 185:
            (decoder,) = set(children()) - before
            status = Path(f"/proc/{decoder}/status").read_text()
            peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
    assert 20 * 2**20 < peak < 300 * 2**20


@needs_real_data
@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_real_clips_filmed_in_four_positions_come_out_upright(turn: int) -> None:
    """They show one keyboard, filmed four times; two keys of one clip are looked for in the others."""
    cv2 = pytest.importorskip("cv2")
    clip = CLIPS / f"video_{turn}.mov"
    found, theirs = read(clip, 3), read(clip, 3, 0)
    assert all(np.array_equal(found[number], theirs[number]) for number in (1, 2, 3))
    frame, pattern = found[1], read(CLIPS / "video_90.mov", 1)[1]
    assert not isinstance(frame, str)
    assert not isinstance(pattern, str)
    assert frame.shape == ((320, 568, 3) if turn in (0, 180) else (568, 320, 3))
    keys, scene = pattern[440:565, 160:320].mean(axis=2), frame.mean(axis=2)

    def likeness(quarter_turns: int) -> float:
        turned = np.ascontiguousarray(np.rot90(scene, quarter_turns), np.float32)
        sizes = [cv2.resize(keys.astype(np.float32), None, fx=s, fy=s) for s in SCALES]
        scores = (cv2.matchTemplate(turned, k, cv2.TM_CCOEFF_NORMED).max() for k in sizes)
        return max(map(float, scores))

    assert likeness(0) > max(likeness(1), likeness(2), likeness(3))


@needs_real_data
def test_a_real_mkv_is_read_to_its_last_frame() -> None:
    clip = CLIPS / "flipping_a_pancake.mkv"
    assert probe(clip) == VideoFacts(frames=310, listed=0, width=426, height=240)
    found, theirs = read(clip, 310), read(clip, 310, 0)
    assert all(np.array_equal(found[number], theirs[number]) for number in range(1, 311))


@needs_real_data
def test_a_real_clip_with_disordered_packets_comes_in_order() -> None:
    clip = CLIPS / "unordered.mov"
    assert probe(clip) == VideoFacts(frames=4, listed=4, width=50, height=50)
    found, theirs = read(clip, 4), read(clip, 4, 0)
    assert list(found) == [1, 2, 3, 4]
    assert all(np.array_equal(found[number], theirs[number]) for number in found)


@needs_real_data
@pytest.mark.parametrize("limit", [1 << 40, 0], ids=["decord first", "pyav"])
def test_a_real_corrupted_clip_loses_the_one_frame_that_is_damaged(limit: int) -> None:
    found = read(CLIPS / "corrupted.mp4", 50, limit)
    bad = {number: frame for number, frame in found.items() if isinstance(frame, str)}
    assert len(found) == 50
    assert list(bad) == [31]
    assert "Invalid data" in bad[31]
