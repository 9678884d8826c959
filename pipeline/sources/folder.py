"""`class/image` trees: a folder, a tar or a zip of one's own, with one's own splits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final, get_args

from pipeline.errors import SourceMissing, UsageError
from pipeline.records import ClassRecord, Item, Rejected, Split, Survey
from pipeline.sources.archives import Tree, open_tree
from pipeline.sources.base import Source
from pipeline.sources.spans import Span

IGNORED: Final = {".ds_store", "thumbs.db", "desktop.ini"}  # what file managers leave behind
SPLITS: Final[tuple[str, ...]] = tuple(split for split in get_args(Split) if split)
SPLIT_SPELLINGS: Final = {"val": "validation", "valid": "validation", **{s: s for s in SPLITS}}


@dataclass(frozen=True, kw_only=True)
class FolderSource(Source):
    """A picture's class is the folder it lies in.

    `split_by` says where splits come from:
      ""           there are none
      "folder"     the level above the classes: train/cat/1.jpg, validation/dog/2.jpg, test/...
      a file       lines "name split", a name being a class ("cat") or a picture ("cat/1.jpg")
    """

    name: str = "folder"
    split_by: str = ""

    def survey(self) -> Survey:
        """The classes are the folders that hold files, in sorted order."""
        tree = open_tree(self.root, scratch=self.scratch)
        paths = [path for path in tree.members if not _litter(PurePosixPath(path).name)]
        loose = [path for path in paths if "/" not in path]
        paths = [path for path in paths if "/" in path]
        if not paths:
            raise SourceMissing(
                f"{self.root} should hold one folder of pictures for each class; it holds "
                f"{len(loose)} files and no folder with files"
            )
        split_of = self._splits(paths)
        prefix = _common_folder(paths, levels=2 if self.split_by == "folder" else 1)
        classes = _classes(paths, prefix, split_of, by_folder=self.split_by == "folder")
        items = self._items(tree, paths, loose, classes, split_of)
        return Survey(classes=tuple(classes.values()), items=items, files=tree.files)

    def _items(
        self,
        tree: Tree,
        paths: list[str],
        loose: list[str],
        classes: dict[str, ClassRecord],
        split_of: dict[str, Split],
    ) -> Iterator[Item | Rejected]:
        yield from tree.rejected
        for path in loose:
            yield Rejected(path, "lies in no class's folder")
        ids = {folder: position for position, folder in enumerate(classes)}
        for path in paths:
            folder = str(PurePosixPath(path).parent)
            span: Span = tree.members[path]
            split = split_of.get(path, classes[folder].split)
            yield Item(path, ids[folder], split, *span)

    def _splits(self, paths: list[str]) -> dict[str, Split]:
        """Splits of classes and pictures, by the path or class name that the user wrote."""
        if self.split_by in ("", "folder"):
            return {}
        file = Path(self.split_by)
        if not file.is_file():
            raise UsageError(
                f"--split-by takes 'folder' or a file; there is no file {self.split_by!r}"
            )
        known = set(paths) | {str(PurePosixPath(p).parent) for p in paths}
        known |= {PurePosixPath(p).parent.name for p in paths}
        splits: dict[str, Split] = {}
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
            if not line.strip():
                continue
            name, _, split = line.strip().replace("\t", " ").rpartition(" ")
            if split not in SPLIT_SPELLINGS or name.strip() not in known:
                problem = f"{name.strip()!r} is neither a class nor a picture of {self.root}"
                if split not in SPLIT_SPELLINGS:
                    problem = f"{split!r} is not one of {', '.join(SPLITS)}"
                raise UsageError(f"{file}:{number}: {problem}; a line is 'name split'")
            splits[name.strip()] = _split(split)
        return splits


def _litter(name: str) -> bool:
    return name.lower() in IGNORED or name.startswith("._")


def _split(word: str) -> Split:
    return SPLIT_SPELLINGS[word.lower()]  # type: ignore[return-value]


def _common_folder(paths: list[str], levels: int) -> int:
    """How many leading folders all pictures share (an archive's own top folder), classes kept."""
    parts = [PurePosixPath(path).parts for path in paths]
    shared = 0
    while all(len(p) > shared + levels + 1 for p in parts) and len({p[shared] for p in parts}) == 1:
        shared += 1
    return shared


def _classes(
    paths: list[str], prefix: int, split_of: dict[str, Split], *, by_folder: bool
) -> dict[str, ClassRecord]:
    """A record for each folder that holds pictures, by that folder's path."""
    classes: dict[str, ClassRecord] = {}
    for folder in sorted({str(PurePosixPath(path).parent) for path in paths}):
        parts = PurePosixPath(folder).parts[prefix:]
        name, split = "/".join(parts), split_of.get(folder, split_of.get(parts[-1], ""))
        if by_folder:
            if parts[0].lower() not in SPLIT_SPELLINGS or len(parts) < 2:  # noqa: PLR2004
                raise UsageError(
                    f"--split-by folder needs {' or '.join(SPLITS)} above the classes; found {folder!r}"
                )
            name, split = "/".join(parts[1:]), _split(parts[0])
        classes[folder] = ClassRecord(name=name, split=split)
    return classes
