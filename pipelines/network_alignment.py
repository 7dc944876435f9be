"""Networks trained on the same pictures from different starts, aligned with each other by every method.

    python -m pipelines.network_alignment --config configs/fashion_mnist/network_alignment_mlp512.yaml

Two networks are joined by a straight path before and after one is aligned with the other.

Letters: N pictures, P points of a path.
"""

import json
import sys
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save
from torch import Tensor, nn
from torch.nn import functional

from pipelines.experiment import Experiment, fingerprint, main
from wsrl.durable import write_bytes
from wsrl.report.figures import Series, draw_lines, new_figure, save_figure
from wsrl.signals import open_source
from wsrl.signals.pictures.labelled import labelled_pictures
from wsrl.symmetry.matching.alignment import PathScores, align_networks, path_scores
from wsrl.symmetry.matching.barriers import NetworkScores, path_grid
from wsrl.symmetry.matching.straight_through import RefinementOptions
from wsrl.training.optimisation import warmup_cosine

Examples = dict[str, tuple[Tensor, Tensor]]


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """How a network is trained: SGD with Nesterov's momentum; its rate rises on a line and falls on a cosine.

    Attributes:
        epochs: Passes over the training pictures.
        batch_size: Pictures of a step.
        learning_rate: Peak of the schedule.
        momentum: Of SGD.
        weight_decay: Of SGD.
        warm_up: Share of the steps in which the rate rises.
    """

    epochs: int = 10
    batch_size: int = 250
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    warm_up: float = 0.1


@dataclass(frozen=True, kw_only=True)
class NetworksConfig(Experiment):
    """The experiment.

    Attributes:
        data: Named source of pictures with labels.
        limit: Pictures of each split, the first ones; None for all.
        widths: Units of the hidden layers.
        training: How the networks are trained.
        pairs: Seeds of the two networks of each pair.
        methods: Methods of alignment; the first one gives ``barrier_after``.
        restarts: Starts of weight matching.
        refinement: Options of straight-through refinement.
        num_matched: Training pictures that features and gradients are taken of, and the loss on the training path.
        num_points: Points of the path.
        figure: File of the figure; None for none.
    """

    data: str
    limit: int | None = None
    widths: tuple[int, ...] = (512, 512)
    training: TrainingOptions = TrainingOptions()
    pairs: list[tuple[int, int]] = field(default_factory=lambda: [(1, 2)])
    methods: tuple[str, ...] = ("weights", "activations", "straight-through")
    restarts: int = 1
    refinement: RefinementOptions = RefinementOptions()
    num_matched: int = 10_000
    num_points: int = 25
    figure: str | None = None
    out: str = "runs/alignment/networks"


def run(config: NetworksConfig) -> dict[str, float]:
    """Train the pairs, align each by every method, and score the paths."""
    pictures = labelled_pictures(open_source(config.data), config.limit)
    examples = {split: (x.flatten(1), y) for split, (x, y) in pictures.items()}
    paths: dict[str, list[PathScores]] = {}
    results: dict[str, list[float]] = {}
    for seeds in config.pairs:
        first, second = (trained(config, examples, seed) for seed in seeds)
        for key, value in _aligned(config, examples, first, second, paths).items():
            results.setdefault(key, []).append(value)
        print(json.dumps({key: round(values[-1], 4) for key, values in results.items()}), file=sys.stderr, flush=True)
    if config.figure:
        draw(paths, config)
    return _summary(results, config)


def network(sizes: list[int]) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    layers: list[nn.Module] = []
    for before, after in pairwise(sizes):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def sizes_of(config: NetworksConfig, examples: Examples) -> list[int]:
    """Units of all layers, inputs and classes included."""
    inputs, targets = examples["train"]
    return [inputs.shape[1], *config.widths, int(targets.max()) + 1]


def trained(config: NetworksConfig, examples: Examples, seed: int) -> nn.Module:
    """The network of a seed; one that an earlier run has trained is taken up."""
    sizes = sizes_of(config, examples)
    plan: dict[str, Any] = {"data": config.data, "limit": config.limit, "sizes": sizes, **asdict(config.training)}
    path = Path(config.out) / f"seed-{seed}-{fingerprint(plan)}.safetensors"
    there = path.exists()
    with config.parts.timed(f"networks.seed-{seed}", there=there):
        if not there:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, save(train(sizes, *examples["train"], config.training, seed).state_dict()))
    model = network(sizes)
    model.load_state_dict(load_file(path))
    return model.eval()


def train(sizes: list[int], inputs: Tensor, targets: Tensor, options: TrainingOptions, seed: int) -> nn.Module:
    """Train a network from the start of a seed.

    Args:
        sizes: Units of all layers.
        inputs: Pictures ``(N, D)``.
        targets: Classes ``(N,)``.
        options: How it is trained.
        seed: Seed of the start and of the order of the pictures.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = network(sizes)
    generator = torch.Generator().manual_seed(seed)
    optimiser = torch.optim.SGD(
        model.parameters(),
        lr=options.learning_rate,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
        nesterov=True,
        fused=True,  # a third faster on a CPU
    )
    # A line up, half a cosine down, over whole batches in a new order each epoch.
    batches = len(inputs) // options.batch_size
    total = options.epochs * batches
    schedule = warmup_cosine(optimiser, options.warm_up * total, total)
    loss = torch.tensor(float("nan"))
    for epoch in range(options.epochs):
        order = torch.randperm(len(inputs), generator=generator)
        for rows in order[: batches * options.batch_size].split(options.batch_size):
            loss = functional.cross_entropy(model(inputs[rows]), targets[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        print(f"seed {seed}, epoch {epoch + 1}: loss {float(loss.detach()):.3f}", file=sys.stderr, flush=True)
    return model


def _aligned(config: NetworksConfig, examples: Examples, first: nn.Module, second: nn.Module, paths: dict) -> dict:
    """Numbers of one pair; notes its paths on the test pictures."""
    some = tuple(tensor[: config.num_matched] for tensor in examples["train"])
    on_test, on_train = NetworkScores(first, *examples["test"]), NetworkScores(first, *some)
    start = first.state_dict()
    ends, objectives = {"before": second.state_dict()}, {}
    for method in config.methods:
        options = {"method": method, "restarts": config.restarts, "refinement": config.refinement}
        result = align_networks(first, second, data=some, num_points=None, **options)
        ends[method], objectives[f"{method}.objective"] = result.aligned, result.objective
    numbers: dict[str, float] = objectives
    for name, end in ends.items():
        test, training = (path_scores(scores, start, end, config.num_points) for scores in (on_test, on_train))
        numbers |= _numbers(name, test, training)
        paths.setdefault(name, []).append(test)
        before = paths["before"][-1].barrier
        numbers[f"{name}.barrier_ratio"] = test.barrier / before if before else 0.0
    first_path = paths["before"][-1]
    numbers["test_loss"] = float(first_path.losses[[0, -1]].mean())
    numbers["test_accuracy"] = float(first_path.accuracies[[0, -1]].mean())
    return numbers


def _numbers(name: str, test: PathScores, training: PathScores) -> dict[str, float]:
    return {
        f"{name}.barrier": test.barrier,
        f"{name}.accuracy_barrier": test.accuracy_barrier,
        f"{name}.train_barrier": training.barrier,
        f"{name}.train_accuracy_barrier": training.accuracy_barrier,
        f"{name}.middle_accuracy": float(test.accuracies[len(test.accuracies) // 2]),
    }


def _summary(results: dict[str, list[float]], config: NetworksConfig) -> dict[str, float]:
    """Means over pairs, with their standard deviations where there are several."""
    named = {"barrier_before": results["before.barrier"], "barrier_after": results[f"{config.methods[0]}.barrier"]}
    summary: dict[str, float] = {"num_pairs": len(config.pairs), "epochs": config.training.epochs}
    for key, values in (named | results).items():
        summary[key] = float(np.mean(values))
        if len(values) > 1:
            summary[f"{key}_std"] = float(np.std(values, ddof=1))
            summary[f"{key}_seeds"] = len(values)
    return summary


def draw(paths: dict[str, list[PathScores]], config: NetworksConfig) -> None:
    """The figure: loss and accuracy on the paths, means over pairs with the range as a band."""
    figure, panels = new_figure(1, 2, width=5.2, height=3.8)
    grid = path_grid(config.num_points)
    kinds = (("losses", "test loss (nats)", 1), ("accuracies", "test accuracy (%)", 100))
    for panel, (kind, label, factor) in zip(panels, kinds):
        series = {}
        for name, of_pairs in paths.items():
            values = factor * np.array([getattr(path, kind) for path in of_pairs])  # (pairs, P)
            shown = "not aligned" if name == "before" else name
            series[shown] = Series(grid, values.mean(0), values.min(0), values.max(0))
        draw_lines(panel, series, "position on the path from one network to the other", label)
    save_figure(figure, Path(config.figure))


if __name__ == "__main__":
    sys.exit(main(run))
