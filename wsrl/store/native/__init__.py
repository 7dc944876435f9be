"""The fingerprint kernel in C++: how it is called from Python."""

import ctypes
import functools
import sys
from pathlib import Path

from wsrl import native

SOURCE = Path(__file__).with_name("fingerprint.cpp")


@functools.cache
def load() -> tuple[ctypes.CDLL | None, str]:
    """The compiled kernel, or None with the reason why this machine has none."""
    if sys.byteorder != "little":
        return None, "words of this machine begin with their highest byte"
    library, reason = native.load(SOURCE)
    if library is not None:
        library.wsrl_fingerprint.argtypes = (
            *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64),
            *(ctypes.c_void_p, ctypes.c_int64),
        )
        library.wsrl_fingerprint.restype = ctypes.c_uint64
    return library, reason
