import numpy as np
from numpy.typing import NDArray

def deal(tops: NDArray[np.int64], places: NDArray[np.int64], /) -> None: ...
