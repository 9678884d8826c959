"""Adapt a learner to images in the browser: `python -m learners.demo --checkpoint runs/pets`."""

from __future__ import annotations

import errno
import sys
import webbrowser
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from threading import Thread
from typing import Final

from learners.demo.server import DemoServer
from learners.demo.service import DemoService
from learners.networks.backbones import PRETRAINED
from learners.use.classifier import Learner
from pipeline.command import command_parser, run_command
from pipeline.errors import UsageError
from pipeline.settings import flag_name

DEMO_IMAGE_SIZE: Final = 224  # pixels
DEMO_PORT: Final = 8000
LAST_PORT: Final = (1 << 16) - 1
DEMO_EXAMPLES: Final = """\
  python -m learners.demo --checkpoint runs/md-simple_cnaps
  python -m learners.demo --backbone mobilenetv1_075 --weights mobilenet.safetensors --port 0
  python -m learners.demo --backbone efficientnet_b0 --image-size 224 --device cuda --no-browser
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the page until Ctrl-C."""
    arguments = _parser().parse_args(argv)
    with _open_server(arguments.port) as server:
        learner = _load_learner(arguments)
        server.service = DemoService(learner)
        sys.stdout.write(
            f"{learner.info.learner} with {learner.info.backbone} at {server.url} for this computer "
            "alone; Ctrl-C ends it\n"
        )
        sys.stdout.flush()
        if not arguments.no_browser:
            Thread(target=webbrowser.open, args=(server.url,), daemon=True).start()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            sys.stdout.write("ended\n")
    return 0


def _open_server(port: int) -> DemoServer:
    """A server that has its port, before time is spent on loading a learner."""
    if not 0 <= port <= LAST_PORT:
        raise UsageError(f"--port is 0, for any that is free, or up to {LAST_PORT}; got {port}")
    try:
        return DemoServer(port)
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        reason = "taken" if error.errno == errno.EADDRINUSE else "not allowed to this user"
        raise UsageError(
            f"the port {port} is {reason}; give another with --port, or --port 0 for any that is free"
        ) from error


def _load_learner(arguments: Namespace) -> Learner:
    if arguments.checkpoint is not None:
        given = [name for name in ("weights", "image_size") if getattr(arguments, name) is not None]
        if given:
            options = " and ".join(map(flag_name, given))
            raise UsageError(f"a checkpoint says {options} itself; leave that out")
        return Learner.load(arguments.checkpoint, arguments.device)
    return Learner.pretrained(
        arguments.backbone,
        weights=arguments.weights or PRETRAINED,
        image_size=arguments.image_size or DEMO_IMAGE_SIZE,
        device=arguments.device,
    )


def _parser() -> ArgumentParser:
    text = "Open a local page that adapts a learner to images of named classes and classifies others."
    flags = command_parser("learners.demo", text, DEMO_EXAMPLES)
    source = flags.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", type=Path, help="a run's folder, or a checkpoint of it")
    source.add_argument(
        "--backbone", help="without a run: a backbone, to whose features a linear layer is fitted"
    )
    add = flags.add_argument
    add("--weights", help="of the backbone: a file (default: pretrained, timm's hub)")
    add("--image-size", type=int, help=f"of the backbone (default: {DEMO_IMAGE_SIZE})")
    add("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    add("--port", type=int, default=DEMO_PORT, help="0: any that is free (default: %(default)s)")
    add("--no-browser", action="store_true", help="print the address alone")
    return flags


if __name__ == "__main__":
    sys.exit(run_command(main))
