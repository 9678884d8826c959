"""Your own images: a `class/image` tree in a folder, a tar or a zip, with splits of your own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from pipeline.errors import SourceMissing, UsageError
from pipeline.records import SPLITS, ClassRecord, Item, Rejected, Split, Survey
from pipeline.sources.archives import MemberTree, is_litter, open_tree
from pipeline.sources.base import Source
from pipeline.sources.spans import FileSpan, read_list

NO_FOLDER: Final = "."  # the folder of a path that names none
NAMED_SPLITS: Final = SPLITS[:-1]
SPLIT_SPELLINGS: Final[Mapping[str, Split]] = {
    "val": "validation",
    "valid": "validation",
    **{s: s for s in NAMED_SPLITS},
}


@dataclass(frozen=True, kw_only=True)
class FolderSource(Source):
    """The class of an image is the folder that it lies in. Links to files and folders are followed.

    `split_by` says where the splits come from:
      ""           there are none
      "folder"     the level above the classes: train/cat/1.jpg, validation/dog/2.jpg, test/...
      a file       lines "name split"; a name is a class ("cat") or an image ("cat/1.jpg")
    """

    name: str = "folder"
    split_by: str = ""

    def survey(self) -> Survey:
        """List the images; the classes are the folders that hold files, in sorted order."""
        tree = open_tree(self.root, scratch=self.scratch)
        paths = [path for path in tree.members if not is_litter(path)]
        loose = [path for path in paths if _folder_of(path) == NO_FOLDER]
        paths = [path for path in paths if _folder_of(path) != NO_FOLDER]
        if not paths:
            raise SourceMissing(
                f"{self.root} should hold one folder of pictures for each class; it holds "
                f"{len(loose)} files and no folder with files"
            )
        split_of = self._splits(paths)
        prefix = _common_folder(paths, levels=2 if self.split_by == "folder" else 1)
        classes = _class_records(paths, prefix, split_of, by_folder=self.split_by == "folder")
        items = self._items(tree, paths, loose, classes, split_of)
        return Survey(classes=tuple(classes.values()), items=items, files=tree.files)

    def _items(
        self,
        tree: MemberTree,
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
            folder = _folder_of(path)
            span: FileSpan = tree.members[path]
            split = split_of.get(path, classes[folder].split)
            yield Item(path, ids[folder], split, *span)

    def _splits(self, paths: list[str]) -> dict[str, Split]:
        """The splits of classes and images, by the path or class name that the user wrote."""
        if self.split_by in ("", "folder"):
            return {}
        file = Path(self.split_by)
        if not file.is_file():
            raise UsageError(f"--split-by takes 'folder' or a file; there is no file {self.split_by!r}")
        names = set(paths) | set(map(_folder_of, paths))
        names |= {PurePosixPath(p).parent.name for p in paths}
        splits: dict[str, Split] = {}
        text = read_list(file).decode("utf-8", "surrogateescape")  # as names of files are held
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.strip():
                continue
            name, _, split = line.strip().replace("\t", " ").rpartition(" ")
            if split not in SPLIT_SPELLINGS or name.strip() not in names:
                problem = f"{name.strip()!r} is neither a class nor a picture of {self.root}"
                if split not in SPLIT_SPELLINGS:
                    problem = f"{split!r} is not one of {', '.join(NAMED_SPLITS)}"
                raise UsageError(f"{file}:{number}: {problem}; a line is 'name split'")
            splits[name.strip()] = _parse_split(split)
        return splits


def _folder_of(path: str) -> str:
    """The folder that a file lies in, without doubled slashes and dots."""
    return str(PurePosixPath(path).parent)


def _parse_split(word: str) -> Split:
    return SPLIT_SPELLINGS[word.lower()]


def _common_folder(paths: list[str], levels: int) -> int:
    """How many folders above the classes all images share, such as the top folder of an archive."""
    parts = [PurePosixPath(path).parts for path in paths]
    shared = 0
    while all(len(p) > shared + levels + 1 for p in parts) and len({p[shared] for p in parts}) == 1:
        shared += 1
    return shared


def _class_records(
    paths: list[str], prefix: int, split_of: dict[str, Split], *, by_folder: bool
) -> dict[str, ClassRecord]:
    """One record for each folder that holds images, by the path of the folder."""
    classes: dict[str, ClassRecord] = {}
    for folder in sorted(set(map(_folder_of, paths))):
        parts = PurePosixPath(folder).parts[prefix:]
        name, split = "/".join(parts), split_of.get(folder, split_of.get(parts[-1], ""))
        if by_folder:
            if parts[0].lower() not in SPLIT_SPELLINGS or len(parts) < 2:  # noqa: PLR2004
                raise UsageError(
                    f"--split-by folder needs {' or '.join(NAMED_SPLITS)} above the classes; found {folder!r}"
                )
            name, split = "/".join(parts[1:]), _parse_split(parts[0])
        classes[folder] = ClassRecord(name=name, split=split)
    return classes
