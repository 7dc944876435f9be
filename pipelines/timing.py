"""What speed is measured with: seconds, the matrix peak of the machine, the operations of a step, half precision."""

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from wsrl.fields import Representation

PEAK_SIZE = 2048
BFLOAT16_FLAGS = ("avx512_bf16", "amx_bf16")
"""What Linux calls the instructions for matrix products of bfloat16."""


def timed(work: Callable) -> tuple[float, Any]:
    """Seconds that something took, and what it returned."""
    began = time.perf_counter()
    outcome = work()
    return time.perf_counter() - began, outcome


def matrix_peak() -> float:
    """GFLOP/s of torch's product of two large float32 matrices: the median of seven."""
    a, b = torch.randn(2, PEAK_SIZE, PEAK_SIZE, generator=torch.Generator().manual_seed(0))
    a @ b
    return 2 * PEAK_SIZE**3 / statistics.median(timed(lambda: a @ b)[0] for _ in range(7)) / 1e9


def step_flops(representation: Representation, num_points: int) -> float:
    """Operations of the matrix products of one step on all points: values, gradients of inputs and of weights."""
    shapes = representation.field_config.layer_shapes(representation.in_features, representation.out_features)
    sizes = [fan_out * fan_in for fan_out, fan_in in shapes]
    trained = [size for size, part in zip(sizes, representation.parts()) if part.down or isinstance(part.weight, str)]
    return 2.0 * num_points * (sum(sizes) + sum(sizes[1:]) + sum(trained))


def bfloat16_instructions(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, float]:
    """Which instructions for products of bfloat16 the processor has, 1 or 0 for each.

    Args:
        cpuinfo: What the system says about the processor; flags are in a line ``flags``. Without the file: none.
    """
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    flags = {flag for line in text.splitlines() if line.startswith("flags") for flag in line.split()}
    return {f"processor.{name}": float(name in flags) for name in BFLOAT16_FLAGS}
