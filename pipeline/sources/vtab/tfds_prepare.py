"""Runs TFDS builders, which turn raw archives into record files, in a separate process.

This is the only module that imports TensorFlow, and only in that process: the builders extract, decode
and encode with it. Reading the record files needs neither TensorFlow nor TFDS (`tfds_folder`).

    python -m pipeline.sources.vtab.tfds_prepare --raw downloads --out tfds clevr eurosat/rgb
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final, NoReturn, TypeAlias
from unittest import mock

from pipeline.errors import IntegrityError, OutOfSpace, PipelineError, SourceMissing, UsageError
from pipeline.sources.inflation import hold_lock

TFDS_MODULES: Final = ("tensorflow_datasets", "tensorflow", "importlib_resources", "h5py", "scipy", "cv2")
LOG_LINES: Final = 12  # shown of a failed process: the end of the traceback and the exception
PACKAGE_ROOT: Final = Path(__file__).resolve().parents[2]
FAILURES: Final = {kind.exit_code: kind for kind in (SourceMissing, IntegrityError, OutOfSpace)}

Walk: TypeAlias = Iterator[tuple[str, list[str], list[str]]]

log = logging.getLogger(__name__)


def prepare_builders(
    builders: Sequence[str],
    raw: Path,
    out: Path,
    *,
    check_archives: bool = True,
    file_format: str = "array_record",
) -> None:
    """Let builders ("clevr", "eurosat/rgb") write `<out>/<builder>/[<config>/]<version>/`.

    `raw` holds the archives under their original names. Versions that are there already are kept.
    """
    missing = [name for name in TFDS_MODULES if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(
            f"{', '.join(builders)} must be converted by TFDS first, which needs {', '.join(missing)}: "
            "pip install -e '.[tensorflow]'; or give a folder that TFDS has prepared elsewhere"
        )
    out.mkdir(parents=True, exist_ok=True)
    prefix = builders[0].replace("/", "-") + "."
    handle, log_name = tempfile.mkstemp(prefix=prefix, suffix=".log", dir=out)
    log_file = Path(log_name)
    command = [sys.executable, "-m", "pipeline.sources.vtab.tfds_prepare", *builders]
    command += ["--raw", str(raw.resolve()), "--out", str(out.resolve()), "--format", file_format]
    command += [] if check_archives else ["--ignore-checksums"]
    log.info("TFDS prepares %s in %s (log: %s)", ", ".join(builders), out, log_file)
    with os.fdopen(handle, "wb") as output:
        done = subprocess.run(  # noqa: S603  (our own module, no shell)
            command, env=_environment(), stdout=output, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode:
        raise _process_failure(done.returncode, builders, log_file)
    log_file.unlink()


def _environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(PACKAGE_ROOT), os.environ.get("PYTHONPATH"))))
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "1", "TF_ENABLE_ONEDNN_OPTS": "0", "PYTHONWARNINGS": "ignore"}
    return {**os.environ, **quiet, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": "-1"}


def _process_failure(code: int, builders: Sequence[str], log_file: Path) -> PipelineError:
    lines = log_file.read_text(encoding="utf-8", errors="replace").splitlines()
    end = [f"  {line}" for line in lines if line.strip()][-LOG_LINES:]
    how = f"ended with exit code {code}"
    if code < 0:
        how = f"was killed by signal {-code} (9 often means that memory ran out)"
    kind = FAILURES.get(code, IntegrityError)
    text = "\n".join(end)
    return kind(f"TFDS could not prepare {', '.join(builders)}: it {how}; {log_file} ends:\n{text}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the builders one after the other; this is what the separate process does."""
    parser = argparse.ArgumentParser(description="Prepare datasets with TFDS, without a download.")
    parser.add_argument("builders", nargs="+", help="clevr, eurosat/rgb ...")
    parser.add_argument("--raw", type=Path, required=True, help="folder of the original archives")
    parser.add_argument("--out", type=Path, required=True, help="TFDS data folder to write to")
    parser.add_argument("--format", default="array_record", choices=("array_record", "tfrecord"))
    parser.add_argument("--ignore-checksums", action="store_true")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO)
    try:
        for builder in given.builders:
            given.out.mkdir(parents=True, exist_ok=True)
            with hold_lock(given.out / f".{builder.replace('/', '-')}.lock", f"{builder} to be prepared"):
                _run_builder(builder, given.raw, given.out, given.format, check=not given.ignore_checksums)
    except PipelineError as error:
        log.error("%s", error)  # noqa: TRY400  (a message for users; its cause is clear)
        return error.exit_code
    except Exception as error:  # TFDS and TensorFlow report a full disk in types of their own
        if "No space left" not in str(error):
            raise
        log.exception("the disk is full")
        return OutOfSpace.exit_code
    return 0


def _run_builder(name: str, raw: Path, out: Path, file_format: str, *, check: bool) -> None:
    import tensorflow as tf  # noqa: PLC0415
    import tensorflow_datasets as tfds  # noqa: PLC0415
    from tensorflow_datasets.core.download import download_manager  # noqa: PLC0415

    work = out / f".{name.replace('/', '-')}.work"  # archives unpacked
    config = tfds.download.DownloadConfig(manual_dir=str(raw), try_download_gcs=False)
    manager = download_manager.DownloadManager
    gfile = tf.io.gfile
    with ExitStack() as patches:
        # Caltech-101's builder draws its splits from a listing in the order of the file system, which
        # differs between machines. No order is official; with sorted listings all machines agree.
        patch = mock.patch.object
        patches.enter_context(patch(gfile, "listdir", _sorted_listdir(gfile.listdir)))
        patches.enter_context(patch(gfile, "walk", _sorted_walk(gfile.walk)))
        patches.enter_context(patch(manager, "_download", _refuse_download))
        if not check:
            validate = "_register_or_validate_checksums"
            patches.enter_context(patch(manager, validate, lambda *_, **__: None))
        try:
            builder = tfds.builder(name, data_dir=str(out), file_format=file_format)
            builder.download_and_prepare(download_dir=str(work), download_config=config)
        except download_manager.NonMatchingChecksumError as error:
            raise IntegrityError(f"{name}: {error}") from error
        finally:
            shutil.rmtree(work, ignore_errors=True)


def _refuse_download(_manager: object, resource: object) -> NoReturn:
    url = getattr(resource, "url", resource)
    raise SourceMissing(f"{url} is needed and is not in the raw folder; nothing is downloaded here")


def _sorted_listdir(listdir: Callable[[Path], list[str]]) -> Callable[[Path], list[str]]:
    return lambda path: sorted(listdir(path))


def _sorted_walk(walk: Callable[..., Walk]) -> Callable[..., Walk]:
    def walked(*arguments: object, **options: object) -> Walk:
        for folder, folders, files in walk(*arguments, **options):
            folders.sort()
            files.sort()
            yield folder, folders, files

    return walked


if __name__ == "__main__":
    sys.exit(main())
