"""Adapt a learner to folders of your own photographs, then classify others.

my/photos/mug/*.jpg  my/photos/keys/*.jpg  ...    a folder for each thing, five pictures will do
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from typing import Final

from learners.use.classifier import Learner, PortableClassifier
from learners.use.pictures import ImageInput, image_names, list_images
from pipeline.command import command_parser, run_command
from pipeline.errors import UsageError

SHOWN_CLASSES: Final = 3  # classes that a line of the table names
EXAMPLES: Final = """\
  python examples/own_photos.py --checkpoint runs/md-simple_cnaps my/photos what.jpg
  python examples/own_photos.py --weights mobilenet.safetensors my/photos what.jpg unknown/
  python examples/own_photos.py --weights pretrained --backbone efficientnet_b0 my/photos --save mine.safetensors
  python examples/own_photos.py --classifier mine.safetensors what.jpg
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Adapt or load a classifier, save it if --save is given, classify the queries."""
    arguments = _parser().parse_args(argv)
    classifier, queries = _load_classifier(arguments)
    print("classes:", ", ".join(classifier.classes))
    if arguments.save:
        classifier.save(arguments.save)
        print("saved", arguments.save)
    if queries:
        _print_answers(classifier, queries)
    return 0


def _load_classifier(arguments: Namespace) -> tuple[PortableClassifier, list[ImageInput]]:
    """The classifier, loaded or adapted to the first place; and the query images."""
    places, device = list(arguments.places), arguments.device
    if arguments.classifier:
        return PortableClassifier.load(arguments.classifier, device), list_images(places)
    if not places:
        raise UsageError("name the folder of photographs, with a folder for each class in it")
    queries = list_images(places[1:])  # so that a mistyped name is an error before the work
    if arguments.checkpoint:
        learner = Learner.load(arguments.checkpoint, device)
    else:
        learner = Learner.pretrained(arguments.backbone, weights=arguments.weights, device=device)
    return learner.adapt(places[0]), queries


def _print_answers(classifier: PortableClassifier, queries: Sequence[ImageInput]) -> None:
    names = image_names(queries)
    width = max(map(len, names))
    for name, row in zip(names, classifier(queries), strict=True):
        best = row.topk(min(SHOWN_CLASSES, len(row)))
        pairs = zip(best.values.tolist(), best.indices.tolist(), strict=True)
        classes = "  ".join(f"{classifier.classes[label]} {share:.0%}" for share, label in pairs)
        print(f"{name:<{width}}  {classes}")


def _parser() -> ArgumentParser:
    flags = command_parser("own_photos", "Learn things from folders of photographs, name others.", EXAMPLES)
    flags.prog = "python examples/own_photos.py"
    flags.add_argument(
        "places",
        nargs="*",
        metavar="PLACE",
        help="the folder to learn from (not with --classifier), then pictures or folders to name",
    )
    source = flags.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", metavar="RUN", help="a training run, or one of its files")
    source.add_argument("--weights", metavar="FILE", help="a backbone's, or 'pretrained'; no run")
    source.add_argument("--classifier", metavar="FILE", help="what --save wrote")
    flags.add_argument("--backbone", default="mobilenetv1_075", help="of --weights (%(default)s)")
    flags.add_argument("--save", metavar="FILE", help="keep the classifier (safetensors)")
    flags.add_argument("--device", default="auto", help="cpu, cuda or auto (%(default)s)")
    return flags


if __name__ == "__main__":
    sys.exit(run_command(main))
