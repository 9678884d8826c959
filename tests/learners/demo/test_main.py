"""The command serves until Ctrl-C; a wrong command is an error that says why."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from learners import checkpoint
from learners.demo.__main__ import main
from learners.demo.server import DemoServer
from learners.use.classifier import Learner
from pipeline.command import run_command

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def run(learner: Learner, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run."""
    folder = tmp_path_factory.mktemp("run")
    tensors, values = checkpoint.flatten({"learner": learner.net.state_dict()})
    info = learner.info.described()
    checkpoint.save(folder / "last.safetensors", tensors, {"about": info, "state": values, "tasks": 7})
    return folder


def test_the_command_serves_the_page_until_ctrl_c(run: Path) -> None:
    command = [sys.executable, "-m", "learners.demo", "--checkpoint", str(run)]
    with subprocess.Popen(
        [*command, "--port", "0", "--no-browser", "--device", "cpu"],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        line = process.stdout.readline()
        match = re.search(r"protonets with conv4 at (http://127\.0\.0\.1:\d+/\?key=[\w-]+) ", line)
        assert match, line
        with urlopen(match[1]) as page:
            assert b"Show it a few pictures" in page.read()
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (0, "ended\n", "")


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--checkpoint", "nowhere"], 3, "nowhere should be a checkpoint"),
        (["--checkpoint", "{run}", "--weights", "x"], 2, "a checkpoint says --weights itself"),
        (["--checkpoint", "{run}", "--image-size", "9"], 2, "says --image-size itself"),
        (["--checkpoint", "{run}", "--port", "65536"], 2, "--port is 0, for any that is free"),
        (["--backbone", "conv4", "--weights", "x.safetensors"], 3, "x.safetensors"),
    ],
)
def test_a_wrong_command_says_why(
    options: list[str], code: int, message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [option.format(run=run) for option in options]
    port = [] if "--port" in given else ["--port", "0"]
    assert run_command(main, [*given, "--no-browser", *port]) == code
    assert message in capsys.readouterr().err


def test_a_port_that_is_taken_is_an_error(
    server: DemoServer, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = str(server.server_address[1])
    assert run_command(main, ["--checkpoint", str(run), "--no-browser", "--port", port]) == 2
    assert f"the port {port} is taken; give another with --port" in capsys.readouterr().err
