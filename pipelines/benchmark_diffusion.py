"""How fast diffusion over weights trains and samples: tokens per second, beside the matrix peak of the machine.

    python -m pipelines.benchmark_diffusion --config configs/benchmark/sampling.yaml

A store of random fields is written, as many and as large as the default Fashion-MNIST model has; one epoch streams from
it. Sampling ends with pictures.
"""

import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning as L
import torch

from pipelines.experiment import Experiment, main
from pipelines.timing import matrix_peak
from wsrl.cli.parser import show_progress
from wsrl.diffusion.pipeline import load_pipeline
from wsrl.diffusion.samplers import sampler
from wsrl.fields import BaseField, Representation, RepresentationConfig
from wsrl.fields.modulated_base import BaseFieldConfig
from wsrl.store import FitResult
from wsrl.store.writer import ShardWriter, create_or_resume, finalize
from wsrl.training.run import train
from wsrl.training.train_options import TrainOptions

BACKWARD = 3
"""Matrix products of a training step, in forward passes."""


@dataclass(frozen=True, kw_only=True)
class DiffusionBenchmarkConfig(Experiment):
    """What is timed.

    Attributes:
        base: Form of the base field.
        representation: Form of the adapters.
        grid: Height and width of the pictures.
        num_fields: Fields of the store, all for training.
        diffusion: Options of ``wsrl train diffusion`` by dotted name.
        num_samples: Fields that are drawn.
        samplers: Samplers that are timed, with their steps.
        segment: Fields that are written at once.
        threads: Threads of torch.
    """

    name: str = "fashion_mnist"
    base: BaseFieldConfig = BaseFieldConfig()
    representation: RepresentationConfig = RepresentationConfig()
    grid: tuple[int, int] = (28, 28)
    num_fields: int = 10_000
    diffusion: dict[str, Any] = field(default_factory=dict)
    num_samples: int = 1_000
    samplers: dict[str, int] = field(default_factory=lambda: {"ddim": 50, "dpm++": 20})
    segment: int = 1_000
    threads: int = 2


def run(config: DiffusionBenchmarkConfig) -> dict[str, float]:
    """Time one epoch and the samplers; returns the numbers of the record."""
    torch.set_num_threads(config.threads)
    peak = matrix_peak()
    # Train two epochs on random fields; the second is timed.
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_store(root / "store", config)
        trainer = {"max_epochs": 2, "callbacks": f"{__spec__.name}.EpochSeconds"}
        options = TrainOptions(store=root / "store", out=root / "m", trainer=trainer).changed(config.diffusion)
        model = train("diffusion", options, progress=show_progress)
        seconds = model.metrics["diffusion.epoch_seconds"]
        pipeline = load_pipeline(model)
    # Work of the denoiser: forward, and with the gradients in training.
    denoiser = pipeline.transformer
    flops = denoiser.count_flops()
    tokens = config.num_fields * denoiser.num_tokens
    results = speeds("train", tokens, BACKWARD * flops * config.num_fields, seconds, peak)
    results |= {
        "train.seconds_per_epoch": seconds,
        "train.num_fields": config.num_fields,
        "model.num_parameters": denoiser.num_parameters(),
        "model.num_tokens": denoiser.num_tokens,
        "model.mflop_forward": flops / 1e6,
        "machine.peak_gflops": peak,
    }
    # Each sampler once, after a short run that warms up.
    for name, steps in config.samplers.items():
        pipeline.scheduler = sampler(name, pipeline.scheduler)
        pipeline(8, num_inference_steps=2)
        started = time.perf_counter()
        drawn = pipeline(config.num_samples, generator=torch.Generator().manual_seed(0), num_inference_steps=steps)
        seconds = time.perf_counter() - started
        assert len(drawn.images) == config.num_samples
        work = config.num_samples * steps
        results |= speeds(name, work * denoiser.num_tokens, work * flops, seconds, peak)
        results |= {f"{name}.seconds_per_1000": 1000 * seconds / config.num_samples, f"{name}.steps": steps}
    for key, value in results.items():
        print(f"{key:<28} {value:.4g}")
    return results


class EpochSeconds(L.Callback):
    """Logs how long an epoch took as ``epoch_seconds``."""

    def on_train_epoch_start(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_train_epoch_end(self, trainer: L.Trainer, task: L.LightningModule) -> None:
        """Log the time; that of the last epoch stays."""
        task.log("epoch_seconds", time.perf_counter() - self.started)


def speeds(name: str, tokens: float, flops: float, seconds: float, peak: float) -> dict[str, float]:
    """Tokens per second, and the share of the matrix peak (in GFLOP/s) that the matrix products reach."""
    rate = flops / seconds / 1e9
    return {f"{name}.tokens_per_s": tokens / seconds, f"{name}.gflops": rate, f"{name}.share_of_peak": rate / peak}


def write_store(directory: Path, config: DiffusionBenchmarkConfig) -> None:
    """A finished store of random fields about the shared start."""
    base = BaseField(config.base, 2, 1)
    representation = Representation.build(config.representation, base)
    layout, generator = representation.layout, torch.Generator().manual_seed(0)
    create_or_resume(
        directory,
        layout=layout,
        representation=representation.to_dict(),
        base_sha256=base.sha256(),
        source={"name": "random", "grid": list(config.grid), "channels": 1},
        fit={},
        num_signals=config.num_fields,
        num_shards=1,
        label_names=(),
        save_base=base.save_pretrained,
    )
    start, mask = layout.flatten(representation.initial()), layout.trainable()
    with ShardWriter(directory, 0) as writer:
        for first in range(0, config.num_fields, config.segment):
            rows = []
            for index in range(first, min(first + config.segment, config.num_fields)):
                vector = start + 0.1 * torch.randn(len(start), generator=generator) * mask
                rows.append(
                    FitResult(index=index, id=f"random/{index}", weights=layout.unflatten(vector), split="train")
                )
            writer.write_segment(rows)
        writer.finish()
    finalize(directory)


if __name__ == "__main__":
    sys.exit(main(run))
