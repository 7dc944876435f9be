"""How fast universal neural functionals are, beside the plain term-by-term implementation, and the memory they take.

    python -m pipelines.benchmark_unf

Both have the same weights and give the same numbers, which is checked; they are timed in turn, in one run.
"""

import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from pipelines.experiment import Experiment, main
from pipelines.plain_unf import PlainEquivariantLinear
from wsrl import native
from wsrl.symmetry.spec.spec import PermutationSpec
from wsrl.unf.layers import EquivariantLinear, folded
from wsrl.unf.nonlinearity import RELU
from wsrl.unf.pooling import PooledTensor

NETWORKS = {
    "mlp_2-32-32-3": [2, 32, 32, 3],
    "mlp_64-64-64-64-1": [64, 64, 64, 64, 1],
    "mlp_2-128-128-128-3": [2, 128, 128, 128, 3],
    "resnet20": [],
}


@dataclass(frozen=True, kw_only=True)
class UnfBenchmarkConfig(Experiment):
    """What is timed.

    Attributes:
        networks: Networks whose weights are read, by the name that they have in the record: sizes of the layers of an
            MLP, or an empty list for a ResNet-20.
        channels: Channels of every layer.
        layers: Number of layers.
        batch_size: Networks that are read at once.
        repetitions: Times that ours and the plain one are timed in turn.
        budget_s: Seconds after which a network is not timed again, however many repetitions are left.
        threads: Threads of torch.
    """

    name: str = "mlp"
    networks: dict[str, list[int]] = field(default_factory=lambda: dict(NETWORKS))
    channels: int = 16
    layers: int = 3
    batch_size: int = 8
    repetitions: int = 15
    budget_s: float = 90.0
    threads: int = 2


class ResNet20(nn.Module):
    """The residual network for pictures of 32x32, with projections where the channels change.

    Source: He et al., Deep residual learning for image recognition, 2016, section 4.2.
    """

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        widths = [16] * 4 + [32] * 3 + [64] * 3
        self.blocks = nn.Sequential(*(ResidualBlock(a, b) for a, b in itertools.pairwise(widths)))
        self.head = nn.Linear(64, 10)

    def forward(self, pictures: Tensor) -> Tensor:
        """Logits ``(B, 10)`` of pictures ``(B, 3, H, W)``."""
        return self.head(self.blocks(self.stem(pictures)).mean((2, 3)))


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, before: int, after: int):
        super().__init__()
        stride = after // before
        self.first = nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(after, after, 3, 1, 1, bias=False), nn.BatchNorm2d(after))
        self.shortcut = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, features: Tensor) -> Tensor:
        """Features ``(B, C, H, W)``."""
        return torch.relu(self.second(self.first(features)) + self.shortcut(features))


def specification(sizes: Sequence[int]) -> PermutationSpec:
    """The inferred permutations of an MLP, or of a ResNet-20 where there are no sizes."""
    if not sizes:
        return PermutationSpec.from_module(ResNet20().eval(), torch.zeros(1, 3, 32, 32))
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return PermutationSpec.from_module(nn.Sequential(*layers[:-1]), torch.zeros(1, sizes[0]))


class Contestants:
    """Our layers and the plain ones on one input, folded beforehand.

    Args:
        sizes: Layers of the MLP; none for the ResNet-20.
        config: The benchmark.
        plain: Whether to make the plain ones.
    """

    def __init__(self, sizes: Sequence[int], config: UnfBenchmarkConfig, plain: bool = True):
        spec, generator = specification(sizes).plain, torch.Generator().manual_seed(0)
        widths = [1, *[config.channels] * config.layers]
        self.ours = [
            EquivariantLinear(spec, before, after, nonlinearity=RELU, generator=generator)
            for before, after in itertools.pairwise(widths)
        ]
        self.plain = [PlainEquivariantLinear(layer) for layer in self.ours] if plain else []
        self.features = {
            name: torch.randn(config.batch_size, *shape, 1, generator=generator) for name, shape in spec.shapes.items()
        }
        self.folded = folded(self.ours[0].tensors, self.features)
        if plain:
            members = [member for tensor in self.ours[0].tensors.values() for member in tensor.members]
            self.members = {member.name: member.fold(self.features[member.name]) for member in members}

    def run_ours(self) -> dict[str, Tensor]:
        """Features after our layers."""
        inner = {
            name: PooledTensor(tensor.values) for name, tensor in self.folded.items()
        }  # without the last run's means
        for layer in self.ours:
            inner = layer.inner(inner)
        return {name: tensor.values for name, tensor in inner.items()}

    def run_plain(self) -> dict[str, Tensor]:
        """Features after the plain layers."""
        inner = self.members
        for layer in self.plain:
            inner = layer(inner)
        return inner

    def check(self) -> float:
        """Largest difference of the two, relative to the largest feature of each tensor."""
        with torch.no_grad():
            ours, plain = self.run_ours(), self.run_plain()
        bundles = self.ours[0].tensors
        plain = {
            name: torch.cat([plain[member.name] for member in bundle.members], dim=-1)
            for name, bundle in bundles.items()
        }
        gaps = [float((ours[name] - plain[name]).abs().max() / plain[name].abs().max()) for name in ours]
        assert max(gaps) < 1e-3, f"the plain implementation disagrees by {max(gaps):.1e}"
        return max(gaps)


def forward(run: Callable) -> float:
    """Milliseconds of a forward pass without gradients."""
    with torch.no_grad():
        start = time.perf_counter()
        run()
        return 1e3 * (time.perf_counter() - start)


def step(run: Callable) -> float:
    """Milliseconds of a forward and a backward pass."""
    start = time.perf_counter()
    sum(values.sum() for values in run().values()).backward()
    return 1e3 * (time.perf_counter() - start)


def in_turn(run_ours: Callable, run_plain: Callable, config: UnfBenchmarkConfig) -> dict[str, float]:
    """Medians of ours and the ratio to the plain one, each repetition timing both."""
    for timed in (forward, step):
        timed(run_ours), timed(run_ours), timed(run_plain)
    all_times: dict[str, list[float]] = {}
    started = time.perf_counter()
    for _ in range(config.repetitions):
        for what, timed in (("forward", forward), ("step", step)):
            all_times.setdefault(f"{what}_ms", []).append(timed(run_ours))
            all_times.setdefault(f"plain_{what}_ms", []).append(timed(run_plain))
        if time.perf_counter() - started > config.budget_s:
            break
    medians = {name: statistics.median(all_times) for name, all_times in all_times.items()}
    ratios = {
        f"ratio_plain_{what}": medians[f"plain_{what}_ms"] / medians[f"{what}_ms"] for what in ("forward", "step")
    }
    return medians | ratios | {"repetitions": len(all_times["forward_ms"])}


def memory(sizes: Sequence[int], config: UnfBenchmarkConfig) -> dict[str, float]:
    """Peak memory of a step over that of all features that the layers give, measured in a process of its own."""
    code = (
        "import sys; from pipelines.benchmark_unf import *; "
        f"config = UnfBenchmarkConfig(channels={config.channels}, layers={config.layers}, "
        f"batch_size={config.batch_size}, threads={config.threads}); print(peak({list(sizes)}, config))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    grown, activations = map(float, done.stdout.split())
    return {"peak_mb": grown, "activations_mb": activations, "memory_ratio": grown / activations}


def peak(sizes: Sequence[int], config: UnfBenchmarkConfig) -> str:
    """Growth of this process in a step, and the size of the features of all layers, in MB; for a fresh process."""
    torch.set_num_threads(config.threads)
    step(Contestants([2, 4, 4, 1], config, plain=False).run_ours)  # loads the kernel and the thread pool
    contest = Contestants(sizes, config, plain=False)
    before = resident_mb("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    step(contest.run_ours)
    grown = resident_mb("VmHWM") - before
    numbers = sum(values.numel() for values in contest.features.values())
    return f"{grown} {4 * numbers * config.channels * config.layers / 2**20}"


def resident_mb(key: str) -> float:
    """Memory of this process now (``VmRSS``) or at its peak (``VmHWM``), on Linux."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) / 1024


def run(config: UnfBenchmarkConfig) -> dict[str, float]:
    """All networks; returns the numbers of the record."""
    torch.set_num_threads(config.threads)
    native.keep_freed_memory()
    results: dict[str, float] = {}
    for name, sizes in config.networks.items():
        contest = Contestants(sizes, config)
        weights = sum(values.numel() for values in contest.features.values()) // config.batch_size
        numbers = {"difference": contest.check(), "weights": weights}
        numbers |= in_turn(contest.run_ours, contest.run_plain, config) | memory(sizes, config)
        results |= {f"{name}.{key}": value for key, value in numbers.items()}
        print(name, {key: round(value, 3) for key, value in numbers.items()}, file=sys.stderr, flush=True)
    return results


if __name__ == "__main__":
    sys.exit(main(run))
