"""Generation of fields from their weights, and from latents of them: scores, memorisation, and baselines that copy.

One base field, one store per kind of representation with the same signals, a diffusion model per row, and for each
kind the rows that its models have to beat: fitted held-out fields, training fields with noise, means of two, and a
Gaussian with the covariance of the training fields. What an earlier run finished is kept.

    python -m pipelines.generation --config configs/fashion_mnist/generation.yaml

Source: arXiv 2512.01759, section on generation; arXiv 2303.17015 (HyperDiffusion); arXiv 2506.07998 (memorisation).
"""

import json
import sys
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipelines.experiment import Experiment, FieldExperiment, Kind, fingerprint, main
from wsrl.cli.parser import show_progress
from wsrl.diffusion.decoder import FieldDecoder
from wsrl.diffusion.pipeline import load_pipeline
from wsrl.encoders.autoencoder import open_autoencoder
from wsrl.errors import UserError
from wsrl.evaluation.generation import GenerationOptions
from wsrl.evaluation.generation_scores import other_rows, verdict
from wsrl.evaluation.picture_classifier import ClassifierOptions
from wsrl.evaluation.picture_features import LabelledPictures, kept_classifier
from wsrl.evaluation.real_signals import read_pictures
from wsrl.evaluation.references import Comparison
from wsrl.fields.gauge import RAW
from wsrl.report.closest_pairs import draw_closest
from wsrl.report.comparisons import MESH_RESOLUTION
from wsrl.report.contact_sheet import CELL, beside, grid_sheet, save_picture
from wsrl.report.render import shape_sheet
from wsrl.store import WeightStore
from wsrl.training.run import train
from wsrl.training.run_folder import LAST
from wsrl.training.train_options import TrainOptions


@dataclass(frozen=True, kw_only=True)
class RowConfig:
    """A diffusion model and how it is sampled.

    Attributes:
        kind: The representation whose store it is trained on.
        latent: Diffusion happens in the latents of an autoencoder of the kind and not in the weights.
        autoencoder: Options of ``wsrl train autoencoder`` by dotted name, beside those of all rows.
        perceptual: The autoencoder also compares pictures by the features of the experiment's classifier.
        model: Options of ``wsrl train diffusion`` by dotted name, beside those of all rows.
        classes: Ask for each class equally often.
        guidance: How much of the class is asked for.
        steps: Denoising steps.
    """

    kind: str
    latent: bool = False
    autoencoder: dict[str, Any] = field(default_factory=dict)
    perceptual: bool = False
    model: dict[str, Any] = field(default_factory=dict)
    classes: bool = False
    guidance: float = 1.0
    steps: int = 50


@dataclass(frozen=True, kw_only=True)
class GenerationConfig(FieldExperiment):
    """The whole experiment.

    Attributes:
        kinds: Representations by name.
        main: The kind whose held-out fields and baselines stand in the record without its name before them.
        autoencoder: Options of ``wsrl train autoencoder`` of all rows by dotted name.
        perceptual: Training of the classifier that autoencoders compare pictures by; it sees the pictures of the
            training fields alone, and is not that of the scores.
        diffusion: Options of ``wsrl train diffusion`` of all rows by dotted name.
        rows: Models by name.
        timed: The row whose sampling is the record's ``sampling.seconds_per_1000``.
        scores: Fields of ``GenerationOptions``.
        num_shown: Fields in each sheet.
        shown: Rows of the picture.
        picture: PNG file of the picture for the README; None for none.
    """

    kinds: dict[str, Kind] = field(default_factory=dict)
    main: str = "mlora_asym"
    autoencoder: dict[str, Any] = field(default_factory=dict)
    perceptual: ClassifierOptions = ClassifierOptions(seed=1)
    diffusion: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, RowConfig] = field(default_factory=dict)
    timed: str = "mlora_asym.latent"
    scores: dict[str, Any] = field(default_factory=dict)
    num_shown: int = 64
    shown: tuple[str, ...] = ()
    picture: str | None = None
    out: str = "runs/generation"


def run(config: GenerationConfig) -> dict[str, float]:
    """Every part of the experiment; returns the numbers of the record."""
    out = Path(config.out)
    for name, kind in config.kinds.items():
        if kind.representation.is_adapter:
            config.train_base()
        config.build(name, kind.representation, kind.fit)
    results: dict[str, float] = {}
    for kind in config.kinds:
        scorer = Scorer(kind, config)
        results |= {f"{kind}.{name}": value for name, value in scorer.fits().items()}
        prefix = "" if kind == config.main else f"{kind}."
        results |= {f"{prefix}{name}": value for name, value in scorer.baselines.items()}
        for row, options in config.rows.items():
            if options.kind == kind:
                results |= {f"{row}.{name}": value for name, value in scorer.scores(row, options).items()}
                print(f"{row}: {json.dumps({k: v for k, v in results.items() if k.startswith(row)})}", file=sys.stderr)
        results |= scorer.facts()
    results["sampling.seconds_per_1000"] = results[f"{config.timed}.seconds_per_1000"]
    draw(config, out)
    return results


def trained(task: str, options: dict[str, Any], store: Path, root: Path, config: Experiment) -> Path:
    """The folder of a model of these options: trained now, or by an earlier run."""
    there = (root / "model").is_dir() and (root / "metrics.json").is_file()
    with config.parts.timed(f"models.{root.name.rpartition('-')[0]}", there=there):
        if not there:
            training = TrainOptions(store=store, out=root, seed=config.seed, ckpt_path=LAST).changed(options)
            train(task, training, progress=show_progress)
    return root


def gauge_of(kind: str, config: GenerationConfig) -> str:
    """The gauge of the weights that the models of a kind are trained on, in which all are compared.

    Raises:
        UserError: They are trained in several.
    """
    rows = [row for row in config.rows.values() if row.kind == kind]
    options = [config.autoencoder | row.autoencoder if row.latent else config.diffusion | row.model for row in rows]
    gauges = sorted({each.get("data.gauge", RAW) for each in options}) or [RAW]
    if len(gauges) > 1:
        raise UserError(
            f"models of {kind} are trained in the gauges {', '.join(gauges)}",
            allowed="one data.gauge for the rows of a kind, which are compared with the same fields",
            do="give the other rows a kind of their own",
        )
    return gauges[0]


class Scorer:
    """Models of one kind, judged against the same training and held-out fields.

    Args:
        kind: Name of the kind.
        config: The experiment.
    """

    def __init__(self, kind: str, config: GenerationConfig):
        self.kind, self.config, self.out = kind, config, Path(config.out)
        self.store_path = self.out / kind
        self.store = WeightStore.open(self.store_path)
        self.decoder = FieldDecoder.from_store(self.store)
        self.options = GenerationOptions(**{"baselines": True, "seed": config.seed} | config.scores)
        self.gauge = gauge_of(kind, config)
        self.comparison = Comparison.of(self.store, self.decoder, self.options, show_progress, self.gauge)
        self.references = self.comparison.references

    def fits(self) -> dict[str, float]:
        """How well the fields of the kind reproduce their signals."""
        psnr, splits = self.store.metrics("psnr"), self.store.splits()
        heldout = splits == "test" if "test" in splits else slice(None)
        return {"numbers": self.store.layout.num_trainable, "fields_psnr_mean": float(np.nanmean(psnr[heldout]))}

    def facts(self) -> dict[str, float]:
        """What the scores were taken with."""
        (train, heldout), facts = self.comparison.rows, self.comparison.facts
        numbers = {"run.num_train": len(train), "run.num_test": len(heldout)}
        if "features_accuracy" in facts:
            numbers["features.accuracy"] = facts["features_accuracy"]
        return numbers | {"run.num_references": facts["num_references"]}

    @cached_property
    def baselines(self) -> dict[str, float]:
        """Scores of held-out fields, of those through the autoencoder, and of what copies on purpose."""
        name = "baselines" if self.kind == self.config.main else f"baselines-{self.kind}"
        latent = self._latent_row()
        through = () if latent is None else (self.autoencoder(latent).name,)
        through += () if self.gauge == RAW else (self.gauge,)
        return self._kept(name, name, (self.config.scores, self.config.seed, *through), self._score_baselines)

    def _latent_row(self) -> RowConfig | None:
        """The first row of latents of the kind, through whose autoencoder held-out fields are scored."""
        return next((row for row in self.config.rows.values() if row.kind == self.kind and row.latent), None)

    def _score_baselines(self) -> dict[str, float]:
        shown = {name: tensor[: self.config.num_shown] for name, tensor in self.comparison.fields.heldout.items()}
        if self.kind == self.config.main:
            save_picture(field_sheet(shown, self.decoder), self.out / "fitted_test.png")
        rows = other_rows(self.comparison, self.options)
        if (latent := self._latent_row()) is not None:
            heldout = {name: tensor[: self.options.num] for name, tensor in self.comparison.fields.heldout.items()}
            space = open_autoencoder(self.autoencoder(latent), self.store.layout)
            with torch.no_grad():
                written = space.statistics.in_gauge(space(heldout))
            rows["reconstructed_test"] = self.references.judge(written).metrics
        return {f"{row}.{name}": value for row, metrics in rows.items() for name, value in metrics.items()}

    def autoencoder(self, row: RowConfig) -> Path:
        """The folder of the autoencoder of a row of latents."""
        options = self.config.autoencoder | row.autoencoder
        if row.perceptual:
            options["model.perceptual"] = str(self.classifier())
        root = self.out / "models" / f"{self.kind}.autoencoder-{fingerprint([options])}"
        return trained("autoencoder", options, self.store_path, root, self.config)

    def classifier(self) -> Path:
        """The folder of the classifier that autoencoders compare pictures by."""
        source, rows = self.config.open(), self.comparison.rows
        index_of = {name: i for i, name in enumerate(source.ids)}
        parts = [[index_of[self.store.ids[row]] for row in part] for part in rows]
        pictures = [LabelledPictures(*read_pictures(source, part)) for part in parts]
        return kept_classifier(*pictures, source.label_names, self.out / "perceptual", self.config.perceptual)

    def model(self, row: RowConfig, name: str) -> Path:
        """The folder of a row's diffusion model."""
        options = self.config.diffusion | row.model
        if row.latent:
            options["model.autoencoder"] = str(self.autoencoder(row))
        root = self.out / "models" / f"{name}-{fingerprint([options])}"
        return trained("diffusion", options, self.store_path, root, self.config)

    def scores(self, name: str, row: RowConfig) -> dict[str, float]:
        """Scores of one model, how long sampling took, and what it is worth beside the baselines."""
        folder = self.model(row, name)
        sampling = (row.classes, row.guidance, row.steps, self.config.scores, self.config.seed)
        metrics = self._kept(name, f"{name}-{folder.name}", sampling, lambda: self._judge(folder, row, name))
        rows = {"samples": metrics}
        for key, value in self.baselines.items():
            baseline, _, score = key.rpartition(".")
            rows.setdefault(baseline, {})[score] = value
        return metrics | verdict(rows, show_progress)

    def _judge(self, folder: Path, row: RowConfig, name: str) -> dict[str, float]:
        pipeline = load_pipeline(str(folder))
        num, generator = self.options.num, torch.Generator().manual_seed(self.config.seed)
        labels = [i % len(pipeline.classes) for i in range(num)] if row.classes else None
        started = time.perf_counter()
        samples = pipeline(num, labels, row.guidance, generator, num_inference_steps=row.steps)
        seconds = time.perf_counter() - started
        # What a network writes is only near to the form that it was trained on.
        judged = self.references.judge(pipeline.space.statistics.in_gauge(samples.weights))
        metrics = judged.metrics | {"seconds_per_1000": 1000 * seconds / num}
        metrics |= {"num_parameters": pipeline.transformer.num_parameters(), "steps": row.steps}
        if labels is not None:
            metrics["agreement"] = self.references.features.agreement(judged.signals, torch.tensor(labels))
        self._draw(samples, judged, name)
        return metrics

    def _draw(self, samples, judged, name: str) -> None:
        """The sheets of a model: samples, and the closest pairs."""
        first = {key: tensor[: self.config.num_shown] for key, tensor in samples.weights.items()}
        save_picture(field_sheet(first, self.decoder), self.out / f"{name}.png")
        sheet = self.out / f"{name}.closest.png"
        draw_closest(judged, samples.weights, self.comparison.fields.train, self.decoder, sheet, show_progress)

    def _kept(self, part: str, name: str, options: Any, make) -> dict[str, float]:
        """What an earlier run found with the same options, or what is found now."""
        return self.config.kept(f"scores.{part}", self.out / "scores" / f"{name}-{fingerprint([options])}.json", make)


def field_sheet(weights: dict[str, torch.Tensor], decoder: FieldDecoder) -> Image.Image:
    """Pictures or meshes of fields ``(N, *shape)``, eight in a row."""
    pictures = decoder.images(weights)
    if pictures:
        return grid_sheet(pictures, 8, CELL)
    return shape_sheet(list(decoder.meshes(weights, MESH_RESOLUTION)), columns=8, size=2 * CELL)


def draw(config: GenerationConfig, out: Path) -> None:
    """The README's picture: sheets of some rows side by side, held-out fields among them."""
    if config.picture is None:
        return
    sheets = []
    for row in config.shown:
        with Image.open(out / f"{row}.png") as sheet:
            sheets.append((row, sheet.convert("RGB")))
    save_picture(beside(sheets), Path(config.picture))


if __name__ == "__main__":
    sys.exit(main(run))
