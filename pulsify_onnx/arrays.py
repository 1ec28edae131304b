"""Arrays, and constants that compare by value."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class Const:
    """A numpy array that compares and hashes by value."""

    __slots__ = ("_key", "array")

    def __init__(self, array: Any):
        self.array: Array = np.asarray(array)
        self._key = (self.array.shape, self.array.dtype.str, self.array.tobytes())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Const) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        text = np.array2string(self.array, threshold=6, separator=",").replace("\n", "")
        return f"Const({text})"
