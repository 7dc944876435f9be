"""How fast a store is read, and whether builds stay linear: time per field and peak memory of small and large builds.

python -m pipelines.benchmark_store [--reading.num_fields N] [--linear.large N] [--directory DIR]
"""

import json
import mmap
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch

from wsrl.fields.layout import Layout, TensorSpec
from wsrl.store import FitResult, WeightStore
from wsrl.store.writer import ShardWriter, create_or_resume, finalize

WRITTEN_AT_ONCE = 1024
# The command itself, and then the peak of its own memory: what the system counts for a child includes its parent's,
# before the program was loaded.
COMMAND = """
import sys
from pathlib import Path
from wsrl.__main__ import main
status = main(sys.argv[1:])
lines = Path("/proc/self/status").read_text().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("VmHWM")))
sys.exit(status)
"""
ANNOUNCED = "trainable of"  # in the line that a build prints between its start-up and its first field


@dataclass(frozen=True, kw_only=True)
class ReadingConfig:
    """A synthetic store of adapters, and how it is read.

    Attributes:
        num_fields: Fields of the store.
        layers: Layers of an adapter, each with a ``down`` (rank, width) and an ``up`` (width, rank).
        width: Width of a layer.
        rank: Rank of an adapter.
        fields_per_shard: Fields in a shard.
        num_files: Fields that are also written as a folder of one ``state_dict`` file each.
        batch_size: Fields in a batch.
        buffer_bytes: Size of the buffer that the sequential read uses again and again.
        repetitions: Times that everything is measured, in turns.
        threads: Threads of torch.
    """

    num_fields: int = 200_000
    layers: int = 3
    width: int = 64
    rank: int = 4
    fields_per_shard: int = 8192
    num_files: int = 4000
    batch_size: int = 256
    buffer_bytes: int = 4 << 20
    repetitions: int = 7
    threads: int = 2

    @property
    def layout(self) -> Layout:
        """Tensors of a field."""
        specs = []
        for i in range(self.layers):
            down, up, group = (self.rank, self.width), (self.width, self.rank), f"layers.{i}"
            specs.append(TensorSpec(name=f"{group}.down", shape=down, axes=("r", None), group=group, token_axis=0))
            specs.append(TensorSpec(name=f"{group}.up", shape=up, axes=(None, "r"), group=group, token_axis=1))
        return Layout(tuple(specs))


@dataclass(frozen=True, kw_only=True)
class LinearConfig:
    """Builds of synthetic pictures.

    Attributes:
        tiny: Fields of the build whose time stands for what does not depend on the number of fields.
        small: Fields of the small build.
        large: Fields of the large build.
        side: Height and width of the pictures in pixels.
        options: Further options of ``wsrl build``.
        repetitions: Times that the tiny and the small build are measured; the large one is measured once.
    """

    tiny: int = 64
    small: int = 1000
    large: int = 50_000
    side: int = 8
    options: tuple[str, ...] = (
        "--representation", "mlp", "--representation.field.width", "8", "--representation.field.depth", "2",
        "--fit.steps", "4", "--fit.batch_size", "256", "--device", "cpu",
    )  # fmt: skip
    repetitions: int = 3


@dataclass(frozen=True, kw_only=True)
class StoreBenchmarkConfig:
    """Both measurements.

    Attributes:
        directory: Folder for the stores, of which what is there already is used again.
        reading: The measurement of reading.
        linear: The measurement of builds.
    """

    directory: str = "runs/benchmark_store"
    reading: ReadingConfig = ReadingConfig()
    linear: LinearConfig = LinearConfig()


def measure_reading(config: ReadingConfig, directory: Path) -> dict[str, float]:
    """Compare shuffled batches of a store with a sequential read of its files and with a folder of files.

    The page cache is warm for all: before each contestant its files are read once (where the system gives idle pages
    up, a folder in memory such as ``/dev/shm`` keeps them). All are measured in turns; the figures are medians. The
    sequential read is ``readinto`` of whole shards into one page-aligned buffer (one that is not aligned is several
    times slower on some processors). ``reading.rows_per_s``, of which the fraction and the ratio are made, is an epoch
    of an open store, with checks on as by default; ``reading.rows_per_s_first`` is the first epoch, which opens the
    files and compares every byte with its fingerprint; ``_unchecked`` leaves the checks out.

    Args:
        config: What to read.
        directory: Where the store and the folder are, or are made with the writer of the library.
    """
    directory = Path(directory)
    write_store(config, directory / "store")
    write_folder(config, directory / "store", directory / "folder")
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    # Every contestant in turn, its files warm.
    seconds: dict[str, list[float]] = {}
    try:
        for _ in range(config.repetitions):
            with WeightStore.open(directory / "store") as store:
                for name, contestant in _contestants(config, store, directory / "folder").items():
                    _warm(directory / ("folder" if name == "folder" else "store"), config.buffer_bytes)
                    seconds.setdefault(name, []).append(_seconds(contestant))
    finally:
        torch.set_num_threads(threads)
    # Medians, as rates and as ratios.
    taken = {name: median(times) for name, times in seconds.items()}
    size = sum(path.stat().st_size for path in (directory / "store").glob("*.h5"))
    rows, files = config.num_fields, config.num_files
    return {
        "reading.sequential_mb_per_s": size / taken["sequential"] / 1e6,
        "reading.rows_per_s": rows / taken["again"],
        "reading.rows_per_s_first": rows / taken["first"],
        "reading.rows_per_s_unchecked": rows / taken["unchecked"],
        "reading.folder_rows_per_s": files / taken["folder"],
        "reading.fraction_of_sequential": taken["sequential"] / taken["again"],
        "reading.fraction_of_sequential_first": taken["sequential"] / taken["first"],
        "reading.fraction_of_sequential_unchecked": taken["sequential"] / taken["unchecked"],
        "reading.ratio_folder": (rows / taken["again"]) / (files / taken["folder"]),
        "reading.ratio_folder_first": (rows / taken["first"]) / (files / taken["folder"]),
    }


def _contestants(config: ReadingConfig, store: WeightStore, folder: Path) -> dict[str, Callable[[], None]]:
    """What is measured, by name, in the order in which it has to be called."""

    def read(check: bool) -> None:
        count = sum(len(batch) for batch in store.batches(config.batch_size, shuffle=True, check=check))
        assert count == config.num_fields, "an epoch is every field once"

    return {
        "sequential": lambda: _read_sequentially(store.directory.glob("*.h5"), config.buffer_bytes),
        "first": lambda: read(True),
        "again": lambda: read(True),
        "unchecked": lambda: read(False),
        "folder": lambda: _read_folder(folder, config.batch_size),
    }


def _seconds(action: Callable[[], None]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def _warm(folder: Path, buffer_bytes: int) -> None:
    _read_sequentially((path for path in folder.iterdir() if path.is_file()), buffer_bytes)


def _read_sequentially(paths, buffer_bytes: int) -> None:
    with mmap.mmap(-1, buffer_bytes) as buffer:
        for path in paths:
            with open(path, "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass


def _read_folder(folder: Path, batch_size: int) -> None:
    """What one writes for a folder: load files in a random order and stack them to batches."""
    paths = sorted(folder.iterdir())
    order = torch.randperm(len(paths)).tolist()
    for start in range(0, len(paths), batch_size):
        fields = [torch.load(paths[i], weights_only=True) for i in order[start : start + batch_size]]
        {name: torch.stack([field[name] for field in fields]) for name in fields[0]}


def write_store(config: ReadingConfig, path: Path) -> None:
    """A store of random fields, written by the library; what is there already stays."""
    num_shards = -(-config.num_fields // config.fields_per_shard)
    create_or_resume(
        path,
        layout=config.layout,
        representation={"kind": "benchmark"},
        base_sha256=None,
        source={"name": "benchmark", "grid": [28, 28]},
        fit={},
        num_signals=config.num_fields,
        num_shards=num_shards,
        label_names=[str(number) for number in range(10)],
    )
    for shard in range(num_shards):
        with ShardWriter(path, shard) as writer:
            todo = [index for index in writer.indices if index not in writer.done]
            for start in range(0, len(todo), WRITTEN_AT_ONCE):
                writer.write_segment(_random_fields(config.layout, todo[start : start + WRITTEN_AT_ONCE]))
            writer.finish()
    finalize(path)


def _random_fields(layout: Layout, indices: list[int]) -> list[FitResult]:
    generator = torch.Generator().manual_seed(indices[0])
    weights = {spec.name: torch.randn(len(indices), *spec.shape, generator=generator) for spec in layout}
    return [
        FitResult(
            index=index,
            id=f"benchmark/train/{index:07d}",
            weights={name: tensor[i] for name, tensor in weights.items()},
            metrics={"psnr": 30.0, "loss": 1e-3, "steps": 100.0},
            seed=index,
            signal_sha256=f"{index:064x}",
            label=str(index % 10),
            split="train",
        )
        for i, index in enumerate(indices)
    ]


def write_folder(config: ReadingConfig, store: Path, folder: Path) -> None:
    """One ``state_dict`` file for each of the first fields of the store."""
    folder.mkdir(exist_ok=True)
    with WeightStore.open(store) as opened:
        for row in range(config.num_files):
            path = folder / f"{row:07d}.pt"
            if not path.exists():
                torch.save(opened[row], path)


def measure_linear(config: LinearConfig, directory: Path) -> dict[str, float]:
    """Compare a large build with a small one: time per field and peak memory.

    Each build is ``wsrl build`` in a process of its own; its peak is that of its own memory.
    Time runs from the line that a build prints after its start-up (imports, opening the pictures; told apart as
    ``linear.startup_s``) to its end: fits, segments, assembly, hashes and the data card. What does not depend on the
    number of fields is taken off: the time of a tiny build, and its fields.

    Args:
        config: The builds.
        directory: Where the pictures and stores are made; stores are removed afterwards.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    runs = {
        number: [_build(config, directory, number) for _ in range(times)]
        for number, times in ((config.tiny, config.repetitions), (config.small, config.repetitions), (config.large, 1))
    }
    startup, seconds, peak = ({number: median(run[i] for run in of) for number, of in runs.items()} for i in range(3))
    per_field = {
        number: (seconds[number] - seconds[config.tiny]) / (number - config.tiny)
        for number in (config.small, config.large)
    }
    return {
        "linear.time_ratio": per_field[config.large] / per_field[config.small],
        "linear.memory_ratio": peak[config.large] / peak[config.small],
        "linear.constant_s": seconds[config.tiny],
        "linear.startup_s": startup[config.tiny],
        **{f"linear.seconds_per_field_{number}": value for number, value in per_field.items()},
        **{f"linear.peak_mb_{number}": peak[number] for number in per_field},
        **{f"linear.startup_s_{number}": startup[number] for number in per_field},
    }


def _build(config: LinearConfig, directory: Path, number: int) -> tuple[float, float, float]:
    """Seconds of start-up, seconds after it, and peak memory in MB of one build."""
    pictures, out = directory / f"pictures-{number}.npy", directory / f"linear-{number}"
    np.save(pictures, np.random.default_rng(number).integers(0, 256, (number, config.side, config.side), np.uint8))
    subprocess.run(["rm", "-rf", str(out)], check=True)
    argv = [sys.executable, "-c", COMMAND, "build", str(pictures), "--out", str(out), *config.options]
    start = time.perf_counter()
    lines, begun = [], start
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            lines.append(line)
            if ANNOUNCED in line:
                begun = time.perf_counter()
        printed = process.stdout.read()
    ended = time.perf_counter()
    if process.returncode:
        raise RuntimeError(f"{' '.join(argv)} failed:\n{''.join(lines)}")
    subprocess.run(["rm", "-rf", str(out)], check=True)
    return begun - start, ended - begun, int(printed.splitlines()[-1]) / 1024


def main() -> None:
    """Measure, and print the figures."""
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(description=__doc__)
    parser.add_class_arguments(StoreBenchmarkConfig)
    config = parser.instantiate_classes(parser.parse_args())
    made = StoreBenchmarkConfig(directory=config.directory, reading=config.reading, linear=config.linear)
    directory = Path(made.directory)
    print(json.dumps(measure_reading(made.reading, directory), indent=1))
    print(json.dumps(measure_linear(made.linear, directory), indent=1))


if __name__ == "__main__":
    main()
