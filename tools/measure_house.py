"""Measures names and rooms: `python3 tools/measure_house.py [ROOT]`; docs/decisions/0018 says what they should be."""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final

PACKAGES: Final = ("pipeline", "learners")
DOORS: Final = ("pipeline", "learners", "pipeline.samplers")  # packages whose `__all__` is public
CONSTANT: Final = re.compile(r"_?[A-Z][A-Z0-9_]*")
WORD: Final = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z0-9]+|[A-Z]+")

Trees = dict[str, ast.Module]


def module_trees(root: Path) -> Trees:
    """The syntax tree of every module of the two packages, and of train.py."""
    files = [root / "train.py", *(f for name in PACKAGES for f in sorted((root / name).rglob("*.py")))]
    return {module_name(root, file): ast.parse(file.read_text(encoding="utf-8")) for file in files}


def module_name(root: Path, file: Path) -> str:
    return ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def public_names(trees: Trees) -> set[str]:
    """What the doors' `__all__` list."""
    names: set[str] = set()
    for door in DOORS:
        for node in trees[door].body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                names |= set(ast.literal_eval(node.value))
    return names


def class_homes(trees: Trees) -> dict[str, list[str]]:
    """Class names, and the modules that define a class of the name."""
    homes: dict[str, list[str]] = defaultdict(list)
    for module, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                homes[node.name].append(module)
    return homes


def constant_homes(trees: Trees) -> dict[str, list[str]]:
    """Names of constants, and the modules that define a constant of the name."""
    homes: dict[str, list[str]] = defaultdict(list)
    for module, tree in trees.items():
        for name in {name for node in tree.body for name in _assigned(node)}:
            if CONSTANT.fullmatch(name):
                homes[name].append(module)
    return homes


def _assigned(node: ast.stmt) -> Iterator[str]:
    targets = node.targets if isinstance(node, ast.Assign) else []
    targets = [node.target] if isinstance(node, ast.AnnAssign) else targets
    for target in targets:
        for part in ast.walk(target):
            if isinstance(part, ast.Name):
                yield part.id


def function_names(trees: Trees) -> list[str]:
    """Of functions and methods, dunders left out."""
    return [
        node.name
        for tree in trees.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("__")
    ]


def one_word(name: str) -> bool:
    """Whether a class or function name is a single word."""
    bare = name.strip("_")
    return len(WORD.findall(bare)) == 1 if bare[:1].isupper() else "_" not in bare


def arrows(trees: Trees, package: str) -> dict[str, set[str]]:
    """For each room of a package, the other rooms that it imports from."""
    rooms = {name.split(".")[1] for name in trees if name.startswith(f"{package}.")}
    imported: dict[str, set[str]] = {name: set() for name in rooms}
    for module, tree in trees.items():
        if module.startswith(f"{package}."):
            own = module.split(".")[1]
            imported[own] |= (_imported_rooms(tree, package) & rooms) - {own}
    return imported


def _imported_rooms(tree: ast.Module, package: str) -> set[str]:
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return {name.split(".")[1] for name in names if name.startswith(f"{package}.")}


def circle(graph: dict[str, set[str]]) -> str:
    """A circle of rooms in words, or "none"."""
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        return " -> ".join(error.args[1])
    return "none"


def widest_folder(root: Path) -> tuple[int, str]:
    """The most modules and packages that stand in one folder of the packages, and which folder."""
    counts = []
    for package in PACKAGES:
        for folder in [root / package, *(p for p in (root / package).rglob("*") if p.is_dir())]:
            modules = [f for f in folder.glob("*.py") if f.name != "__init__.py"]
            folders = list(folder.glob("*/__init__.py"))
            counts.append((len(modules) + len(folders), str(folder.relative_to(root))))
    return max(counts)


def code_lines(root: Path) -> int:
    """Lines of Python in the packages and train.py."""
    files = [root / "train.py", *(f for name in PACKAGES for f in (root / name).rglob("*.py"))]
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


def main() -> None:
    root = Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()
    trees = module_trees(root)
    classes, constants = class_homes(trees), constant_homes(trees)
    twice = sorted(name for name, homes in classes.items() if len(homes) > 1)
    short = sorted(name for name in set(classes) - public_names(trees) if one_word(name))
    shared = sorted(name for name, homes in constants.items() if len(homes) > 1)
    functions = function_names(trees)
    print(f"class names used twice         {len(twice)} of {len(classes)} {twice}")
    print(f"one-word class names           {len(short) / len(classes):.0%} {short}")
    print(f"constant names in two files    {len(shared)} of {len(constants)} {shared}")
    print(f"one-word functions             {sum(map(one_word, functions)) / len(functions):.0%}")
    print(f"widest folder                  {widest_folder(root)}")
    for package in PACKAGES:
        graph = arrows(trees, package)
        print(
            f"{package:<9} rooms, arrows, circle {len(graph)}, {sum(map(len, graph.values()))}, "
            f"{circle(graph)}"
        )
    print(f"lines of code                  {code_lines(root):,}")


if __name__ == "__main__":
    main()
