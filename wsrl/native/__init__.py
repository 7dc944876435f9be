"""Kernels in C++ for CPUs: compiled on their first use, kept in the user's cache, called through ctypes."""

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

from wsrl.caches import PRIVATE, code_cache, is_ours_alone
from wsrl.durable import publish

HEADERS = [Path(__file__).with_name("vectors.h")]
FLAGS = ("-O3", "-march=native", "-std=c++17", "-shared", "-fPIC", "-fopenmp", f"-I{Path(__file__).parent}")
COMPILE_TIMEOUT_S = 120
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of glibc


def load(source: Path) -> tuple[ctypes.CDLL | None, str]:
    """The library of one source file, or None with the reason why this machine has none.

    torch must have been imported: the kernels then share its OpenMP threads.

    Args:
        source: A C++ file of this package.
    """
    compiler = next(filter(None, map(shutil.which, (os.environ.get("CXX", ""), "c++", "g++", "clang++"))), None)
    if compiler is None:
        return None, "there is no C++ compiler (c++, g++, clang++ or $CXX)"
    try:
        return ctypes.CDLL(str(_compiled(compiler, source))), ""
    except subprocess.CalledProcessError as error:
        return None, f"{compiler} failed: {error.stderr.strip()[:500]}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)


def _compiled(compiler: str, source: Path) -> Path:
    """Path of the compiled kernel; compiled if no earlier process did so for this source, compiler and processor."""
    version = subprocess.run((compiler, "--version"), capture_output=True, text=True, check=True, timeout=10).stdout
    texts = (file.read_text() for file in (source, *HEADERS))
    key = "\n".join((*texts, *FLAGS[:-1], compiler, version, _processor()))
    folder = code_cache("kernels")
    path = folder / f"{source.stem}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.so"
    if is_ours_alone(path):
        return path
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        made = Path(temporary) / path.name
        command = (compiler, *FLAGS, str(source), "-o", str(made))
        subprocess.run(command, capture_output=True, text=True, check=True, timeout=COMPILE_TIMEOUT_S)
        made.chmod(PRIVATE)
        publish(made, path)  # whole or not at all: several processes may compile at once
    return path


def _processor() -> str:
    """What ``-march=native`` depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() + platform.machine()
    return "".join(sorted({line for line in lines if line.startswith(("model name", "flags", "Features", "CPU part"))}))


def keep_freed_memory() -> None:
    """Have this process keep the memory that it frees, where the C library can.

    Arrays of some megabytes are otherwise given back to the system and fetched anew at every step, which takes longer
    than what is computed in them.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # glibc
        library.mallopt(_M_MMAP_THRESHOLD, 1 << 25)  # the largest that is taken
        library.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
