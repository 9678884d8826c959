"""One dataset against everything known about it: manifest, index, records, and the tars themselves."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa

from pipeline.constants import QUALITY
from pipeline.damage import Problem, Remedy, Report
from pipeline.errors import SourceMissing
from pipeline.finalize import _wids as wids_text
from pipeline.index import Manifest
from pipeline.jobs import read_commit
from pipeline.layout import TEMPORARY, Layout
from pipeline.plan import read_plan_header
from pipeline.progress import Progress
from pipeline.records import Encoding, ShardFile
from pipeline.rederive import UNREADABLE, Derived, read_index, rederive
from pipeline.tarcheck import Row, TarState, check_tar

FACTS: Final = ("class_id", "split", "group", "user", "kind", "frame", *QUALITY)
"""Columns of the index that the json members repeat."""
