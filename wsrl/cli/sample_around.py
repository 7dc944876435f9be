"""``wsrl sample`` between and around given fields.

Letters: N fields, S steps of a way.
"""

import json
from pathlib import Path

from wsrl.cli.sample import (
    SampleOptions,
    begin,
    cell_size,
    finish,
    labels_of,
    open_pipeline,
    save_sheet,
    tell_bad,
    write_fields,
    write_metrics,
)
from wsrl.errors import UserError

OTHERS = 1000
"""Most stored fields that a way is compared with."""
TITLE_LETTERS = 14
IN = {"weights": "in weights", "latents": "in latents", "ode": "along the ODE of the diffusion"}


def interpolate(options: SampleOptions, ids, store: str | None, along: str, autoencoder: str | None) -> None:
    """Write the fields of a way, ``strip.png``, and the error along it as ``metrics.json``.

    Args:
        options: What all modes share; ``num`` counts the fields of the way with both ends.
        ids: Ids of the two fields; numbers are rows of the store where they are no ids.
        store: The store; None for the one that the model was trained on.
        along: ``weights``, ``latents`` or ``ode``.
        autoencoder: Folder of the autoencoder whose latents are meant; None for that of the model.

    Raises:
        UserError: What is given does not fit.
    """
    from wsrl.diffusion.editing import ode_way, straight_way
    from wsrl.evaluation.interpolation import signal_values, way_scores

    if options.num < 2:
        raise UserError(f"--num is {options.num}", allowed="2 or more, both ends included", do="choose another --num")
    if along != "latents" and autoencoder is not None:
        raise UserError(
            "--autoencoder means nothing here", allowed="with --along latents", do="leave out --autoencoder"
        )
    pipeline = open_pipeline(options)
    labels = labels_of(pipeline, options)
    path, opened = open_fields(pipeline, options, store)
    with opened as fields:
        rows = [row_of(fields, key) for key in ids]
        ends, names = read_rows(fields, rows, pipeline.device), [fields.id_of(row) for row in rows]
        space = latent_space(pipeline, autoencoder) if along == "latents" else None
        others = read_rows(fields, spread_rows(fields, rows), pipeline.device)
    config = options.config() | {"interpolate": names, "along": along, "autoencoder": autoencoder, "store": str(path)}
    begin(options, config, {"store": path, "autoencoder": autoencoder})
    if along == "ode":
        predict = one_class_predictor(pipeline, labels, options)
        way = ode_way(pipeline, ends, options.num, predict=predict, steps=options.steps)
    else:
        way = straight_way(ends, options.num, space)
    samples = pipeline.samples_of(way)
    cells, bad = write_fields(samples, options)
    values = (signal_values(pipeline.decoder, part) if part else [] for part in (way, ends, others))
    scores = way_scores(*values, shapes=samples.fields[0].form.is_shape)
    save_strip(cells, end_cells(pipeline, ends, options), names, along, options)
    write_metrics(options.out, {"along": along, "ids": names, **scores, **bad})
    finish(options, {"num": options.num, **{name: value for name, value in scores.items() if name != "steps"}, **bad})
    tell_bad(bad)
    tell_way(scores, names, samples.fields[0].form.is_shape)


def vary(options: SampleOptions, key: str, store: str | None, strength: float) -> None:
    """Write variations of a stored field, ``samples.png`` with the field first, and their distance to it.

    Args:
        options: What all modes share.
        key: Id or row of the field.
        store: The store; None for the one that the model was trained on.
        strength: 0 for the field itself to 1 for new samples.

    Raises:
        UserError: What is given does not fit.
    """
    import torch

    from wsrl.diffusion.editing import variations
    from wsrl.evaluation.interpolation import signal_distances, signal_values

    if not 0 <= strength <= 1:
        raise UserError(f"--strength is {strength}", allowed="0 (the field) to 1 (a new one)", do="change --strength")
    pipeline = open_pipeline(options)
    labels = labels_of(pipeline, options)
    path, opened = open_fields(pipeline, options, store)
    with opened as fields:
        row = row_of(fields, key)
        field, name = read_rows(fields, [row], pipeline.device), fields.id_of(row)
    begin(options, options.config() | {"variations": name, "strength": strength, "store": str(path)}, {"store": path})
    weights = variations(
        pipeline,
        field,
        options.num,
        strength=strength,
        predict=pipeline.predictor(labels, options.guidance),
        steps=options.steps,
        generator=torch.Generator().manual_seed(options.seed),
    )
    samples = pipeline.samples_of(weights)
    cells, bad = write_fields(samples, options)
    save_sheet([*end_cells(pipeline, field, options), *cells], options, "samples.png", columns=9)
    shapes = samples.fields[0].form.is_shape
    values = signal_values(pipeline.decoder, weights), signal_values(pipeline.decoder, field)
    distances = signal_distances(*values, shapes=shapes)[:, 0]
    mean = float(distances.mean())
    scores = {"strength": strength, "mean_distance": mean}
    write_metrics(options.out, {"id": name, **scores, "distances": distances.tolist(), **bad})
    finish(options, {"num": options.num, **scores, **bad})
    tell_bad(bad)
    print(f"mean distance to {name} at strength {strength:g}: {mean:.4g} ({kind_of_distance(shapes)})")


def open_fields(pipeline, options: SampleOptions, store: str | None):
    """Path and store of the fields, which have to be the model's kind.

    Raises:
        UserError: It is not known, no store, or one of other fields.
    """
    from wsrl.store import WeightStore

    path = store or trained_on(Path(options.model))
    if path is None:
        raise UserError(
            f"{options.model} does not say which store it was trained on",
            allowed="--store STORE",
            do="pass the store of the fields that the ids are of",
        )
    opened = WeightStore.open(path)
    if not same_kind(pipeline, opened):
        opened.close()
        raise UserError(
            f"the fields of the store {path} are of another kind than those of the model",
            allowed="a store of the same representation and base field",
            do="pass the store that the model was trained on as --store",
        )
    return path, opened


def same_kind(pipeline, store) -> bool:
    """Whether the weights of a store mean to the model's decoder what they mean to the store."""
    if store.layout != pipeline.space.layout:
        return False
    mine, theirs = pipeline.decoder.representation, store.representation
    if json.dumps(mine.to_dict(), sort_keys=True) != json.dumps(theirs.to_dict(), sort_keys=True):
        return False
    return mine.base is None or mine.base.sha256() == theirs.base.sha256()


def trained_on(model: Path) -> str | None:
    """The store that the record of a training run names, if it is still there."""
    for folder in (model, model.parent):
        try:
            store = json.loads((folder / "run.json").read_text())["config"]["data"]["store"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if isinstance(store, str) and Path(store).is_dir():
            return store
    return None


def row_of(store, key: str) -> int:
    """The row of an id, or of a number that is no id."""
    try:
        return store.row(key)
    except UserError:
        if not (key.isdigit() and int(key) < len(store)):
            raise
    return int(key)


def read_rows(store, rows, device) -> dict:
    """Weights ``(N, *shape)`` of rows; empty where there are none."""
    import torch

    fields = [store[row] for row in rows]
    return {name: torch.stack([field[name] for field in fields]).to(device) for name in (fields[0] if fields else ())}


def spread_rows(store, without) -> list[int]:
    """Rows over the whole store but some, at most ``OTHERS``."""
    rows = [row for row in range(len(store)) if row not in without]
    return rows[:: max(1, -(-len(rows) // OTHERS))]


def latent_space(pipeline, autoencoder: str | None):
    """Where straight ways are meant by ``--along latents``.

    Raises:
        UserError: There are no latents.
    """
    from wsrl.diffusion.space import WeightSpace
    from wsrl.encoders.autoencoder import open_autoencoder

    if autoencoder is not None:
        return open_autoencoder(autoencoder, pipeline.space.layout).to(pipeline.device).eval()
    if isinstance(pipeline.space, WeightSpace):
        raise UserError(
            "this model has no latents: it is one of weights",
            allowed="a model that was trained in latents, or --autoencoder DIR",
            do="pass the folder that wsrl train autoencoder wrote, or choose another --along",
        )
    return pipeline.space


def one_class_predictor(pipeline, labels, options: SampleOptions):
    """The prediction for any number of fields of the first class that is asked for."""
    if labels is None:
        return pipeline.predictor(None)

    def predict(vector, timestep):
        return pipeline.predictor(labels[:1].expand(len(vector)), options.guidance)(vector, timestep)

    return predict


def end_cells(pipeline, fields, options: SampleOptions) -> list:
    """Pictures of stored fields as cells of a sheet."""
    from wsrl.report.render import NORMALISED, render_mesh

    samples = pipeline.samples_of(fields)
    if samples.fields[0].form.is_shape:
        meshes = [field.mesh(options.resolution) for field in samples.fields]
        return [render_mesh(mesh, max(128, options.size or 0), frame=NORMALISED) for mesh in meshes]
    return samples.images if options.size is None else [field.image(options.size) for field in samples.fields]


def save_strip(cells, ends, names, along: str, options: SampleOptions) -> None:
    """Write ``strip.png``: the way in one row between the two stored fields."""
    from wsrl.cli import stage
    from wsrl.report.contact_sheet import beside, grid_sheet

    size = max(96, cell_size(cells, options))
    titles = [name if len(name) <= TITLE_LETTERS else ".." + name[2 - TITLE_LETTERS :] for name in names]
    parts = ([ends[0]], cells, [ends[1]])
    sheets = [grid_sheet(part, columns=max(1, len(part)), size=size) for part in parts]
    stage.save_picture(beside(list(zip((titles[0], IN[along], titles[1]), sheets))), options.out / "strip.png")


def kind_of_distance(shapes: bool) -> str:
    """What distances are measured in."""
    return "1 - IoU of the insides" if shapes else "mean squared error of the pictures"


def tell_way(scores: dict, names, shapes: bool) -> None:
    """Print the error along a way."""
    print(f"error along the way ({kind_of_distance(shapes)}), mean over its steps:")
    print(f"  to both ends    {scores['mean_loss']:.4g}  ({scores['mean_loss_of_ends']:.4g} at the ends)")
    print(f"  barrier         {scores['barrier']:.4g}")
    if "mean_to_nearest" in scores:
        of_ends = scores["mean_to_nearest_of_ends"]
        print(
            f"  to the nearest other field of the store  {scores['mean_to_nearest']:.4g}  ({of_ends:.4g} of the ends)"
        )
    for name, error in zip(names, scores["error_of_ends"]):
        print(f"  {name} comes back with an error of {error:.4g}")
