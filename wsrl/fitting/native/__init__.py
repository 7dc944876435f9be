"""The gradient kernel in C++ for CPUs: compiled on its first use, kept in the user's cache, called through ctypes."""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

SOURCES = [Path(__file__).with_name(name) for name in ("gradient.cpp", "vectors.h")]
FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-fopenmp")
COMPILE_TIMEOUT_S = 120


class Network(ctypes.Structure):
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


class Batch(ctypes.Structure):
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
    )


@functools.cache
def load() -> tuple[ctypes.CDLL | None, str]:
    """The compiled kernel, or None with the reason why this machine has none.

    torch must have been imported: the kernel then shares its OpenMP threads.
    """
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", ""), "c++", "g++", "clang++"))), None)
    if compiler is None:
        return None, "there is no C++ compiler (c++, g++, clang++ or $CXX)"
    try:
        library = ctypes.CDLL(str(_compiled(compiler)))
    except subprocess.CalledProcessError as error:
        return None, f"{compiler} failed: {error.stderr.strip()[:500]}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    library.wsrl_gradients.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    library.wsrl_gradients.restype = ctypes.c_int
    return library, ""


def _compiled(compiler: str) -> Path:
    """Path of the compiled kernel; compiled if no earlier process did so for this source, compiler and processor."""
    version = subprocess.run((compiler, "--version"), capture_output=True, text=True, check=True, timeout=10).stdout
    key = "\n".join((*(source.read_text() for source in SOURCES), *FLAGS, compiler, version, _processor()))
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "wsrl"
    path = folder / f"gradient-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        made = Path(temporary) / path.name
        command = (compiler, *FLAGS, str(SOURCES[0]), "-o", str(made))
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=COMPILE_TIMEOUT_S)
        made.replace(path)  # whole or not at all: several processes may compile at once
    return path


def _processor() -> str:
    """What ``-march=native`` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() + platform.machine()
    return "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}))
