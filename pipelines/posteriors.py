"""Bayesian posteriors matched modulo permutation: is there a barrier between two of them?

    python -m pipelines.posteriors --config configs/fashion_mnist/posteriors_mlp2_512.yaml

Two mean-field Gaussian posteriors of one network from two starts, joined by the Wasserstein geodesic as they are, after
alignment by their means, and after alignment by means and standard deviations. Losses are marginalised,
``-mean_x log E_q p(y | x, theta)`` in nats, with Monte-Carlo errors over the samples of the weights.

Source: Rossi, Singh and Hannagan, arXiv 2310.10171.

Letters: K samples of the weights, X examples, C classes or channels, T points of the path.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from pipelines.experiment import Experiment, fingerprint, main
from pipelines.posterior_figures import draw_path, draw_trends
from pipelines.posterior_networks import NetworkConfig, classifier, siren
from wsrl.evaluation.calibration import calibration, predictive
from wsrl.signals import open_source
from wsrl.signals.fidelity import psnr
from wsrl.signals.pictures.labelled import labelled_pictures
from wsrl.signals.signal import grid_coords
from wsrl.symmetry.fields.sine import SineLayer, canonical_sines
from wsrl.symmetry.matching.posterior_alignment import COSTS, align_posterior
from wsrl.symmetry.matching.posteriors import (
    MarginalisedPath,
    Posterior,
    sampled_along,
    squared_wasserstein,
    standard_error,
)
from wsrl.symmetry.spec.spec import PermutationSpec
from wsrl.training.variational import (
    VariationalOptions,
    classification_log_likelihood,
    fit_posterior,
    gaussian_log_likelihood,
    load_posterior,
    save_posterior,
)

AT_ONCE = 1000
ALIGNMENTS = ("none", *COSTS)


@dataclass(frozen=True, kw_only=True)
class PosteriorsConfig(Experiment):
    """The experiment on one network.

    Attributes:
        network: The network.
        data: Named source of pictures, with labels for classifiers.
        num_train: Training pictures, the first ones; of SIRENs: pictures that get two posteriors each.
        num_test: Test pictures for the losses along the path, the first ones.
        size: Side to which pictures are shrunk, in pixels; None for their own.
        variational: Prior, family and optimisation of the posteriors.
        noise_scale: Of SIRENs: standard deviation of the noise of a pixel, whose range is [0, 1].
        num_points: Points of the path.
        num_samples: Samples of the weights at each point.
        restarts: Starts of weight matching.
        seeds: Of the two posteriors.
        figure: File of the figure of the path; None for one in ``out`` alone.
        trends: File of the figure of all records of this pipeline.
    """

    network: NetworkConfig = NetworkConfig()
    data: str = "fashion-mnist"
    num_train: int = 60_000
    num_test: int = 2_000
    size: int | None = None
    variational: VariationalOptions = VariationalOptions()
    noise_scale: float = 0.05
    num_points: int = 11
    num_samples: int = 8
    restarts: int = 1
    seeds: tuple[int, int] = field(default=(1, 2))
    figure: str | None = None
    trends: str | None = ".readme/posteriors.png"
    out: str = "runs/posteriors"


@dataclass(frozen=True)
class Likelihood:
    """How outputs are judged.

    Attributes:
        outputs: From weights to what the network says of all examples, ``(X, C)``: log-probabilities or values.
        terms: From outputs of samples ``(K, X, C)`` to ``log p(y | x, theta_k)``, ``(K, X)``.
        scores: From the same to named numbers.
    """

    outputs: Callable[[dict[str, Tensor]], Tensor]
    terms: Callable[[Tensor], Tensor]
    scores: Callable[[Tensor], dict[str, float]]


def run(config: PosteriorsConfig) -> dict[str, float]:
    """Fit the posteriors, align them, measure the paths; posteriors that an earlier run fitted are kept."""
    results, paths = (sirens if config.network.kind == "siren" else classifiers)(config)
    results |= {f"network.{key}": getattr(config.network, key) for key in ("width", "depth")}
    results["network.is_mlp"] = int(config.network.kind == "mlp")
    for file in filter(None, (Path(config.out) / config.name / "path.png", config.figure)):
        draw_path(results, paths, file)
    if config.trends:
        draw_trends(config.name, results, config.trends)
    return results


def classifiers(config: PosteriorsConfig) -> tuple[dict[str, float], dict[str, MarginalisedPath]]:
    """Two posteriors of a classifier."""
    examples = {split: (shrunk(x, config.size), y) for split, (x, y) in examples_of(config.data).items()}
    inputs, labels = (each[: config.num_train] for each in examples["train"])
    shift, scale = inputs.mean(), inputs.std()
    inputs, num_classes = (inputs - shift) / scale, int(labels.max()) + 1
    modules = [classifier(config.network, tuple(inputs.shape[1:]), num_classes, seed) for seed in config.seeds]
    density, module = classification_log_likelihood, modules[-1]
    posteriors = [
        fitted(config, f"seed-{seed}", each, density, (inputs, labels), seed)
        for seed, each in zip(config.seeds, modules)
    ]
    tests, truths = (each[: config.num_test] for each in examples["test"])
    spec = PermutationSpec.from_module(module, inputs[:2])
    return compare(spec, *posteriors, classes_of(module, (tests - shift) / scale, truths), config)


@lru_cache(maxsize=1)
def examples_of(data: str) -> dict[str, tuple[Tensor, Tensor]]:
    """Pictures and class numbers of each split; kept for the next experiment of the process."""
    return labelled_pictures(open_source(data))


def shrunk(pictures: Tensor, size: int | None) -> Tensor:
    """Pictures ``(X, C, H, W)`` averaged to ``size`` pixels a side."""
    return pictures if size is None else functional.adaptive_avg_pool2d(pictures, size)


def classes_of(module: nn.Module, inputs: Tensor, labels: Tensor) -> Likelihood:
    """The likelihood of a classifier on some examples."""

    def outputs(weights: dict[str, Tensor]) -> Tensor:
        return torch.cat([functional_call(module, weights, (part,)).log_softmax(1) for part in inputs.split(AT_ONCE)])

    def terms(samples: Tensor) -> Tensor:
        return samples.gather(2, labels[None, :, None].expand(len(samples), -1, 1)).squeeze(2)

    return Likelihood(outputs, terms, lambda samples: calibration(predictive(samples), labels))


def sirens(config: PosteriorsConfig) -> tuple[dict[str, float], dict[str, MarginalisedPath]]:
    """Two posteriors of each of some pictures; signs and phases of neurons are made canonical before alignment."""
    source = open_source(config.data, limit=config.num_train)
    coords, density = grid_coords(source.form.grid), gaussian_log_likelihood(config.noise_scale)
    numbers, paths = [], {}
    for number in range(config.num_train):
        values = source[number].values
        modules = [siren(config.network, values.shape[1], 1000 * seed + number) for seed in config.seeds]
        module, names = modules[-1], [f"picture-{number}-seed-{seed}" for seed in config.seeds]
        posteriors = [
            fitted(config, name, each, density, (coords, values), seed)
            for name, each, seed in zip(names, modules, config.seeds)
        ]
        spec = PermutationSpec.from_module(module, coords)
        likelihood = pixels_of(module, coords, values, density)
        results, paths = compare(spec, *posteriors, likelihood, config)
        numbers.append(results | _canonical(spec, posteriors, likelihood, config))
    return averaged(numbers), paths


def pixels_of(module: nn.Module, coords: Tensor, values: Tensor, density: Callable) -> Likelihood:
    """The likelihood of a field on the pixels ``(X, C)`` of its picture."""

    def scores(samples: Tensor) -> dict[str, float]:
        mean = psnr(samples.mean(0)[None], values[None], (0.0, 1.0))
        return {"psnr": float(mean.mean())}

    return Likelihood(
        lambda weights: functional_call(module, weights, (coords,)),
        lambda samples: torch.stack([density(each, values) for each in samples]),
        scores,
    )


def _canonical(spec: PermutationSpec, posteriors, likelihood: Likelihood, config) -> dict[str, float]:
    """The same comparison after signs and phases of all neurons became canonical; standard deviations have none."""
    depth, omega = config.network.depth, config.network.omega
    layers = [
        SineLayer(f"layers.{i}.weight", f"layers.{i}.bias", (f"layers.{i + 1}.weight",), omega if i == 0 else 1.0)
        for i in range(depth)
    ]
    moved = []
    for each in posteriors:
        batch = {name: mean[None] for name, mean in each.means.items()}
        means = {name: mean[0] for name, mean in canonical_sines(batch, layers).items()}
        moved.append(Posterior(means, each.stds))
    results, _ = compare(spec, *moved, likelihood, config)
    return {f"canonical_signs.{key}": value for key, value in results.items() if key.startswith("barrier")}


def averaged(numbers: Sequence[dict[str, float]]) -> dict[str, float]:
    """Means over pictures; of standard errors that of the mean, and the spread of each barrier as ``_std``."""
    results = {}
    for key in numbers[0]:
        values = torch.tensor([each[key] for each in numbers], dtype=torch.float64)
        stderr = key.endswith("_stderr")
        results[key] = float(values.square().sum().sqrt() / len(values) if stderr else values.mean())
        if "barrier_" in key and not stderr and len(values) > 1:
            results[f"{key}_std"] = float(values.std())
    for cost in COSTS:  # of the means: a ratio for each picture would weigh those without a barrier most
        results[f"ratio_{cost}"] = results[f"barrier_{cost}"] / results["barrier_none"]
    return results | {"num_pictures": len(numbers)}


def fitted(config: PosteriorsConfig, where: str, module: nn.Module, density, data, seed: int) -> Posterior:
    """A posterior; one that an earlier run fitted with the same options is taken up."""
    plan = {key: getattr(config, key) for key in ("data", "num_train", "size", "noise_scale")}
    plan |= {"network": asdict(config.network), "variational": asdict(config.variational), "seed": seed}
    if config.network.kind == "siren":
        plan.pop("num_train")  # further pictures leave those that are there as they are
    folder = Path(config.out) / config.name / f"{where}-{fingerprint(plan)}"
    there = (folder / "posterior.safetensors").exists()
    with config.parts.timed(f"posteriors.{where}", there=there):
        if not there:
            losses: list[float] = []
            generator = torch.Generator().manual_seed(seed)
            posterior = fit_posterior(module, density, data, config.variational, generator, losses.append)
            tail = losses[-max(1, len(losses) // 20) :]
            print(f"{config.name} {where}: bound {-sum(tail) / len(tail):.4f} nats", file=sys.stderr, flush=True)
            save_posterior(folder, posterior, plan)
    return load_posterior(folder)


def compare(
    spec: PermutationSpec, first: Posterior, second: Posterior, likelihood: Likelihood, config: PosteriorsConfig
) -> tuple[dict[str, float], dict[str, MarginalisedPath]]:
    """Paths from one posterior to the other, as it is and aligned by both costs.

    Returns:
        Numbers by dotted key, and the paths by alignment.
    """
    ends = {"none": second}
    for cost in COSTS:
        generator = torch.Generator().manual_seed(config.seeds[0])
        ends[cost], _ = align_posterior(spec, first, second, cost=cost, generator=generator, restarts=config.restarts)
    results, paths = {"network.parameters": sum(mean.numel() for mean in first.means.values())}, {}
    for name, end in ends.items():
        paths[name], scores = measured(first, end, likelihood, config)
        barrier = paths[name].barrier()
        results |= {f"barrier_{name}": barrier.value, f"barrier_{name}_stderr": barrier.standard_error}
        results |= {f"{name}.squared_wasserstein": squared_wasserstein(first, end)}
        results |= {f"{name}.{key}": value for key, value in scores.items()}
        print(f"{config.name} {name}: {barrier}", file=sys.stderr, flush=True)
    return results | summary(results, paths, first), paths


def measured(
    first: Posterior, second: Posterior, likelihood: Likelihood, config: PosteriorsConfig
) -> tuple[MarginalisedPath, dict[str, float]]:
    """Marginalised losses along a path, and scores of the predictive mean at every point."""
    times = torch.linspace(0, 1, config.num_points, dtype=torch.float64)
    results, terms = {}, []
    drawn = {"num_samples": config.num_samples, "seed": config.seeds[0]}
    for time, samples in zip(times.tolist(), sampled_along(first, second, likelihood.outputs, times, **drawn)):
        terms.append(likelihood.terms(samples))
        scores = likelihood.scores(samples)
        results |= {f"path.{round(100 * time):03d}.{key}": value for key, value in scores.items()}
    path = MarginalisedPath.of(times, terms)
    for time, loss, error in zip(times.tolist(), path.losses.tolist(), path.standard_errors().tolist()):
        results[f"path.{round(100 * time):03d}.loss"] = loss
        results[f"path.{round(100 * time):03d}.loss_stderr"] = error
    return path, results


def summary(results: dict[str, float], paths: dict[str, MarginalisedPath], first: Posterior) -> dict[str, float]:
    """What alignment leaves of the barrier, what standard deviations in the cost add, how much they differ."""
    none, means, both = (results[f"barrier_{name}"] for name in ALIGNMENTS)
    spread = torch.cat([each.log().flatten() for each in first.stds.values() if each.numel() > 1])
    difference = [
        paths[name].excess(paths[name].influences)[int(paths[name].excess(paths[name].losses).argmax())]
        for name in COSTS
    ]
    return {
        "ratio_means": means / none if none else 0.0,
        "ratio_means_and_stds": both / none if none else 0.0,
        "gain_of_stds": means - both,
        "gain_of_stds_stderr": standard_error(difference[0] - difference[1]),
        "log_std_spread": float(spread.std()),
    }


if __name__ == "__main__":
    sys.exit(main(run))
