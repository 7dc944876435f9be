"""How much faster meshes are found coarse to fine than on the whole grid, whether they are equal, and peak memory.

python -m pipelines.benchmark_meshing --config configs/benchmark/meshing.yaml
"""

import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipelines.experiment import Experiment, main
from wsrl.fields.open import open_representation
from wsrl.fields.representation import Representation, RepresentationConfig
from wsrl.fields.surface import extract_surface
from wsrl.fitting.engine import FitConfig, fit, read_signals
from wsrl.signals import open_source
from wsrl.signals.form import SignalForm
from wsrl.store.field import Field


@dataclass(frozen=True, kw_only=True)
class FieldsConfig:
    """Fields that are fitted to every shape.

    Attributes:
        representation: A standalone representation.
        fit: How they are fitted.
        quantity: ``sdf`` or ``occupancy``.
    """

    representation: RepresentationConfig = RepresentationConfig(kind="mlp")
    fit: FitConfig = FitConfig()
    quantity: str = "sdf"


@dataclass(frozen=True, kw_only=True)
class MeshingConfig(Experiment):
    """What is meshed.

    Attributes:
        data: A source of shapes.
        source: Its options.
        fields: Fields by the name that they have in the record.
        resolution: Cells of a side where the time is compared.
        memory_resolution: Cells of a side where the memory is measured, of the first field of every kind.
        threads: Threads of torch.
    """

    name: str = "meshing"
    data: str = "solids"
    source: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, FieldsConfig] = field(default_factory=dict)
    resolution: int = 128
    memory_resolution: int = 512
    threads: int = 1


@dataclass
class Counted:
    """A field that counts the points at which it is evaluated."""

    distance: Callable[[Tensor], Tensor]
    points: int = 0

    def __call__(self, coords: Tensor) -> Tensor:
        self.points += len(coords)
        return self.distance(coords)


@dataclass(frozen=True)
class Comparison:
    """One field meshed by both methods; seconds are of the processor, so that other work does not count."""

    coarse_s: float
    dense_s: float
    share: float
    equal: bool
    closed: bool
    faces: int


def unequal(results: dict[str, float]) -> list[str]:
    """What is not the mesh of the whole grid, or not closed."""
    wrong = [name for name, value in results.items() if name.endswith((".equal", ".closed")) and value < 1]
    return [f"NOT EQUAL: {name} is {results[name]:.3g}" for name in wrong]


def run(config: MeshingConfig) -> dict[str, float]:
    """The numbers of the record."""
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        results: dict[str, float] = {"threads": float(config.threads), "resolution": float(config.resolution)}
        compare(ANALYTIC["sphere"], 16)  # loads libraries and makes the table of cubes, once in a process
        for name, distance in ANALYTIC.items():
            add(results, f"analytic.{name}", [compare(distance, config.resolution)])
        for name, kind in config.fields.items():
            fitted = list(fitted_fields(config, kind))
            add(results, name, [compare(each, config.resolution) for each in fitted])
            results |= {f"{name}.{key}": value for key, value in memory(fitted[0], config.memory_resolution).items()}
            print(f"{name}: {results[f'{name}.peak_growth_mb']:.0f} MB at {config.memory_resolution}^3", flush=True)
    finally:
        torch.set_num_threads(threads)
    ratios = [value for name, value in results.items() if name.endswith(".ratio_dense") and "analytic" not in name]
    return results | ({f"ratio_dense_{config.resolution}": statistics.median(ratios)} if ratios else {})


def fitted_fields(config: MeshingConfig, kind: FieldsConfig) -> Iterator[Field]:
    """Fields of the shapes of the source, in order; a shape that cannot be used is left out."""
    source = open_source(config.data, **{**config.source, "quantity": kind.quantity})
    representation = Representation.build(kind.representation, in_features=3, out_features=1)
    results = fit(representation, read_signals(source, range(len(source))), kind.fit)
    for result in sorted(results, key=lambda result: result.index):
        if result.weights is not None:
            yield Field(representation, result.weights, source.form)


def compare(distance: Callable[[Tensor], Tensor], resolution: int) -> Comparison:
    """Mesh a field by both methods."""
    counts, seconds, meshes = [], [], []
    for dense in (False, True):
        counted = Counted(distance)
        began = time.process_time()
        meshes.append(extract_surface(counted, resolution, dense=dense))
        seconds.append(time.process_time() - began)
        counts.append(counted.points)
    coarse, dense = meshes
    equal = np.array_equal(coarse.faces, dense.faces) and np.array_equal(coarse.vertices, dense.vertices)
    closed = not len(coarse.faces) or coarse.is_watertight
    return Comparison(*seconds, counts[0] / counts[1], equal, bool(closed), len(coarse.faces))


def add(results: dict[str, float], name: str, comparisons: list[Comparison]) -> None:
    """Add and print the medians of some comparisons."""
    ratios = [each.dense_s / each.coarse_s for each in comparisons]
    numbers = {
        "num": float(len(comparisons)),
        "coarse_s": statistics.median(each.coarse_s for each in comparisons),
        "dense_s": statistics.median(each.dense_s for each in comparisons),
        "ratio_dense": statistics.median(ratios),
        "ratio_dense_min": min(ratios),
        "share_evaluated": statistics.median(each.share for each in comparisons),
        "faces": statistics.median(each.faces for each in comparisons),
        "empty": float(sum(each.faces == 0 for each in comparisons)),
        "equal": statistics.fmean(each.equal for each in comparisons),
        "closed": statistics.fmean(each.closed for each in comparisons),
    }
    results |= {f"{name}.{key}": value for key, value in numbers.items()}
    print(f"{name}: " + "  ".join(f"{key} {value:.4g}" for key, value in numbers.items()), flush=True)


def memory(field: Field, resolution: int) -> dict[str, float]:
    """What meshing a field adds to the memory of a fresh process at its peak, and how long it takes."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_grow, (field.representation.to_dict(), field.weights, resolution, torch.get_num_threads()))


def _grow(representation: dict, weights: dict[str, Tensor], resolution: int, threads: int) -> dict[str, float]:
    torch.set_num_threads(threads)
    field = Field(open_representation(representation), weights, SignalForm(in_features=3, out_features=1))
    field.mesh(16)  # everything is imported
    before = _status("VmRSS")
    began = time.process_time()
    mesh = field.mesh(resolution)
    seconds = time.process_time() - began
    numbers = {"faces": float(len(mesh.faces)), "s": seconds, "closed": float(mesh.is_watertight)}
    growth = {"peak_growth_mb": (_status("VmHWM") - before) / 1024}
    return {f"{key}_{resolution}": value for key, value in numbers.items()} | growth


def _status(key: str) -> int:
    """A size of this process in kB, as the system counts it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key))


def _torus(points: Tensor) -> Tensor:
    around = points[:, ::2].norm(dim=1) - 0.6
    return (around.square() + points[:, 1].square()).sqrt() - 0.2


def _wires(points: Tensor) -> Tensor:
    """Three thin rods across each other, with distances cut at 0.1."""
    pairs = [points[:, [0, 1]], points[:, [1, 2]], points[:, [2, 0]]]
    rods = torch.stack([pair.norm(dim=1) for pair in pairs]).amin(dim=0) - 0.02
    return torch.maximum(rods, points.abs().amax(dim=1) - 0.8).clamp(-0.1, 0.1)


ANALYTIC = {"sphere": lambda points: points.norm(dim=1) - 0.7, "torus": _torus, "wires": _wires}


if __name__ == "__main__":
    sys.exit(main(run, unequal))
