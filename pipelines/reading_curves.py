"""What plain readers read from the weights of fields, against how close the fields are to their pictures.

Letters: N fields, V trainable weights.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipelines.experiment import fingerprint
from pipelines.sweep import Choice
from wsrl.evaluation.probe import Split, logistic_probe, one_nn
from wsrl.fields import BaseField, Representation
from wsrl.fitting.engine import FitConfig, fit, read_signals
from wsrl.report.figures import Series, draw_lines, new_figure, save_figure
from wsrl.signals.source import Source

if TYPE_CHECKING:
    from pipelines.representations import Pictures, RepresentationsConfig

READERS = {"logistic": "accuracy of logistic regression", "one_nn": "accuracy of the nearest neighbour"}


def read_fields(
    name: str,
    choice: Choice,
    base: BaseField | None,
    source: Source,
    pictures: "Pictures",
    config: "RepresentationsConfig",
) -> dict[str, float]:
    """Readings of one kind after every number of steps.

    Args:
        name: Name of the kind.
        choice: Setting and rate.
        base: The base field of adapters.
        source: The pictures.
        pictures: Which of them are for what.
        config: The experiment.

    Returns:
        ``<steps>.psnr``, mean PSNR in dB of the fields that readers are tested on, ``<steps>.logistic``,
        ``<steps>.one_nn``, and ``<steps>.num_failed``, pictures without a field, which are left out.
    """
    numbers: dict[str, float] = {}
    for steps in config.curve_steps:
        how, part = replace(choice.fit, steps=steps), f"curve.{name}.{steps}"
        asked = [choice.representation.to_dict(), asdict(how), source.description, config.seed]
        asked += [list(pictures.read_train), list(pictures.read_test), None if base is None else base.sha256()]

        def make(how=how) -> dict[str, float]:
            made = Representation.build(choice.representation, base, **source.form.sizes)
            return readings(made, how, source, pictures, config.seed)

        found = config.kept(part, Path(config.out) / f"{part}.json", make, fingerprint(asked))
        numbers |= {f"{steps}.{key}": value for key, value in found.items()}
    return numbers


def readings(
    representation: Representation, how: FitConfig, source: Source, pictures: "Pictures", seed: int
) -> dict[str, float]:
    """Fit the pictures and read the class from their weights."""
    layout, numbers = representation.layout, {}
    trainable, parts = layout.trainable(), []
    for indices in (pictures.read_train, pictures.read_test):
        results = sorted(fit(representation, read_signals(source, indices), how), key=lambda result: result.index)
        there = [result for result in results if result.weights is not None]
        features = torch.stack([layout.flatten(result.weights)[trainable] for result in there])  # (N, V)
        parts += [features.numpy(), labels_of(source, [result.index for result in there])]
        numbers["num_failed"] = numbers.get("num_failed", 0) + len(results) - len(there)
        numbers["psnr"] = float(np.mean([result.metrics["psnr"] for result in there]))  # that of the test part stays
    return numbers | read(Split(*parts), seed)


def read_pixels(source: Source, pictures: "Pictures", config: "RepresentationsConfig") -> dict[str, float]:
    """The same readers on the pixels of the same pictures."""

    def make() -> dict[str, float]:
        parts = []
        for indices in (pictures.read_train, pictures.read_test):
            pixels = torch.stack([source[index].values.flatten() for index in indices])
            parts += [pixels.numpy(), labels_of(source, indices)]
        return read(Split(*parts), config.seed)

    asked = fingerprint([source.description, list(pictures.read_train), list(pictures.read_test), config.seed])
    found = config.kept("curve.pixels", Path(config.out) / "curve.pixels.json", make, asked)
    sizes = {"run.num_read_train": len(pictures.read_train), "run.num_read_test": len(pictures.read_test)}
    return {f"pixels.{key}": value for key, value in found.items()} | sizes


def labels_of(source: Source, indices: Sequence[int]) -> np.ndarray:
    """Class numbers ``(N,)`` of some pictures."""
    numbers, labels = {name: number for number, name in enumerate(source.label_names)}, source.labels()
    return np.array([numbers[labels[index]] for index in indices])


def read(split: Split, seed: int) -> dict[str, float]:
    """Accuracies of the readers."""
    return {"logistic": logistic_probe(split, seed), "one_nn": one_nn(split)}


def draw_curves(
    curves: Mapping[str, Mapping[str, float]], record: Mapping[str, float], config: "RepresentationsConfig"
) -> None:
    """One panel per reader: accuracy against PSNR, one line per kind, and what the pixels give.

    Args:
        curves: What :func:`read_fields` gives, by kind.
        record: Numbers of the record, those of the pixels among them.
        config: The experiment, which says where to.
    """
    if config.picture is None:
        return
    figure, axes = new_figure(1, len(READERS), width=5.0, height=4.0)
    for axis, (reader, label) in zip(axes, READERS.items()):
        series = {
            name: Series(*([curve[f"{steps}.{key}"] for steps in config.curve_steps] for key in ("psnr", reader)))
            for name, curve in curves.items()
        }
        axis.axhline(record[f"pixels.{reader}"], color="0.4", lw=1.0, label="pixels")
        draw_lines(axis, series, "PSNR of the fields (dB)", label)
        axis.get_legend().remove()
    lines, names = axes[0].get_legend_handles_labels()
    figure.legend(lines, names, loc="outside lower center", ncols=5, fontsize=9, handlelength=4)
    save_figure(figure, config.picture)
