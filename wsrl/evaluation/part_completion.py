"""A folder of fields that agree with a known part of a signal.

Letters: N fields, P points, D coordinates, C channels.
"""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from wsrl.diffusion.completion import KnownPart, complete
from wsrl.diffusion.decoder import FieldDecoder
from wsrl.errors import UserError
from wsrl.evaluation.interpolation import signal_distances, signal_values
from wsrl.evaluation.known_part import read_picture_part, read_points, show_part, show_points
from wsrl.evaluation.sampling import (
    Sampled,
    SampleOptions,
    class_labels,
    finish_folder,
    open_pipeline,
    save_sheet,
    start_folder,
    write_fields,
)
from wsrl.options import at_least, check_values
from wsrl.progress import ShowProgress, silent
from wsrl.signals.fidelity import psnr
from wsrl.signals.signal import grid_coords


def complete_part(
    options: SampleOptions,
    file: str,
    *,
    mask: str | None = None,
    strength: float = 1.0,
    refine: int = 50,
    progress: ShowProgress = silent,
) -> Sampled:
    """Write fields that agree with a part of a signal, and ``samples.png`` with the part first.

    Args:
        options: What all modes share.
        file: A picture with unknown pixels, or points on a surface.
        mask: Picture that is white where ``file`` is known; None where its transparency says it.
        strength: How strongly the known part pulls.
        refine: Last steps towards the known part.
        progress: Shows how many meshes are found.

    Returns:
        What was written, with :func:`part_scores` of the fields (``complete``) and of unguided ones (``plain``).

    Raises:
        UserError: What is given does not fit.
    """
    check_values({"strength": strength, "refine": refine}, strength=at_least(0), refine=at_least(0))
    # The model, and what is known of the signal.
    pipeline = open_pipeline(options)
    labels = class_labels(pipeline, options)
    known, unknown, shown = read_part(pipeline.decoder, Path(file), mask, options)
    config = options.config() | {"complete": file, "mask": mask, "strength": strength, "refine": refine}
    start_folder(options, config, {"complete": file, "mask": mask})
    how = {"predict": pipeline.predictor(labels, options.guidance), "refinements": refine, "steps": options.steps}
    outputs = {}
    for name, pull in (("complete", strength), ("plain", 0.0)):  # the same noise, with and without the known part
        generator = torch.Generator().manual_seed(options.seed)
        outputs[name] = pipeline.samples(
            complete(pipeline, known, options.num, strength=pull, generator=generator, **how)
        )
    # The fields that were pulled, and how well both agree with the known part.
    samples = outputs["complete"]
    cells, bad = write_fields(samples, options, progress)
    save_sheet([shown, *cells], options, columns=9)
    scores = {name: part_scores(pipeline.decoder, output.weights, known, unknown) for name, output in outputs.items()}
    finish_folder(options, {}, scores, bad)
    return Sampled(samples.fields[0].form.is_shape, bad, scores)


def read_part(
    decoder: FieldDecoder, file: Path, mask: str | None, options: SampleOptions
) -> tuple[KnownPart, Tensor | None, Image.Image]:
    """The known part, the coordinates ``(P, D)`` where the signal is unknown (None for shapes), and a picture of it."""
    form = decoder.form
    if form.is_shape:
        if mask is not None:
            raise UserError("--mask means nothing here", allowed="with a picture", do="leave out --mask")
        points = read_points(file)
        known = KnownPart(torch.from_numpy(points), torch.zeros(len(points), 1))
        return known, None, show_points(points, options.mesh_cell)
    if form.grid is None or not form.is_picture or form.out_features == 4:
        raise UserError("the fields of this model are no pictures or shapes", do="choose another model")
    values, seen = read_picture_part(file, None if mask is None else Path(mask), form.grid, form.out_features)
    low, high = decoder.form.value_range
    coords, levels = grid_coords(form.grid), torch.from_numpy(low + (high - low) * values).float()
    here = torch.from_numpy(np.ascontiguousarray(seen)).flatten()  # (H W,)
    return KnownPart(coords[here], levels.reshape(-1, form.out_features)[here]), coords[~here], show_part(values, seen)


def part_scores(
    decoder: FieldDecoder, weights: dict[str, Tensor], known: KnownPart, unknown: Tensor | None
) -> dict[str, float]:
    """How well fields agree with a known part, and how much they differ between each other elsewhere.

    Args:
        decoder: The decoder of the fields.
        weights: Fields ``(N, *shape)``, on the CPU.
        known: The known part.
        unknown: Points ``(P, D)`` of the unknown part; None for shapes, whose insides are compared everywhere.

    Returns:
        Of pictures ``known_psnr`` (dB) and ``unknown_deviation``, the standard deviation between fields; of shapes
        ``known_distance`` and ``unknown_difference``, one minus the mean IoU of two fields.
    """
    device = decoder.bounds.device
    weights = {name: tensor.to(device) for name, tensor in weights.items()}
    values = decoder.decode(weights, known.coords.to(device)).cpu()  # (N, P, C)
    num = len(values)
    if unknown is None:
        inside = signal_values(decoder, weights)
        apart = float(signal_distances(inside, inside, shapes=True).sum()) / max(1, num * (num - 1))
        return {"known_distance": float(values.abs().mean()), "unknown_difference": apart}
    low, high = decoder.form.value_range
    fits = psnr(values.clamp(low, high), known.values.expand_as(values), (low, high))
    others = ((decoder.decode(weights, unknown.to(device)).cpu() - low) / (high - low)).clamp(0, 1)
    return {"known_psnr": float(fits.mean()), "unknown_deviation": float(others.std(dim=0, correction=0).mean())}
