"""Folders of fields between two stored ones, and of variations of a stored one.

Letters: N fields, S steps of an interpolation.
"""

import torch
from PIL import Image
from torch import Tensor

from wsrl.diffusion.editing import linear_interpolation, ode_interpolation, variations
from wsrl.diffusion.pipeline import Prediction, WeightDiffusionPipeline
from wsrl.diffusion.space import WeightSpace
from wsrl.encoders.autoencoder import WeightAutoencoder, open_autoencoder
from wsrl.errors import UserError
from wsrl.evaluation.interpolation import interpolation_scores, signal_distances, signal_values
from wsrl.evaluation.sampling import (
    Sampled,
    SampleOptions,
    cell_size,
    class_labels,
    finish_folder,
    open_pipeline,
    pictures_of,
    save_sheet,
    start_folder,
    write_fields,
)
from wsrl.evaluation.stored_fields import open_fields, read_rows, row_of, spread_rows
from wsrl.options import at_least, between, check_values
from wsrl.progress import ShowProgress, silent
from wsrl.report.contact_sheet import beside, grid_sheet, save_picture

TITLE_LETTERS = 14
IN = {"weights": "in weights", "latents": "in latents", "ode": "along the ODE of the diffusion"}


def interpolate_fields(
    options: SampleOptions,
    ids: tuple[str, str],
    *,
    store: str | None = None,
    along: str = "weights",
    autoencoder: str | None = None,
    progress: ShowProgress = silent,
) -> Sampled:
    """Write the fields between two, ``strip.png``, and the error along the interpolation as ``metrics.json``.

    Args:
        options: What all modes share; ``num`` counts the fields with both ends.
        ids: Ids of the two fields; numbers are rows of the store where they are no ids.
        store: The store; None for the one that the model was trained on.
        along: ``weights``, ``latents`` or ``ode``.
        autoencoder: Folder of the autoencoder whose latents are meant; None for that of the model.
        progress: Shows how many meshes are found.

    Returns:
        What was written, with :func:`interpolation_scores`.

    Raises:
        UserError: What is given does not fit.
    """
    check_values({"num": options.num}, num=at_least(2))  # both ends are among them
    if along != "latents" and autoencoder is not None:
        wrong = "--autoencoder means nothing here"
        raise UserError(wrong, allowed="with --along latents", do="leave out --autoencoder")
    pipeline = open_pipeline(options)
    labels = class_labels(pipeline, options)
    # The two ends, and other fields of the store that steps between them should resemble.
    path, opened = open_fields(pipeline, options.model, store)
    with opened as fields:
        rows = [row_of(fields, key) for key in ids]
        ends, names = read_rows(fields, rows, pipeline.device), [fields.id_of(row) for row in rows]
        space = latent_space(pipeline, autoencoder) if along == "latents" else None
        others = read_rows(fields, spread_rows(fields, rows), pipeline.device)
    config = options.config() | {"interpolate": names, "along": along, "autoencoder": autoencoder, "store": str(path)}
    start_folder(options, config, {"store": path, "autoencoder": autoencoder})
    # Fields (S, *shape) on a straight line, or through the noise of the model.
    if along == "ode":
        predict = one_class_predictor(pipeline, labels, options.guidance)
        between = ode_interpolation(pipeline, ends, options.num, predict=predict, steps=options.steps)
    else:
        between = linear_interpolation(pipeline.space.statistics.in_gauge(ends), options.num, space)
    # What they show, and how far each step is from the ends and from other signals.
    samples = pipeline.samples_of(between)
    cells, bad = write_fields(samples, options, progress)
    shapes = samples.fields[0].form.is_shape
    values = (signal_values(pipeline.decoder, part) if part else [] for part in (between, ends, others))
    scores = interpolation_scores(*values, shapes=shapes)
    save_strip(cells, pictures_of(pipeline.samples_of(ends), options), names, along, options)
    finish_folder(options, {"along": along, "ids": names}, scores, bad)
    return Sampled(shapes, bad, scores, tuple(names))


def vary_field(
    options: SampleOptions,
    key: str,
    *,
    store: str | None = None,
    strength: float = 0.5,
    progress: ShowProgress = silent,
) -> Sampled:
    """Write variations of a stored field, ``samples.png`` with the field first, and their distance to it.

    Args:
        options: What all modes share.
        key: Id or row of the field.
        store: The store; None for the one that the model was trained on.
        strength: 0 for the field itself to 1 for new samples.
        progress: Shows how many meshes are found.

    Returns:
        What was written, with ``mean_distance`` and the ``distances``.

    Raises:
        UserError: What is given does not fit.
    """
    check_values({"strength": strength}, strength=between(0, 1))
    pipeline = open_pipeline(options)
    labels = class_labels(pipeline, options)
    path, opened = open_fields(pipeline, options.model, store)
    with opened as fields:
        row = row_of(fields, key)
        field, name = read_rows(fields, [row], pipeline.device), fields.id_of(row)
    config = options.config() | {"variations": name, "strength": strength, "store": str(path)}
    start_folder(options, config, {"store": path})
    # The field is noised in part and denoised again, by a share of the steps.
    how = {"predict": pipeline.predictor(labels, options.guidance), "steps": options.steps}
    generator = torch.Generator().manual_seed(options.seed)
    weights = variations(pipeline, field, options.num, strength=strength, generator=generator, **how)
    samples = pipeline.samples_of(weights)
    cells, bad = write_fields(samples, options, progress)
    save_sheet([*pictures_of(pipeline.samples_of(field), options), *cells], options, columns=9)
    # How far they went, as signals.
    shapes = samples.fields[0].form.is_shape
    values = signal_values(pipeline.decoder, weights), signal_values(pipeline.decoder, field)
    distances = signal_distances(*values, shapes=shapes)[:, 0]  # (N,)
    scores = {"strength": strength, "mean_distance": float(distances.mean()), "distances": distances.tolist()}
    finish_folder(options, {"id": name}, scores, bad)
    return Sampled(shapes, bad, scores, (name,))


def latent_space(pipeline: WeightDiffusionPipeline, autoencoder: str | None) -> WeightAutoencoder:
    """Where straight lines are meant by ``along="latents"``.

    Raises:
        UserError: There are no latents.
    """
    if autoencoder is not None:
        return open_autoencoder(autoencoder, pipeline.space.layout).to(pipeline.device).eval()
    if isinstance(pipeline.space, WeightSpace):
        raise UserError(
            "this model has no latents: it is one of weights",
            allowed="a model that was trained in latents, or --autoencoder DIR",
            do="pass the folder that wsrl train autoencoder wrote, or choose another --along",
        )
    return pipeline.space


def one_class_predictor(pipeline: WeightDiffusionPipeline, labels: Tensor | None, guidance: float) -> Prediction:
    """The prediction for any number of fields of the first class that is asked for."""
    if labels is None:
        return pipeline.predictor(None)

    def predict(vector: Tensor, timestep: Tensor) -> Tensor:
        return pipeline.predictor(labels[:1].expand(len(vector)), guidance)(vector, timestep)

    return predict


def save_strip(
    cells: list[Image.Image], ends: list[Image.Image], names: list[str], along: str, options: SampleOptions
) -> None:
    """Write ``strip.png``: the interpolation in one row between the two stored fields."""
    size = max(96, cell_size(cells, options))
    titles = [name if len(name) <= TITLE_LETTERS else ".." + name[2 - TITLE_LETTERS :] for name in names]
    parts = ([ends[0]], cells, [ends[1]])
    sheets = [grid_sheet(part, columns=max(1, len(part)), size=size) for part in parts]
    save_picture(beside(list(zip((titles[0], IN[along], titles[1]), sheets))), options.out / "strip.png")
