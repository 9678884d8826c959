"""Converted Meta-Dataset folders, written here record by record, and what may be wrong with them."""

from __future__ import annotations

import json
import os
import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import IntegrityError, PipelineError, SourceMissing
from pipeline.records import Item, Rejected
from pipeline.sources.tfrecords.source import MetaRecordsSource, is_converted
from pipeline.sources.tfrecords.spec import read_spec
from tests.pipeline.sources.tfrecords.writer import bytes_feature, example, framed, packed_integers

Json = dict[str, Any]


def by_id(values: list[Any]) -> Json:
    return {str(number): value for number, value in enumerate(values)}


def flat() -> Json:
    return {
        "name": "dtd",
        "classes_per_split": {"TRAIN": 2, "VALID": 1, "TEST": 1},
        "images_per_class": by_id([3, 1, 2, 2]),
        "class_names": by_id(["banded", "dotted", "woven", "gauzy"]),
        "path": "/somewhere/else/dtd",
        "file_pattern": "{}.tfrecords",
        "__class__": "DatasetSpecification",
    }


def bilevel() -> Json:
    return {
        "name": "omniglot",
        "superclasses_per_split": {"TRAIN": 1, "VALID": 0, "TEST": 2},
        "classes_per_superclass": by_id([2, 1, 1]),
        "images_per_class": by_id([2, 2, 2, 2]),
        "superclass_names": by_id(["Greek", "Tengwar", "ULOG"]),
        "class_names": by_id(["Greek-character01", "Greek-character02", "Tengwar-c", "ULOG-c"]),
        "path": "",
        "file_pattern": "{}.tfrecords",
        "__class__": "BiLevelDatasetSpecification",
    }


def node(name: str, words: str, *children: str) -> Json:
    return {"wn_id": name, "words": words, "children_ids": list(children), "parents_ids": []}


def hierarchical() -> Json:
    train = [node("n1", "thing", "n2", "n3"), node("n2", "dog"), node("n3", "cat")]
    return {
        "name": "ilsvrc_2012",
        "split_subgraphs": {"TRAIN": train, "VALID": [], "TEST": [node("n9", "device")]},
        "images_per_class": {"TRAIN": {"n1": 3, "n2": 1, "n3": 2}, "VALID": {}, "TEST": {"n9": 1}},
        "class_names": by_id(["n2", "n3", "n9"]),
        "path": "",
        "file_pattern": "{}.tfrecords",
        "__class__": "HierarchicalDatasetSpecification",
    }


KINDS = [flat, bilevel, hierarchical]
COUNTS = {flat: [3, 1, 2, 2], bilevel: [2, 2, 2, 2], hierarchical: [1, 2, 1]}


def image_of(class_id: int, number: int) -> bytes:
    return f"picture {number} of class {class_id}".encode()


def record_of(class_id: int, number: int) -> bytes:
    image = bytes_feature(image_of(class_id, number))
    return framed(example(image=image, label=packed_integers(class_id)))


def write_records(folder: Path, counts: list[int]) -> None:
    for class_id, count in enumerate(counts):
        contents = b"".join(record_of(class_id, number) for number in range(count))
        (folder / f"{class_id}.tfrecords").write_bytes(contents)


def write_dataset(parent: Path, spec: Json, counts: list[int]) -> MetaRecordsSource:
    folder = parent / spec["name"]
    folder.mkdir(parents=True)
    (folder / "dataset_spec.json").write_text(json.dumps(spec))
    write_records(folder, counts)
    return MetaRecordsSource(name=spec["name"], root=folder)


def listed(source: MetaRecordsSource) -> list[Item]:
    items = list(source.survey().items)
    assert all(isinstance(item, Item) for item in items)
    return [item for item in items if isinstance(item, Item)]


@pytest.fixture
def dtd(tmp_path: Path) -> MetaRecordsSource:
    return write_dataset(tmp_path, flat(), COUNTS[flat])


# ----------------------------------------------------------------------------- what is read


@pytest.mark.parametrize("kind", KINDS)
def test_every_record_becomes_an_item_with_the_very_bytes(tmp_path: Path, kind: Callable[[], Json]) -> None:
    source = write_dataset(tmp_path, kind(), COUNTS[kind])
    items = listed(source)
    records = [(c, n) for c, count in enumerate(COUNTS[kind]) for n in range(count)]
    classes = source.survey().classes
    assert [item.name for item in items] == [f"{c}.tfrecords:{n}" for c, n in records]
    assert [item.class_id for item in items] == [c for c, _ in records]
    assert [item.split for item in items] == [classes[c].split for c, _ in records]
    assert list(source.pictures(items[::-1])) == [image_of(c, n) for c, n in records[::-1]]


def test_flat_classes_have_names_and_splits_in_the_order_of_their_ids(dtd: MetaRecordsSource) -> None:
    classes = [(c.name, c.split, c.superclass) for c in dtd.survey().classes]
    assert classes == [
        ("banded", "train", ""),
        ("dotted", "train", ""),
        ("woven", "validation", ""),
        ("gauzy", "test", ""),
    ]


def test_classes_of_alphabets_take_split_and_superclass_from_them(tmp_path: Path) -> None:
    survey = write_dataset(tmp_path, bilevel(), COUNTS[bilevel]).survey()
    assert [(c.name, c.split, c.superclass) for c in survey.classes] == [
        ("Greek-character01", "train", "Greek"),
        ("Greek-character02", "train", "Greek"),
        ("Tengwar-c", "test", "Tengwar"),
        ("ULOG-c", "test", "ULOG"),
    ]


def test_leaves_of_the_graphs_are_classes_and_the_graphs_are_kept(tmp_path: Path) -> None:
    survey = write_dataset(tmp_path, hierarchical(), COUNTS[hierarchical]).survey()
    assert [(c.name, c.split, c.words) for c in survey.classes] == [
        ("n2", "train", "dog"),
        ("n3", "train", "cat"),
        ("n9", "test", "device"),
    ]
    assert survey.hierarchy == {
        "train": {"n1": ("n2", "n3"), "n2": (), "n3": ()},
        "validation": {},
        "test": {"n9": ()},
    }


def test_the_files_read_are_reported_with_their_sizes(dtd: MetaRecordsSource) -> None:
    (dtd.root / "num_leaf_images.json").write_text("{}")  # a cache, not needed
    files = {file.name: file.bytes for file in dtd.survey().files}
    assert list(files) == ["dataset_spec.json", *(f"{n}.tfrecords" for n in range(4))]
    assert all((dtd.root / name).stat().st_size == size for name, size in files.items())


def test_a_converted_dataset_is_recognised_by_its_spec(tmp_path: Path) -> None:
    whole = write_dataset(tmp_path, flat(), COUNTS[flat])
    assert is_converted(whole.root)
    assert not is_converted(tmp_path)


def test_a_folder_may_be_a_link_or_the_one_we_are_in(
    dtd: MetaRecordsSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = tmp_path / "link"
    link.symlink_to(dtd.root)
    monkeypatch.chdir(dtd.root)
    for root in (link, Path()):
        assert len(listed(MetaRecordsSource(name="dtd", root=root))) == 8


# ----------------------------------------------------------------------------- LITE's edited specs


def test_imagenet_with_a_flat_spec_is_as_good(tmp_path: Path) -> None:
    spec = {
        **flat(),
        "name": "ilsvrc_2012",
        "classes_per_split": {"TRAIN": 3, "VALID": 0, "TEST": 0},
        "class_names": by_id(["n2", "n3", "n9"]),
        "images_per_class": by_id([1, 2, 1]),
    }
    survey = write_dataset(tmp_path, spec, [1, 2, 1]).survey()
    assert {c.split for c in survey.classes} == {"train"}
    assert survey.hierarchy == {}


def test_mnist_with_all_classes_in_train_is_read(tmp_path: Path) -> None:
    spec = {
        **flat(),
        "name": "mnist",
        "classes_per_split": {"TRAIN": 10, "VALID": 0, "TEST": 0},
        "class_names": by_id([f"class_{digit}" for digit in range(10)]),
        "images_per_class": by_id([2] * 10),
    }
    assert len(listed(write_dataset(tmp_path, spec, [2] * 10))) == 20


# ----------------------------------------------------------------------------- the published specs

PUBLISHED = {  # classes in train, validation, test; images in them; fewest and most in a class
    "ilsvrc_2012": ((712, 158, 130), (915_249, 199_833, 165_682), (732, 1300)),
    "ilsvrc_2012_v2": ((1000, 0, 0), (1_280_764, 0, 0), (732, 1300)),
    "omniglot": ((883, 81, 659), (17_660, 1620, 13_180), (20, 20)),
    "aircraft": ((70, 15, 15), (7000, 1500, 1500), (100, 100)),
    "cu_birds": ((140, 30, 30), (8239, 1779, 1770), (41, 60)),
    "dtd": ((33, 7, 7), (3960, 840, 840), (120, 120)),
    "quickdraw": ((241, 52, 52), (34_776_331, 7_939_640, 7_710_295), (113_613, 340_029)),
    "fungi": ((994, 200, 200), (64_449, 12_195, 13_116), (6, 442)),
    "vgg_flower": ((71, 15, 16), (5655, 1109, 1425), (40, 258)),
    "traffic_sign": ((0, 0, 43), (0, 0, 39_209), (210, 2250)),
    "mscoco": ((0, 40, 40), (0, 513_021, 346_980), (198, 262_465)),
}


def published(name: str) -> Path:
    if "REAL_DATA" not in os.environ:
        pytest.skip("REAL_DATA, the folder with Meta-Dataset's own specs, is not set")
    folder = Path(os.environ["REAL_DATA"]) / "splits" / "meta_dataset" / "dataset_specs"
    return folder / f"{name}_dataset_spec.json"


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_specs_come_to_the_published_counts(name: str) -> None:
    spec = read_spec(published(name))
    classes = Counter(record.split for record in spec.classes)
    images: Counter[str] = Counter()
    for described, count in zip(spec.classes, spec.images, strict=True):
        images[described.split] += count
    splits = ("train", "validation", "test")
    found = (
        tuple(classes[split] for split in splits),  # type: ignore[index]
        tuple(images[split] for split in splits),
        (min(spec.images), max(spec.images)),
    )
    assert (spec.name, found) == (name, PUBLISHED[name])


def test_the_published_omniglot_gives_each_alphabet_its_range_of_classes() -> None:
    classes = read_spec(published("omniglot")).classes
    assert all(c.name.startswith(f"{c.superclass}-character") for c in classes)
    alphabets = {split: {c.superclass for c in classes if c.split == split} for split in ("train",)}
    assert len(alphabets["train"]) == 25
    validation = [c.superclass for c in classes if c.split == "validation"]
    sizes = [validation.count(name) for name in dict.fromkeys(validation)]
    assert sizes == [14, 14, 16, 17, 20]
    assert classes[883].superclass == "Blackfoot_(Canadian_Aboriginal_Syllabics)"
    assert len({c.superclass for c in classes[964:]}) == 20


@pytest.mark.parametrize(
    ("name", "nodes", "roots"),
    [
        ("ilsvrc_2012", (1011, 200, 180), ("n00001740", "n02075296", "n03183080")),
        ("ilsvrc_2012_v2", (1399, 0, 0), ("n00001740",)),
    ],
)
def test_the_published_imagenet_graphs_are_whole(
    name: str, nodes: tuple[int, ...], roots: tuple[str, ...]
) -> None:
    spec = read_spec(published(name))
    graphs = [spec.hierarchy[split] for split in ("train", "validation", "test")]
    assert tuple(map(len, graphs)) == nodes
    found = [set(g) - {child for children in g.values() for child in children} for g in graphs]
    assert [root for tops in found for root in sorted(tops)] == list(roots)
    leaves = {node for graph in graphs for node, children in graph.items() if not children}
    assert leaves == {record.name for record in spec.classes}
    assert all(record.words for record in spec.classes)
    examples = {"ilsvrc_2012": {0: "n01440764", 712: "n02085620", 870: "n02666196"}}
    for class_id, expected in examples.get(name, {}).items():
        assert spec.classes[class_id].name == expected


# ----------------------------------------------------------------------------- what is refused


def test_a_flipped_bit_in_a_record_costs_that_image_and_no_other(dtd: MetaRecordsSource) -> None:
    path, items = dtd.root / "0.tfrecords", listed(dtd)
    good, start = path.read_bytes(), len(record_of(0, 0))
    expected = list(dtd.pictures(items))
    for position in range(start + 12, start + len(record_of(0, 1))):
        damaged = bytearray(good)
        damaged[position] ^= 0x10
        path.write_bytes(damaged)
        assert listed(dtd) == items
        found = list(dtd.pictures(items))
        assert found[:1] + found[2:] == expected[:1] + expected[2:]
        assert isinstance(found[1], Rejected)
        assert found[1].name == "0.tfrecords:1"
        assert "checksum" in found[1].reason


def test_a_damaged_first_record_is_a_rejected_image_too(dtd: MetaRecordsSource) -> None:
    path = dtd.root / "0.tfrecords"
    path.write_bytes(path.read_bytes().replace(b"picture 0", b"pictura 0"))
    assert [isinstance(p, Rejected) for p in dtd.pictures(listed(dtd))] == [True] + [False] * 7


def test_a_damaged_length_is_an_error(dtd: MetaRecordsSource) -> None:
    path = dtd.root / "0.tfrecords"
    damaged = bytearray(path.read_bytes())
    damaged[len(record_of(0, 0))] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(IntegrityError, match=r"0\.tfrecords, record 1 at byte .* is damaged"):
        listed(dtd)


def test_a_file_cut_off_anywhere_is_an_error(dtd: MetaRecordsSource) -> None:
    path = dtd.root / "0.tfrecords"
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(IntegrityError, match=r"0\.tfrecords"):
            listed(dtd)


def test_a_file_that_shrinks_after_listing_gives_rejected_images(dtd: MetaRecordsSource) -> None:
    items = listed(dtd)[:3]
    path = dtd.root / "0.tfrecords"
    os.truncate(path, path.stat().st_size - 5)
    assert [isinstance(p, Rejected) for p in dtd.pictures(items)] == [False, False, True]


@pytest.mark.parametrize(("count", "found"), [(2, "2"), (4, "4"), (0, "0")])
def test_another_number_of_records_is_an_error(dtd: MetaRecordsSource, count: int, found: str) -> None:
    (dtd.root / "0.tfrecords").write_bytes(b"".join(record_of(0, n) for n in range(count)))
    with pytest.raises(IntegrityError, match=rf"0\.tfrecords holds {found} records.*says 3"):
        listed(dtd)


def test_a_file_of_another_class_is_an_error_before_anything_is_built(dtd: MetaRecordsSource) -> None:
    (dtd.root / "0.tfrecords").write_bytes(b"".join(record_of(1, n) for n in range(3)))
    with pytest.raises(IntegrityError, match=r"first record: the label should be .* 0, and is 1"):
        listed(dtd)


def test_a_single_wrong_label_is_a_rejected_image(dtd: MetaRecordsSource) -> None:
    (dtd.root / "0.tfrecords").write_bytes(record_of(0, 0) + record_of(3, 1) + record_of(0, 2))
    found = list(dtd.pictures(listed(dtd)[:3]))
    assert [isinstance(image, Rejected) for image in found] == [False, True, False]
    assert isinstance(found[1], Rejected)
    assert "should be the file's, 0, and is 3" in found[1].reason


@pytest.mark.parametrize(
    "features",
    [
        {"image/embedding": bytes_feature(b"x"), "image/class/label": packed_integers(1)},
        {"image": bytes_feature(b"x", b"y"), "label": packed_integers(1)},
        {"image": bytes_feature(b"x"), "label": packed_integers(1, 1)},
        {"image": packed_integers(1), "label": packed_integers(1)},
        {"label": packed_integers(1)},
        {},
    ],
)
def test_examples_with_other_features_are_an_error(
    dtd: MetaRecordsSource, features: dict[str, bytes]
) -> None:
    (dtd.root / "1.tfrecords").write_bytes(framed(example(**features)))
    with pytest.raises(IntegrityError, match="one 'image' and one 'label' are needed; found"):
        listed(dtd)


def test_missing_files_are_named(dtd: MetaRecordsSource) -> None:
    (dtd.root / "1.tfrecords").unlink()
    (dtd.root / "3.tfrecords").unlink()
    with pytest.raises(SourceMissing, match=r"should hold 4 .* lacks 1\.tfrecords, 3\.tfrecords;"):
        dtd.survey()


def test_a_pipe_in_place_of_records_is_missing_and_not_waited_for(dtd: MetaRecordsSource) -> None:
    (dtd.root / "1.tfrecords").unlink()
    os.mkfifo(dtd.root / "1.tfrecords")
    with pytest.raises(SourceMissing, match=r"lacks 1\.tfrecords;"):
        dtd.survey()


@pytest.mark.parametrize("text", ["[" * 100_000, '{"name": "\\ud800"}'])
def test_a_spec_that_is_nested_deeply_or_names_no_characters_is_an_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "dataset_spec.json").write_text(text)
    with pytest.raises(IntegrityError, match="is not JSON"):
        read_spec(tmp_path / "dataset_spec.json")


def test_a_graph_in_which_a_node_lies_below_itself_is_an_error(tmp_path: Path) -> None:
    spec = hierarchical()
    spec["split_subgraphs"]["TRAIN"] += [node("n4", "a", "n5"), node("n5", "b", "n4")]
    (tmp_path / "dataset_spec.json").write_text(json.dumps(spec))
    with pytest.raises(IntegrityError, match="in TRAIN a node lies below itself: n"):
        read_spec(tmp_path / "dataset_spec.json")


def test_of_many_missing_files_the_first_are_named(tmp_path: Path) -> None:
    (tmp_path / "dtd").mkdir()
    spec = {**flat(), "classes_per_split": {"TRAIN": 50, "VALID": 0, "TEST": 0}}
    spec |= {"class_names": by_id(["x"] * 50), "images_per_class": by_id([1] * 50)}
    (tmp_path / "dtd" / "dataset_spec.json").write_text(json.dumps(spec))
    with pytest.raises(SourceMissing, match=r"lacks 0\.tfrecords, .*4\.tfrecords and 45 more"):
        MetaRecordsSource(name="dtd", root=tmp_path / "dtd").survey()


def test_files_beyond_the_classes_are_an_error(dtd: MetaRecordsSource) -> None:
    (dtd.root / "4.tfrecords").write_bytes(record_of(4, 0))
    with pytest.raises(IntegrityError, match=r"holds 4\.tfrecords beside the 4 classes"):
        dtd.survey()


def test_a_folder_must_bear_the_name_in_its_spec(dtd: MetaRecordsSource, tmp_path: Path) -> None:
    dtd.root.rename(tmp_path / "textures")
    with pytest.raises(IntegrityError, match=r"is that of 'dtd'; .* rename"):
        MetaRecordsSource(name="dtd", root=tmp_path / "textures").survey()


def test_a_pickled_spec_is_never_opened(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
            return os.mkdir, (str(tmp_path / "opened"),)

    (tmp_path / "dataset_spec.pkl").write_bytes(pickle.dumps(Trap()))
    assert is_converted(tmp_path)
    with pytest.raises(SourceMissing, match=r"only dataset_spec\.pkl is there, .* take the JSON"):
        MetaRecordsSource(name="dtd", root=tmp_path).survey()
    assert not (tmp_path / "opened").exists()


def test_a_folder_without_a_spec_says_what_is_needed(tmp_path: Path) -> None:
    for root in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(SourceMissing, match=r"dataset_spec\.json is needed and is not there"):
            MetaRecordsSource(name="dtd", root=root).survey()


@pytest.mark.parametrize(
    ("kind", "change", "problem"),
    [
        (flat, {"__class__": "Surprise"}, "__class__ should be one of .* is 'Surprise'"),
        (flat, {"__class__": None}, "'__class__' should be a text"),
        (flat, {"file_pattern": "{}_{}.tfrecords"}, "pools.*not supported"),
        (flat, {"images_per_class": by_id([{"train": 3}, 1, 2, 2])}, "pools"),
        (flat, {"images_per_class": by_id([3, 1, 2])}, "class_names comes to 4, images_per"),
        (flat, {"images_per_class": by_id([3, 1, 2, -2])}, "should hold counts and holds -2"),
        (flat, {"images_per_class": by_id([3, 1, 2, True])}, "should hold counts and holds True"),
        (flat, {"images_per_class": [3, 1, 2, 2]}, "'images_per_class' should be a table"),
        (flat, {"class_names": {"0": "a", "2": "b"}}, "2 entries and none for 1"),
        (flat, {"class_names": by_id(["a", "b", "c", 4])}, "something other than names"),
        (flat, {"classes_per_split": {"TRAIN": 10**15, "VALID": 0, "TEST": 0}}, "comes to 10000"),
        (flat, {"classes_per_split": {"TRAIN": 4}}, "should have TRAIN, VALID, TEST"),
        (bilevel, {"classes_per_superclass": by_id([2, 1, 10**15])}, "comes to 10000"),
        (bilevel, {"superclass_names": by_id(["a", "b"])}, "comes to 2"),
        (bilevel, {"superclasses_per_split": {"TRAIN": 1, "VALID": 1, "TEST": 2}}, "comes to 4"),
        (hierarchical, {"class_names": by_id(["n3", "n9", "n2"])}, "the 2 leaves of TRAIN"),
        (hierarchical, {"class_names": by_id(["n2", "n3", "n9", "n9"])}, "comes to 4"),
        (hierarchical, {"images_per_class": {"TRAIN": {"n2": 1, "n3": 2}}}, "of TEST"),
        (hierarchical, {"split_subgraphs": {"TRAIN": [], "TEST": []}}, "0 leaves|list for VALID"),
        (hierarchical, {"split_subgraphs": {"TRAIN": [node("n1", "x", "n5")]}}, "n5"),
        (hierarchical, {"split_subgraphs": {"TRAIN": [node("n1", "x")] * 2}}, "a node twice"),
        (hierarchical, {"split_subgraphs": {"TRAIN": [{"wn_id": 7}]}}, "a node without"),
    ],
)
def test_a_spec_that_contradicts_itself_is_an_error(
    tmp_path: Path, kind: Callable[[], Json], change: Json, problem: str
) -> None:
    path = tmp_path / "dataset_spec.json"
    path.write_text(json.dumps({**kind(), **change}))
    with pytest.raises(IntegrityError, match=problem):
        read_spec(path)


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000, b'"x"', b"{}"])
def test_a_spec_that_is_no_such_json_is_an_error(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "dataset_spec.json"
    path.write_bytes(text)
    with pytest.raises(IntegrityError, match=r"dataset_spec\.json"):
        read_spec(path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("entry", ["name", "class_names", "images_per_class", "file_pattern"])
def test_a_spec_without_an_entry_is_a_clear_error(
    tmp_path: Path, kind: Callable[[], Json], entry: str
) -> None:
    path = tmp_path / "dataset_spec.json"
    path.write_text(json.dumps({key: value for key, value in kind().items() if key != entry}))
    with pytest.raises(PipelineError, match=f"'{entry}'"):
        read_spec(path)
