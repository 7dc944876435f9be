"""``wsrl sample --complete``: fields that agree with a known part of a signal.

Letters: N fields, P points.
"""

from pathlib import Path

from wsrl.cli.sample import (
    SampleOptions,
    begin,
    finish,
    labels_of,
    open_pipeline,
    save_sheet,
    tell_bad,
    write_fields,
    write_metrics,
)
from wsrl.errors import UserError


def complete_part(options: SampleOptions, file: str, mask: str | None, strength: float, refine: int) -> None:
    """Write fields that agree with a part of a signal, and ``samples.png`` with the part first.

    Args:
        options: What all modes share.
        file: A picture with unknown pixels, or points on a surface.
        mask: Picture that is white where ``file`` is known; None where its transparency says it.
        strength: How strongly the known part pulls.
        refine: Last steps towards the known part.

    Raises:
        UserError: What is given does not fit.
    """
    import torch

    from wsrl.diffusion.completion import complete

    for name, number in (("strength", strength), ("refine", refine)):
        if not number >= 0:
            raise UserError(f"--{name} is {number}", allowed="0 or more", do=f"choose another --{name}")
    pipeline = open_pipeline(options)
    labels = labels_of(pipeline, options)
    known, unknown, shown = read_part(pipeline.decoder, Path(file), mask, options)
    config = options.config() | {"complete": file, "mask": mask, "strength": strength, "refine": refine}
    begin(options, config, {"complete": file, "mask": mask})
    found = {}
    for name, pull in (("complete", strength), ("plain", 0.0)):
        vectors = complete(
            pipeline,
            known,
            options.num,
            predict=pipeline.predictor(labels, options.guidance),
            strength=pull,
            refinements=refine,
            steps=options.steps,
            generator=torch.Generator().manual_seed(options.seed),
        )
        found[name] = pipeline.samples(vectors)
    samples = found["complete"]
    cells, bad = write_fields(samples, options)
    save_sheet([shown, *cells], options, "samples.png", columns=9)
    scores = {name: part_scores(pipeline.decoder, output.weights, known, unknown) for name, output in found.items()}
    write_metrics(options.out, {**scores, **bad})
    finish(options, {"num": options.num, **scores, **bad})
    tell_bad(bad)
    tell_part(scores, samples.fields[0].form.is_shape)


def read_part(decoder, file: Path, mask: str | None, options: SampleOptions):
    """The known part, where the signal is unknown, and a picture of the part."""
    import numpy as np
    import torch

    from wsrl.cli.known_part import read_picture_part, read_points, show_part, show_points
    from wsrl.diffusion.completion import KnownPart
    from wsrl.signals.signal import grid_coords

    form = decoder.form
    if form.is_shape:
        if mask is not None:
            raise UserError("--mask means nothing here", allowed="with a picture", do="leave out --mask")
        points = read_points(file)
        known = KnownPart(torch.from_numpy(points), torch.zeros(len(points), 1))
        return known, None, show_points(points, max(128, options.size or 0))
    if form.grid is None or not form.is_picture or form.out_features == 4:
        raise UserError("the fields of this model are no pictures or shapes", do="choose another model")
    values, seen = read_picture_part(file, None if mask is None else Path(mask), form.grid, form.out_features)
    low, high = decoder.form.value_range
    coords, levels = grid_coords(form.grid), torch.from_numpy(low + (high - low) * values).float()
    here = torch.from_numpy(np.ascontiguousarray(seen)).flatten()
    return KnownPart(coords[here], levels.reshape(-1, form.out_features)[here]), coords[~here], show_part(values, seen)


def part_scores(decoder, weights, known, unknown) -> dict:
    """How well fields agree with a known part, and how much they differ between each other elsewhere.

    Args:
        decoder: The decoder of the fields.
        weights: Fields ``(N, *shape)``, on the CPU.
        known: The known part.
        unknown: Points ``(P, D)`` of the unknown part; None for shapes, whose insides are compared everywhere.
    """
    from wsrl.evaluation.interpolation import signal_distances, signal_values
    from wsrl.signals.fidelity import psnr

    device = decoder.bounds.device
    weights = {name: tensor.to(device) for name, tensor in weights.items()}
    found = decoder.decode(weights, known.coords.to(device)).cpu()
    num = len(found)
    if unknown is None:
        inside = signal_values(decoder, weights)
        apart = float(signal_distances(inside, inside, shapes=True).sum()) / max(1, num * (num - 1))
        return {"known_distance": float(found.abs().mean()), "unknown_difference": apart}
    low, high = decoder.form.value_range
    fits = psnr(found.clamp(low, high), known.values.expand_as(found), (low, high))
    values = ((decoder.decode(weights, unknown.to(device)).cpu() - low) / (high - low)).clamp(0, 1)
    return {"known_psnr": float(fits.mean()), "unknown_deviation": float(values.std(dim=0, correction=0).mean())}


def tell_part(scores: dict, shapes: bool) -> None:
    """Print how well the known part is met."""
    mine, plain = scores["complete"], scores["plain"]
    if shapes:
        print(f"distance at the known points: {mine['known_distance']:.4g}  ({plain['known_distance']:.4g} unguided)")
        print(f"1 - IoU between fields: {mine['unknown_difference']:.3f}  ({plain['unknown_difference']:.3f} unguided)")
        return
    print(f"PSNR of the known part: {mine['known_psnr']:.2f} dB  ({plain['known_psnr']:.2f} dB unguided)")
    deviation = "standard deviation of the unknown part between fields"
    print(f"{deviation}: {mine['unknown_deviation']:.3f}  ({plain['unknown_deviation']:.3f} unguided)")
