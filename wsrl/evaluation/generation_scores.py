"""The scores of a diffusion model: its samples beside held-out fields and beside baselines that copy.

Letters: N fields, W weights of a field in one vector.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wsrl.diffusion.pipeline import WeightDiffusionPipeline, load_pipeline
from wsrl.evaluation.generated_pictures import GREY
from wsrl.evaluation.generation import GenerationOptions, Judged, class_scores
from wsrl.evaluation.memorisation import better_baselines, mean_of_two, noise_fd_at, train_gaussian, training_noise
from wsrl.evaluation.real_signals import drawn
from wsrl.evaluation.references import Comparison
from wsrl.progress import ShowProgress, say, silent
from wsrl.report.closest_pairs import draw_closest
from wsrl.store import WeightStore
from wsrl.training.lightning_noise import quiet_lightning

NOISE_LEVELS = (0.0, 0.1, 0.2, 0.4, 0.7, 1.0)
Scores = Mapping[str, float]


@dataclass(frozen=True)
class GenerationScores:
    """What is known of a model.

    Attributes:
        metrics: All scores by name.
        weights: The samples ``(N, *shape)``.
        samples: Their scores, and the nearest training field of each.
        comparison: What they were compared with.
    """

    metrics: dict[str, float]
    weights: dict[str, Tensor]
    samples: Judged
    comparison: Comparison


def evaluate_model(
    model: Path | str,
    store: Path | str,
    options: GenerationOptions,
    *,
    closest: Path | None = None,
    progress: ShowProgress = silent,
) -> dict[str, float]:
    """Score the diffusion model in a folder against the store that it was trained on.

    Args:
        model: Folder of the model.
        store: The store.
        options: What is sampled and compared with.
        closest: Picture to draw of the samples nearest to training, beside what they are near; None for none.
        progress: Shows the long parts, and takes lines on what is compared with and on the verdict.

    Returns:
        Scores of the samples by name, of held-out fields and baselines by ``<row>.<name>``.
    """
    with quiet_lightning(), WeightStore.open(store) as opened:
        scores = score_generation(load_pipeline(model), opened, options, progress)
        if closest is not None:
            known = scores.comparison.fields
            draw_closest(scores.samples, scores.weights, known.train, known.decoder, closest, progress)
    return scores.metrics


def score_generation(
    pipeline: WeightDiffusionPipeline,
    store: WeightStore,
    options: GenerationOptions,
    progress: ShowProgress = silent,
) -> GenerationScores:
    """Sample a model, and score the samples, held-out fields and where asked for baselines by the same lines."""
    statistics = pipeline.space.statistics
    comparison = Comparison.of(store, pipeline.decoder, options, progress, statistics.gauge)
    generator = torch.Generator().manual_seed(options.seed)
    weights = pipeline(options.num, generator=generator, num_inference_steps=options.steps).weights
    # What a network writes is only near to the form that it was trained on.
    weights = statistics.in_gauge(weights)
    samples = comparison.references.judge(weights)
    rows = {"samples": samples.metrics} | other_rows(comparison, options)
    metrics = flat_metrics(rows) | distances(samples)
    metrics |= {"num_train": len(comparison.rows[0])} | comparison.facts
    if options.baselines:
        metrics |= verdict(rows, progress)
    if "fd" in samples.metrics and comparison.references.features.classify is not None:
        metrics |= class_scores(comparison.references.features, samples.signals.nan_to_num(GREY), comparison.pictures)
    return GenerationScores(metrics, weights, samples, comparison)


def other_rows(comparison: Comparison, options: GenerationOptions) -> dict[str, dict[str, float]]:
    """Scores of held-out fields and, where asked for, of the baselines, by row.

    Args:
        comparison: What sets of fields are compared with.
        options: Number of fields, seed, and whether baselines are asked for.
    """
    known, layout, judge = comparison.fields, comparison.store.layout, comparison.references.judge
    some = torch.from_numpy(drawn(len(comparison.rows[1]), options.num, options.seed))
    heldout = {name: tensor[some] for name, tensor in known.heldout.items()}
    rows = {"fitted_test": judge(heldout).metrics}
    if not options.baselines:
        return rows
    train, trainable = layout.flatten(known.train), layout.trainable()  # (M, W)
    generator = torch.Generator().manual_seed(options.seed)
    made = {
        f"noise_{level:g}": training_noise(train, trainable, options.num, level, generator) for level in NOISE_LEVELS
    }
    made["mean_of_two"] = mean_of_two(train, trainable, options.num, generator)
    made["gaussian"] = train_gaussian(train, trainable, options.num, generator)
    return rows | {name: judge(layout.unflatten(flat)).metrics for name, flat in made.items()}


def verdict(rows: Mapping[str, Scores], progress: ShowProgress = silent) -> dict[str, float]:
    """Which baselines the samples do not beat at equal distance from training.

    Args:
        rows: Scores by row: ``samples``, ``noise_<level>``, ``mean_of_two``, ``gaussian``.
        progress: Takes one line by weights and one by signals.

    Returns:
        ``noise_<score>_at_equal_distance`` and ``num_baselines_not_beaten``, and the same with ``_signal``.
    """
    score = next((name for name in ("fd", "mmd_cd") if name in rows["samples"]), None)
    if score is None:
        return {}
    metrics: dict[str, float] = {}
    for suffix, what in (("", "weights"), ("_signal", "signals")):
        # Each row is a point: how near it is to training, and how good. Noise of rising level gives a curve of them.
        pairs = {name: (row[f"nearest_ratio{suffix}"], row[score]) for name, row in rows.items() if score in row}
        curve = [pair for name, pair in pairs.items() if name.startswith("noise_")]
        others = {name: pairs[name] for name in ("mean_of_two", "gaussian")}
        better, noise = better_baselines(pairs["samples"], curve, others), noise_fd_at(pairs["samples"][0], curve)
        how = f"in {score} at equal distance from training by {what} ({pairs['samples'][0]:.3f})"
        if better:
            say(progress, f"samples are NOT BETTER than {', '.join(better)} {how}; noise there has {noise:.4g}")
        else:
            say(progress, f"samples are better than every baseline {how}; noise there has {noise:.4g}")
        metrics |= {f"noise_{score}_at_equal_distance{suffix}": noise, f"num_baselines_not_beaten{suffix}": len(better)}
    return metrics


def flat_metrics(rows: Mapping[str, Scores]) -> dict[str, float]:
    """Scores of the samples by name, and of the other rows by ``<row>.<name>``."""
    metrics = dict(rows["samples"]) | {"num_samples": rows["samples"]["num"]}
    return metrics | {f"{row}.{key}": value for row in rows if row != "samples" for key, value in rows[row].items()}


def distances(samples: Judged) -> dict[str, float]:
    """Distances from samples to training fields by weights, in standard deviations of the training fields."""
    near, ratio = samples.in_weights.distances, samples.metrics["nearest_ratio"]
    return {
        "nearest_train": float(near.mean()),
        "nearest_train_min": float(near.min()),
        "nearest_train_heldout": float(near.mean()) / ratio if ratio else 0.0,
        "nearest_train_ratio": ratio,
    }
