"""A soak in small: a build that is killed and resumed, and what counts as left behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.images import tree_hashes
from tests.soak.disturbed import SoakFailure
from tests.soak.jobs import SoakJob, differences
from tests.soak.leaks import HeldResources, named_shared_memory, unused_shared_memory
from tests.soak.session import SoakSession
from tests.soak.settings import build_command

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/stat").exists(), reason="looks at processes as Linux has them"
)
BUILD = SoakJob("build", build_command, tree_hashes)


def test_a_build_that_is_disturbed_at_random_ends_with_the_same_bytes(tmp_path: Path) -> None:
    session = SoakSession(tmp_path, seed=1)
    session.undisturbed(BUILD)
    session.disturbed_round(BUILD)
    assert session.tally.kinds
    session.check_nothing_is_left(shared_memory=False)  # other tests use it meanwhile


def test_a_result_that_differs_is_a_failure(tmp_path: Path) -> None:
    def write_anew(out: Path) -> list[str]:
        out.mkdir(exist_ok=True)
        return [sys.executable, "-c", f"import os; open({str(out / 'file')!r}, 'wb').write(os.urandom(8))"]

    session = SoakSession(tmp_path, seed=0)
    job = SoakJob("random", write_anew, tree_hashes)
    session.undisturbed(job)
    with pytest.raises(SoakFailure, match="differs from the undisturbed one: \\['file'\\]"):
        session.disturbed_round(job)


def test_a_temporary_file_and_a_process_that_are_left_are_failures(tmp_path: Path) -> None:
    session = SoakSession(tmp_path, seed=0)
    (tmp_path / "tmp" / "forgotten").touch()
    with pytest.raises(SoakFailure, match="temporary files: \\['forgotten'\\]"):
        session.check_nothing_is_left(shared_memory=False)
    with subprocess.Popen(["sleep", "60"], env=os.environ | session.environment) as process:
        with pytest.raises(SoakFailure, match=f"processes live on: .*{process.pid}"):
            session.check_nothing_is_left(shared_memory=False)
        process.kill()


def test_what_a_process_holds_is_counted() -> None:
    before = HeldResources.of(os.getpid())
    read, write = os.pipe()
    after = HeldResources.of(os.getpid())
    os.close(read)
    os.close(write)
    assert after.grew_from(before) == "2 more descriptors"
    assert before.grew_from(after) == ""


def test_named_shared_memory_belongs_to_who_maps_it() -> None:
    path = Path("/dev/shm") / f"lite-shards-test-{os.getpid()}"
    with path.open("wb") as file:
        assert str(path) in named_shared_memory([os.getpid()])
        assert str(path) not in unused_shared_memory()
        path.unlink()
        assert str(path) not in named_shared_memory([file.fileno(), os.getpid()])


def test_parts_that_one_side_lacks_differ() -> None:
    assert differences({"a": 1, "b": 2}, {"b": 3, "c": 4}) == ["a", "b", "c"]
