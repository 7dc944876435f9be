"""How long a shape of the source ``solids`` takes to prepare, by family, and how long several processes take together.

python -m pipelines.benchmark_solids --config configs/benchmark/solids.yaml
"""

import resource
import statistics
import sys
import time
from collections import defaultdict
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import Any

from pipelines.experiment import Experiment, main
from wsrl.errors import UserError
from wsrl.signals import open_source
from wsrl.signals.shapes.shape_source import ShapeSource


@dataclass(frozen=True, kw_only=True)
class SolidsBenchmarkConfig(Experiment):
    """What is prepared.

    Attributes:
        data: A source of shapes with labels.
        source: Its options; the cache is one of its own, empty at first.
        processes: Processes that prepare all shapes together.
    """

    name: str = "solids"
    data: str = "solids"
    source: dict[str, Any] = field(default_factory=dict)
    processes: int = 2


def run(config: SolidsBenchmarkConfig) -> dict[str, float]:
    """The numbers of the record."""
    with TemporaryDirectory() as folder:
        open_fresh(config, folder).record(0)  # loads libraries
    with TemporaryDirectory() as folder:
        alone = prepare_alone(open_fresh(config, folder))
    with TemporaryDirectory() as folder:
        source = open_fresh(config, folder)
        began, used = time.perf_counter(), processor_seconds()
        source.prepare(range(len(source)), config.processes, advance=lambda num: None)
        together = {"elapsed_s": time.perf_counter() - began, "processor_s": processor_seconds() - used}
    results = {f"together.{name}_per_shape": seconds / len(source) for name, seconds in together.items()}
    return alone | {"processes": float(config.processes)} | results


def processor_seconds() -> float:
    """What all processes that this one waited for have used, their start and the loading of libraries included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def open_fresh(config: SolidsBenchmarkConfig, cache: str) -> ShapeSource:
    """The source with nothing prepared."""
    source = open_source(config.data, **{**config.source, "cache": cache})
    assert isinstance(source, ShapeSource)
    return source


def prepare_alone(source: ShapeSource) -> dict[str, float]:
    """Prepare and keep every shape in this process; the seconds are the processor's, so other work does not count."""
    seconds = defaultdict(list)
    for index, family in enumerate(source.labels()):
        began = time.process_time()
        verdict = source.record(index).verdict
        seconds[family].append(time.process_time() - began)
        assert verdict != "rejected", f"{source.ids[index]} is rejected"
    every = [each for family in seconds.values() for each in family]
    results = {"num": float(len(every)), "s": statistics.median(every), "s_mean": statistics.fmean(every)}
    results |= {"s_max": max(every)} | {f"{family}.s": statistics.median(found) for family, found in seconds.items()}
    print("  ".join(f"{name} {value:.3g}" for name, value in results.items()), flush=True)
    return results


if __name__ == "__main__":
    try:
        sys.exit(main(run))
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
