"""Folders are listed whole: links are followed once, what is no file has a reason, nothing is waited for."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from pipeline.records import Rejected
from pipeline.sources.archives import open_tree
from pipeline.sources.folder_listing import walk_folder
from pipeline.sources.spans import FileSpan
from tests.images import fill_class_folders


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    return fill_class_folders(tmp_path / "pets", {"cat": 2, "dog": 1})


def rejected(folder: Path) -> dict[str, str]:
    return dict(open_tree(folder).rejected)


def test_a_file_is_listed_with_the_size_it_has(pets: Path) -> None:
    size = (pets / "dog" / "000.jpg").stat().st_size
    assert open_tree(pets).members["dog/000.jpg"] == FileSpan("dog/000.jpg", 0, size, "whole")


def test_pipes_sockets_and_links_to_nothing_are_left_out_with_a_reason(
    pets: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.mkfifo(pets / "cat" / "pipe.jpg")
    (pets / "cat" / "gone.jpg").symlink_to("/nonexistent/gone.jpg")
    (pets / "cat" / "self.jpg").symlink_to("self.jpg")
    monkeypatch.chdir(pets / "cat")  # the name of a socket may not be long
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket.jpg")
    assert rejected(pets) == {
        "cat/gone.jpg": "a link to a file that is not there",
        "cat/pipe.jpg": "not a regular file (pipe, socket or device), not read",
        "cat/self.jpg": "cannot be read: Too many levels of symbolic links",
        "cat/socket.jpg": "not a regular file (pipe, socket or device), not read",
    }
    assert len(open_tree(pets).members) == 3


def test_a_linked_class_is_a_class_and_linked_images_are_images(pets: Path, tmp_path: Path) -> None:
    fill_class_folders(tmp_path / "elsewhere", {"bird": 2})
    (pets / "bird").symlink_to(tmp_path / "elsewhere" / "bird")
    (pets / "dog" / "twin.jpg").symlink_to(tmp_path / "elsewhere" / "bird" / "000.jpg")
    tree = open_tree(pets)
    assert [name for name in tree.members if "bird" in name] == ["bird/000.jpg", "bird/001.jpg"]
    assert tree.read("dog/twin.jpg") == tree.read("bird/000.jpg")
    assert tree.rejected == ()


def test_links_that_lead_in_circles_or_to_one_folder_twice_end_and_are_named(pets: Path) -> None:
    (pets / "cat" / "up").symlink_to("..")
    (pets / "ant").symlink_to("dog")
    tree = open_tree(pets)
    assert list(tree.members) == ["cat/000.jpg", "cat/001.jpg", "dog/000.jpg"]
    assert set(tree.rejected) == {
        Rejected("ant", "a link to a folder that is listed already (dog)"),
        Rejected("cat/up", "a link to a folder that is listed already (the source itself)"),
    }


def test_many_links_to_folders_full_of_links_take_no_more_than_one_look_each(tmp_path: Path) -> None:
    for level in range(40):  # 2^40 paths
        (tmp_path / f"{level}").mkdir()
        for name in "ab":
            (tmp_path / f"{level}" / name).symlink_to(f"../{level + 1}")
    assert len(list(walk_folder(tmp_path))) == 80


def test_names_below_an_at_sign_are_not_looked_for_in_the_scratch_folder(tmp_path: Path) -> None:
    fill_class_folders(tmp_path / "pets", {"@home": 1})
    tree = open_tree(tmp_path / "pets", scratch=tmp_path / "scratch")
    assert tree.read("@home/000.jpg") == (tmp_path / "pets" / "@home" / "000.jpg").read_bytes()
