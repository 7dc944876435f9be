"""The mixing kernel in C++: what its structures look like from Python."""

import ctypes
import functools
from pathlib import Path

from wsrl import native

SOURCE = Path(__file__).with_name("mix.cpp")


class Mix(ctypes.Structure):
    """``Mix`` of the source: sizes, what goes in, and where results go."""

    _fields_ = (
        *(
            (name, ctypes.c_int64)
            for name in ("num_networks", "p", "q", "f", "c", "d", "e", "chunks", "weight_step", "gated")
        ),
        ("slope", ctypes.c_float),
        *((name, ctypes.c_void_p) for name in ("values", "weight", "by_pf", "by_qf", "by_pq")),
        *((name, ctypes.c_void_p) for name in ("out", "mean_pf", "mean_qf", "mean_pq", "square")),
    )


class MixGradient(ctypes.Structure):
    """``MixGradient`` of the source: gradients of the results, and where those of the arguments go."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("out", "mean_pf", "mean_qf", "mean_pq", "square")),
        *((name, ctypes.c_void_p) for name in ("values", "weight", "by_pf", "by_qf", "by_pq")),
    )


@functools.cache
def load() -> tuple[ctypes.CDLL | None, str]:
    """The compiled kernel, or None with the reason why this machine has none."""
    library, reason = native.load(SOURCE)
    if library is not None:
        library.wsrl_mix.argtypes = (ctypes.c_void_p, ctypes.c_int64)
        library.wsrl_mix_gradient.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
        library.wsrl_mix.restype = library.wsrl_mix_gradient.restype = None
    return library, reason
