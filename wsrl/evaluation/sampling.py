"""A folder of sampled fields: weights, the pictures or meshes that they make, and a sheet of them.

Letters: N fields.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor

from wsrl.diffusion.pipeline import WeightDiffusionPipeline, WeightSamples, load_pipeline
from wsrl.diffusion.samplers import sampler
from wsrl.durable import write_bytes
from wsrl.errors import SignalError, UserError
from wsrl.exchange.export_files import write_mesh
from wsrl.fitting.devices import choose_device
from wsrl.options import at_least, between, check, check_values, option
from wsrl.progress import ShowProgress, silent
from wsrl.provenance import METRICS_FILE, claim_folder, finish_run, write_json_atomic, write_run
from wsrl.report.contact_sheet import grid_sheet, save_picture
from wsrl.report.render import NORMALISED, render_mesh
from wsrl.training.lightning_noise import quiet_lightning

SHOWN = 256
LEAST_MESH_CELL = 128


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """What is sampled, and where it is written to.

    Attributes:
        model: Folder of a diffusion pipeline.
        out: Folder to write to.
        num: Number of fields.
        seed: Seed of the noise.
        steps: Denoising steps.
        size: Longer side of the pictures in pixels; None for the grid of the data.
        resolution: Cells of a side of the grid that meshes are found on.
        device: ``auto``, ``cpu`` or ``cuda[:i]``.
        classes: Names or numbers of the classes to draw from, in turn; none for no class.
        guidance: How strongly classes are followed; 1 as learned.
        sampler: One of ``SAMPLERS``; None for that of the model.
        command: What is recorded as the command.
        bar: Show the denoising steps as diffusers does.

    Raises:
        UserError: An option is out of range.
    """

    model: str
    out: Path
    num: int = option(64, at_least(1))
    seed: int = 0
    steps: int = option(50, at_least(1))
    size: int | None = option(None, at_least(2))
    resolution: int = option(128, at_least(2))
    device: str = "auto"
    classes: Sequence[str] = ()
    guidance: float = 1.0
    sampler: str | None = None
    command: str = "wsrl sample"
    bar: bool = False

    def __post_init__(self):
        check(self)

    def config(self) -> dict:
        """What is recorded as the configuration."""
        left_out = ("out", "device", "command", "bar")
        return {name: value for name, value in asdict(self).items() if name not in left_out}

    @property
    def mesh_cell(self) -> int:
        """Side in pixels of a rendered mesh."""
        return max(LEAST_MESH_CELL, self.size or 0)


@dataclass(frozen=True)
class Sampled:
    """What was written to a folder.

    Attributes:
        shapes: Whether the fields are shapes, and not pictures.
        bad: Of shapes, how many fields are ``empty`` and how many ``not_a_number``.
        scores: What was measured of the fields.
        names: Ids of the stored fields that they were made from.
    """

    shapes: bool
    bad: dict[str, int]
    scores: dict = field(default_factory=dict)
    names: tuple[str, ...] = ()


def draw_samples(options: SampleOptions, *, progress: ShowProgress = silent) -> Sampled:
    """Draw fields and write ``00000.png``, ..., ``samples.png``, ``weights.safetensors`` and ``run.json``.

    Shapes are written as normalised meshes, ``00000.glb``, ..., and shown in ``samples.png``.

    Args:
        options: What is sampled.
        progress: Shows how many meshes are found.

    Raises:
        UserError: There is no model, an option does not fit it, a class is unknown, or the folder is not ours.
    """
    pipeline = open_pipeline(options)
    labels = class_labels(pipeline, options)
    start_folder(options, options.config(), {})
    generator = torch.Generator().manual_seed(options.seed)
    how = {"generator": generator, "num_inference_steps": options.steps}
    samples = pipeline(options.num, labels, options.guidance, **how)
    cells, bad = write_fields(samples, options, progress)
    save_sheet(cells, options, columns=min(16, max(1, round(options.num**0.5))))
    finish_run(options.out, num=options.num, **bad)
    return Sampled(samples.fields[0].form.is_shape, bad)


def open_pipeline(options: SampleOptions) -> WeightDiffusionPipeline:
    """The pipeline on its device, with the sampler that is asked for.

    Raises:
        UserError: There is none, or the sampler or the number of steps does not fit it.
    """
    device = choose_device(options.device)
    with quiet_lightning():
        pipeline = load_pipeline(options.model).to(device)
    if options.sampler is not None:
        pipeline.scheduler = sampler(options.sampler, pipeline.scheduler)
    most = pipeline.scheduler.config.num_train_timesteps
    check_values({"steps": options.steps}, steps=between(1, most))
    pipeline.set_progress_bar_config(disable=not options.bar)
    return pipeline


def class_labels(pipeline: WeightDiffusionPipeline, options: SampleOptions) -> Tensor | None:
    """Class numbers ``(N,)`` of the fields to draw, the classes in turn; None for no class.

    Raises:
        UserError: A class is unknown, or classes or guidance are asked of a model or fields without.
    """
    known = pipeline.classes
    words = [word for text in options.classes for word in ([text] if text in known else text.split(","))]
    if not words:
        if options.guidance != 1.0:
            raise UserError("--guidance needs a class to follow", allowed="with --class", do="leave out --guidance")
        return None
    names = [int(word) if word not in known and word.strip().isdigit() else word.strip() for word in words]
    return pipeline.class_numbers([names[i % len(names)] for i in range(options.num)], options.num)


def start_folder(options: SampleOptions, config: dict, inputs: Mapping[str, Path | str | None]) -> None:
    """Claim the folder, record the run, and remove what an earlier run has left."""
    out = options.out
    claim_folder(out, ("run.json",), "sample")
    inputs = {"model": options.model, **{name: path for name, path in inputs.items() if path is not None}}
    write_run(out, options.command, config, inputs=inputs, seed=options.seed)
    sheets = [out / name for name in ("samples.png", "strip.png", METRICS_FILE)]
    for old in [*out.glob("[0-9]*.png"), *out.glob("[0-9]*.glb"), *sheets]:  # an earlier run may have drawn more
        old.unlink(missing_ok=True)


def finish_folder(options: SampleOptions, details: dict, scores: dict, bad: dict[str, int]) -> None:
    """Write ``metrics.json`` with details and scores, and complete the record."""
    write_json_atomic(options.out / METRICS_FILE, {**details, **scores, **bad})
    kept = {name: value for name, value in scores.items() if name not in ("steps", "distances")}
    finish_run(options.out, num=options.num, **kept, **bad)


def write_fields(
    samples: WeightSamples, options: SampleOptions, progress: ShowProgress = silent
) -> tuple[list[Image.Image], dict[str, int]]:
    """Write the weights, and the picture or mesh of each field.

    Args:
        samples: What the pipeline returned.
        options: Where to, and how large.
        progress: Shows how many meshes are found.

    Returns:
        The pictures that a sheet shows, and for shapes how many fields are ``empty`` and how many ``not_a_number``.
    """
    weights = {name: tensor.contiguous() for name, tensor in samples.weights.items()}
    write_bytes(options.out / "weights.safetensors", save(weights))
    if samples.fields[0].form.is_shape:
        return _write_meshes(samples, options, progress)
    images = pictures_of(samples, options)
    for i, image in enumerate(images):
        save_picture(image, options.out / f"{i:05d}.png")
    return images[:SHOWN], {}


def pictures_of(samples: WeightSamples, options: SampleOptions) -> list[Image.Image]:
    """What fields show: pictures in the size that is asked for, or rendered meshes."""
    if samples.fields[0].form.is_shape:
        meshes = [field.mesh(options.resolution) for field in samples.fields]
        return [render_mesh(mesh, options.mesh_cell, frame=NORMALISED) for mesh in meshes]
    return samples.images if options.size is None else [field.image(options.size) for field in samples.fields]


def _write_meshes(
    samples: WeightSamples, options: SampleOptions, progress: ShowProgress
) -> tuple[list[Image.Image], dict[str, int]]:
    """Write ``00000.glb``, ...; a field that is nowhere zero has a file without faces."""
    cells, counts = [], {"empty": 0, "not_a_number": 0}
    with progress("mesh", len(samples.fields)) as shown:
        for i, one in enumerate(samples.fields):
            shown.advance(1)
            try:
                mesh = one.mesh(options.resolution)
            except SignalError:
                counts["not_a_number"] += 1
                continue
            counts["empty"] += not len(mesh.faces)
            write_mesh(mesh, options.out / f"{i:05d}.glb")
            if len(cells) < SHOWN:
                cells.append(render_mesh(mesh, options.mesh_cell, frame=NORMALISED))
    return cells, counts


def save_sheet(cells: list[Image.Image], options: SampleOptions, *, columns: int) -> None:
    """Write ``samples.png``, a sheet of the cells."""
    save_picture(grid_sheet(cells, columns, cell_size(cells, options)), options.out / "samples.png")


def cell_size(cells: list[Image.Image], options: SampleOptions) -> int:
    """Side of a cell of a sheet; that of shapes, which come rendered, is their own."""
    return max(64, options.size or 0, *(max(cell.size) for cell in cells[:1]))
