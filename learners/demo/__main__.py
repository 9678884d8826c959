"""Show pictures to a learner in the browser: `python -m learners.demo --checkpoint runs/pets`."""

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
from learners.demo.service import Service
from learners.networks.backbones import PRETRAINED
from learners.use.classifier import Learner
from pipeline.command import parser, run_command
from pipeline.errors import UsageError

IMAGE_SIZE: Final = 224  # pixels
PORT: Final = 8000
PORTS: Final = 1 << 16
EXAMPLES: Final = """\
  python -m learners.demo --checkpoint runs/md-simple_cnaps
  python -m learners.demo --backbone mobilenetv1_075 --weights mobilenet.safetensors --port 0
  python -m learners.demo --backbone efficientnet_b0 --image-size 224 --device cuda --no-browser
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the page until Ctrl-C."""
    arguments = _parser().parse_args(argv)
    with _server(arguments.port) as server:
        learner = _learner(arguments)
        server.service = Service(learner)
        sys.stdout.write(
            f"{learner.about.learner} with {learner.about.backbone} at {server.url} for this computer "
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


def _server(port: int) -> DemoServer:
    """With its port taken, before a learner is loaded in vain."""
    if not 0 <= port < PORTS:
        raise UsageError(f"--port is 0, for any that is free, or up to {PORTS - 1}; got {port}")
    try:
        return DemoServer(port)
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        reason = "taken" if error.errno == errno.EADDRINUSE else "not allowed to this user"
        raise UsageError(
            f"the port {port} is {reason}; give another with --port, or --port 0 for any that is free"
        ) from error


def _learner(arguments: Namespace) -> Learner:
    if arguments.checkpoint is not None:
        given = [name for name in ("weights", "image_size") if getattr(arguments, name) is not None]
        if given:
            options = " and ".join(f"--{name.replace('_', '-')}" for name in given)
            raise UsageError(f"a checkpoint says {options} itself; leave that away")
        return Learner.load(arguments.checkpoint, arguments.device)
    return Learner.pretrained(
        arguments.backbone,
        weights=arguments.weights or PRETRAINED,
        image_size=arguments.image_size or IMAGE_SIZE,
        device=arguments.device,
    )


def _parser() -> ArgumentParser:
    text = "Open a local page on which a learner is shown pictures of named classes and asked about others."
    found = parser("learners.demo", text, EXAMPLES)
    what = found.add_mutually_exclusive_group(required=True)
    what.add_argument("--checkpoint", type=Path, help="a run's folder, or a checkpoint of it")
    what.add_argument(
        "--backbone", help="without a run: a backbone, to whose features a linear layer is fitted"
    )
    found.add_argument(
        "--weights", help="of the backbone: a file (default: pretrained, timm's hub)"
    )
    found.add_argument("--image-size", type=int, help=f"of the backbone (default: {IMAGE_SIZE})")
    found.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    found.add_argument(
        "--port", type=int, default=PORT, help=f"0: any that is free (default: {PORT})"
    )
    found.add_argument("--no-browser", action="store_true", help="print the address alone")
    return found


if __name__ == "__main__":
    sys.exit(run_command(main))
