import numpy as np
from numpy.typing import NDArray

from pipeline.store.local import OpenShard

def fill(
    files: dict[int, OpenShard],
    table: NDArray[np.int64],
    begin: int,
    end: int,
    out: memoryview,
    size: int,
    header: bytes,
    fast: bool,
    /,
) -> list[int]: ...
