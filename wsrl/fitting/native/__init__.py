"""The gradient kernel in C++: what its structures look like from Python."""

import ctypes
import functools
from pathlib import Path

from wsrl import native

SOURCE = Path(__file__).with_name("gradient.cpp")


class NetworkStruct(ctypes.Structure):
    """``Network`` of the source: sizes, activation and loss."""

    _fields_ = (
        ("num_layers", ctypes.c_int64),
        ("activation", ctypes.c_int64),
        ("residual", ctypes.c_int64),
        ("omega", ctypes.c_double),
        ("sizes", ctypes.c_void_p),
        ("loss", ctypes.c_int64),
        ("low", ctypes.c_double),
        ("high", ctypes.c_double),
    )


class Tensor(ctypes.Structure):
    """``Tensor`` of the source: the first field's values and gradient, and the distance to those of the next field."""

    _fields_ = (("value", ctypes.c_void_p), ("grad", ctypes.c_void_p), ("step", ctypes.c_int64))


class Layer(ctypes.Structure):
    """``Layer`` of the source: its tensors, the rank of its adapter and how that acts."""

    _fields_ = (
        *((name, Tensor) for name in ("weight", "bias", "down", "up")),
        *((name, ctypes.c_int64) for name in ("rank", "form")),
    )


class BatchStruct(ctypes.Structure):
    """``Batch`` of the source: the points of all fields, and where losses or values go."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("num_fields", "num_points", "feature_stride", "feature_step")),
        ("features", ctypes.c_void_p),
        ("targets", ctypes.c_void_p),
        ("target_step", ctypes.c_int64),
        ("losses", ctypes.c_void_p),
        ("values", ctypes.c_void_p),
        ("weights", ctypes.c_void_p),
        ("weight_step", ctypes.c_int64),
        ("drawn", ctypes.c_void_p),
        ("drawn_step", ctypes.c_int64),
    )


@functools.cache
def load() -> tuple[ctypes.CDLL | None, str]:
    """The compiled kernel, or None with the reason why this machine has none."""
    library, reason = native.load(SOURCE)
    if library is not None:
        library.wsrl_gradients.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
        library.wsrl_gradients.restype = ctypes.c_int
    return library, reason
