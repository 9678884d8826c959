"""Files that change under a running loader: every image is the right one, or an error says which is not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import PipelineError
from pipeline.loader.loader import EpisodeLoader
from pipeline.shardset import ShardSet
from tests.episodes import RowSampler, chunk_digest, episode_chunks

SIZE = 48
EPISODES = 6


def tars(root: Path) -> list[Path]:
    return sorted((root / str(SIZE)).glob("*.tar"))


def replace_by(path: Path, data: bytes) -> None:
    """Give the file's name to another file, as builds and repairs do."""
    path.with_suffix(".new").write_bytes(data)
    path.with_suffix(".new").replace(path)


def overwrite(path: Path, data: bytes, place: int = 0) -> None:
    """Write into a file; it is at no moment shorter than before."""
    with path.open("r+b") as file:
        file.seek(place)
        file.write(data)


def each(change: Callable[[Path], object]) -> Callable[[Path], None]:
    def change_all(root: Path) -> None:
        for tar in tars(root):
            change(tar)

    return change_all


def swap(root: Path) -> None:
    first, second = tars(root)[:2]
    first_bytes, second_bytes = first.read_bytes(), second.read_bytes()
    replace_by(first, second_bytes)
    replace_by(second, first_bytes)


def move_set_away_and_back(root: Path) -> None:
    root.rename(root.with_name("away"))
    root.with_name("away").rename(root)


def become_pipe(tar: Path) -> None:
    tar.unlink()
    os.mkfifo(tar)


def become_folder(tar: Path) -> None:
    tar.unlink()
    tar.mkdir()


def become_loop(tar: Path) -> None:
    tar.unlink()
    tar.symlink_to(tar.name)


HARMLESS = {
    "replaced by the same bytes": each(lambda tar: replace_by(tar, tar.read_bytes())),
    "rewritten with the same bytes": each(lambda tar: overwrite(tar, tar.read_bytes())),
    "grown": each(lambda tar: overwrite(tar, bytes(10_240), tar.stat().st_size)),
    "manifest removed": lambda root: (root / "dataset.json").unlink(),
    "index replaced": lambda root: replace_by(root / "index.parquet", b"another"),
}
PASSING = {"moved away and back": move_set_away_and_back}  # a shard opened just then is missing
IN_PLACE = {
    "emptied": each(lambda tar: os.truncate(tar, 0)),
    "cut in half": each(lambda tar: os.truncate(tar, tar.stat().st_size // 2)),
}
HARMFUL = {
    "zeroed": each(lambda tar: overwrite(tar, bytes(tar.stat().st_size))),
    "inverted": each(lambda tar: overwrite(tar, bytes(255 - byte for byte in tar.read_bytes()))),
    "moved by a byte": each(lambda tar: overwrite(tar, b"x" + tar.read_bytes())),
    "replaced by nothing": each(lambda tar: replace_by(tar, b"")),
    "replaced by a half": each(lambda tar: replace_by(tar, tar.read_bytes()[: tar.stat().st_size // 2])),
    "swapped": swap,
    "removed": each(Path.unlink),
    "folder removed": lambda root: shutil.rmtree(root / str(SIZE)),
    "pipes": each(become_pipe),
    "folders": each(become_folder),
    "symlinks in a circle": each(become_loop),
}
CHANGES = {**HARMLESS, **PASSING, **IN_PLACE, **HARMFUL}


@pytest.fixture
def copied(built: Path, tmp_path: Path) -> Path:
    """A copy of the set, to be changed."""
    return Path(shutil.copytree(built, tmp_path / "pets"))


def stream(
    root: Path, *, mapped: bool, change: Callable[[Path], object], after: int
) -> list[list[str] | str]:
    """The digests of some episodes, or their errors; the files change after so many of them."""
    shards, outcomes = ShardSet.open(root), list[list[str] | str]()
    sampler = RowSampler("pets", len(shards["pets"].index), episodes=EPISODES)
    with EpisodeLoader(
        shards, sampler, image_size=SIZE, h=5, chunk=8, threads=2, ahead=1, mapped=mapped
    ) as loader:
        if not after:
            change(root)
        for episode in loader:
            try:
                outcomes.append(
                    [chunk_digest(episode, role, chunk) for role, chunk in episode_chunks(episode)]
                )
            except PipelineError as error:
                outcomes.append(str(error))
            if len(outcomes) == after:
                change(root)
    return outcomes


CASES = [  # a process ends that looks at a mapped part which is gone: `pipeline/store/mapped.py` says so
    pytest.param(name, mapped, after, id=f"{name}, {('read', 'mapped')[mapped]}, after {after}")
    for name in CHANGES
    for mapped in (False, True)
    for after in (0, 1)
    if not (mapped and after and name in IN_PLACE)
]


@pytest.mark.parametrize(("name", "mapped", "after"), CASES)
def test_an_image_is_right_or_its_sample_is_named_whatever_happens_to_the_files(
    name: str, copied: Path, *, mapped: bool, after: int
) -> None:
    expected = stream(copied, mapped=mapped, change=lambda _: None, after=0)
    outcomes = stream(copied, mapped=mapped, change=CHANGES[name], after=after)
    assert len(outcomes) == EPISODES
    errors = [outcome for outcome in outcomes if isinstance(outcome, str)]
    assert all("sample 0" in error for error in errors)
    assert [seen for seen in outcomes if seen not in errors] == [
        right for right, seen in zip(expected, outcomes, strict=True) if seen not in errors
    ]
    if name in HARMLESS:
        assert errors == []
    elif not after and name not in PASSING:
        assert len(errors) > EPISODES // 2
