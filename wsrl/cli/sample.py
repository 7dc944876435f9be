"""``wsrl sample``: draw fields from a diffusion model, or make some between, around or from parts of given ones.

Plain: --num new fields, of the classes in --class. With --interpolate: a way between two stored fields. With
--variations: fields near a stored one. With --complete: fields that agree with a part of a picture or shape.
"""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from wsrl.errors import SignalError, UserError

SHOWN = 256
ALONG = ("weights", "latents", "ode")
NUM = {"sample": 64, "interpolate": 9, "variations": 16, "complete": 16}
STRENGTH = {"variations": 0.5, "complete": 1.0}
BELONGS = {
    "along": ("interpolate",),
    "autoencoder": ("interpolate",),
    "mask": ("complete",),
    "refine": ("complete",),
    "strength": ("variations", "complete"),
    "store": ("interpolate", "variations"),
}
"""Options that mean something with some modes only."""


@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """What all modes of the command share.

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
    """

    model: str
    out: Path
    num: int
    seed: int
    steps: int = 50
    size: int | None = None
    resolution: int = 128
    device: str = "auto"
    classes: Sequence[str] = ()
    guidance: float = 1.0
    sampler: str | None = None
    command: str = "wsrl sample"

    def __post_init__(self):
        least = {"num": 1, "steps": 1, "size": 2, "resolution": 2}
        check_numbers({name: (getattr(self, name), bound) for name, bound in least.items()})

    def config(self) -> dict:
        """What is recorded as the configuration."""
        return {name: value for name, value in asdict(self).items() if name not in ("out", "device", "command")}


def main(argv: list[str]) -> int:
    """Run the command; returns the exit status."""
    from wsrl.cli import stage

    given = stage.parse(make_parser(), argv)
    mode = mode_of(given)
    options = SampleOptions(
        model=given.model,
        out=Path(given.out),
        num=NUM[mode] if given.num is None else given.num,
        **{name: given[name] for name in ("seed", "steps", "size", "resolution", "device", "guidance", "sampler")},
        classes=given["class"],
        command=shlex.join(["wsrl", "sample", *argv]),
    )
    if mode == "sample":
        sample(options)
        return 0
    from wsrl.cli import sample_around, sample_part

    strength = STRENGTH.get(mode) if given.strength is None else given.strength
    if mode == "interpolate":
        along = given.along or "weights"
        sample_around.interpolate(options, given.interpolate, given.store, along, given.autoencoder)
    elif mode == "variations":
        sample_around.vary(options, given.variations, given.store, strength)
    else:
        refine = 50 if given.refine is None else given.refine
        sample_part.complete_part(options, given.complete, given.mask, strength, refine)
    return 0


def make_parser():
    """The parser of the command line."""
    from wsrl.cli import stage

    parser = stage.make_parser("sample", __doc__)
    add = parser.add_argument
    add("model", type=str, help="folder of a diffusion model (wsrl train diffusion)")
    add("--out", type=str, required=True, help="folder for pictures or meshes, and weights.safetensors")
    add("--num", type=int | None, default=None, help=", ".join(f"{name}: {num}" for name, num in NUM.items()))
    add("--seed", type=int, default=0, help="the same seed gives the same fields")
    add("--steps", type=int, default=50, help="denoising steps")
    add("--sampler", type=str | None, default=None, help="ddim, ddpm or dpm++; that of the model")
    add(
        "--class", type=str, action="append", default=[], metavar="CLASS", help="name or number; several in turn: 0,3,7"
    )
    add("--guidance", type=float, default=1.0, help="how strongly classes are followed; 1 as learned")
    add("--size", type=int | None, default=None, help="longer side of the pictures; the data's grid")
    add("--resolution", type=int, default=128, help="cells of a side of the grid that meshes are found on")
    add("--device", type=str, default="auto", help="auto, cpu or cuda[:i]")
    add("--interpolate", type=str, nargs=2, default=None, metavar=("ID_A", "ID_B"), help="a way between two fields")
    add("--along", type=str | None, default=None, help="weights, latents or ode (through the model's noise)")
    add("--autoencoder", type=str | None, default=None, help="for latents, where the model itself is one of weights")
    add("--variations", type=str | None, default=None, metavar="ID", help="fields near this one")
    add("--complete", type=str | None, default=None, metavar="FILE", help="picture with transparent parts, or points")
    add("--mask", type=str | None, default=None, metavar="FILE", help="white where the picture is known")
    add("--refine", type=int | None, default=None, help="last steps towards the known part; 50")
    add(
        "--strength",
        type=float | None,
        default=None,
        help="of variations: 0 the field, 1 new; of the known part's pull",
    )
    add("--store", type=str | None, default=None, help="store of the ids; the one the model was trained on")
    return parser


def mode_of(given) -> str:
    """Which of ``NUM`` is asked for.

    Raises:
        UserError: Two are, or an option belongs to another one.
    """
    asked = [mode for mode in list(NUM)[1:] if given[mode] is not None]
    if len(asked) > 1:
        names = " and ".join(f"--{mode}" for mode in asked)
        raise UserError(f"{names} are given together", allowed="one of them", do="run the command once for each")
    mode = asked[0] if asked else "sample"
    for name, modes in BELONGS.items():
        if given[name] is not None and mode not in modes:
            allowed = "with " + " or ".join(f"--{mode}" for mode in modes)
            raise UserError(f"--{name} means nothing here", allowed=allowed, do=f"leave out --{name}")
    if given.along not in (None, *ALONG):
        raise UserError(f"--along is {given.along!r}", allowed=", ".join(ALONG), do="choose one of them")
    return mode


def sample(options: SampleOptions) -> None:
    """Draw fields and write ``00000.png``, ..., ``samples.png``, ``weights.safetensors`` and ``run.json``.

    Shapes are written as normalised meshes, ``00000.glb``, ..., and shown in ``samples.png``.

    Raises:
        UserError: There is no model, a number is out of range, a class is unknown, or the folder is not ours.
    """
    import torch

    pipeline = open_pipeline(options)
    labels = labels_of(pipeline, options)
    begin(options, options.config(), {})
    samples = pipeline(
        options.num,
        labels,
        options.guidance,
        generator=torch.Generator().manual_seed(options.seed),
        num_inference_steps=options.steps,
    )
    cells, results = write_fields(samples, options)
    save_sheet(cells, options, "samples.png", columns=min(16, max(1, round(options.num**0.5))))
    finish(options, {"num": options.num, **results})
    tell_bad(results)


def open_pipeline(options: SampleOptions):
    """The pipeline on its device, with the sampler that is asked for.

    Raises:
        UserError: There is none, or the sampler or the number of steps does not fit it.
    """
    from wsrl.cli.display import has_terminal
    from wsrl.diffusion.pipeline import load_pipeline
    from wsrl.diffusion.samplers import sampler
    from wsrl.fitting.devices import choose_device
    from wsrl.training.lightning_noise import quiet_lightning

    device = choose_device(options.device)
    with quiet_lightning():
        pipeline = load_pipeline(options.model).to(device)
    if options.sampler is not None:
        pipeline.scheduler = sampler(options.sampler, pipeline.scheduler)
    most = pipeline.scheduler.config.num_train_timesteps
    if options.steps > most:
        raise UserError(f"--steps is {options.steps}", allowed=f"1 to {most}", do="choose another --steps")
    pipeline.set_progress_bar_config(disable=not has_terminal())
    return pipeline


def labels_of(pipeline, options: SampleOptions):
    """Class numbers ``(N,)`` of the fields to draw, the classes in turn; None for no class.

    Raises:
        UserError: A class is unknown, or classes or guidance are asked of a model or fields without.
    """
    known = pipeline.classes
    words = [word for given in options.classes for word in ([given] if given in known else given.split(","))]
    if not words:
        if options.guidance != 1.0:
            raise UserError("--guidance needs a class to follow", allowed="with --class", do="leave out --guidance")
        return None
    names = [int(word) if word not in known and word.strip().isdigit() else word.strip() for word in words]
    return pipeline.class_numbers([names[i % len(names)] for i in range(options.num)], options.num)


def begin(options: SampleOptions, config: dict, inputs: dict) -> None:
    """Claim the folder, record the run, and remove what an earlier run has left."""
    from wsrl.cli import stage
    from wsrl.provenance import write_run

    out = options.out
    stage.claim_folder(out, ("run.json",), "sample")
    inputs = {"model": options.model, **{name: path for name, path in inputs.items() if path is not None}}
    write_run(out, options.command, config, inputs=inputs, seed=options.seed)
    sheets = [out / name for name in ("samples.png", "strip.png", "metrics.json")]
    for old in [*out.glob("[0-9]*.png"), *out.glob("[0-9]*.glb"), *sheets]:  # an earlier run may have drawn more
        old.unlink(missing_ok=True)


def finish(options: SampleOptions, results: dict) -> None:
    """Complete the record and say where everything is."""
    from wsrl.provenance import finish_run

    finish_run(options.out, **results)
    kind = "meshes" if "empty" in results else "pictures"
    print(f"{options.num} fields, their {kind} and weights are in {options.out}")


def write_metrics(out: Path, scores: dict) -> None:
    """Write ``metrics.json``."""
    from wsrl.provenance import write_json_atomic

    write_json_atomic(out / "metrics.json", scores)


def tell_bad(results: dict) -> None:
    """Say how many shapes have no surface."""
    for name in ("empty", "not_a_number"):
        if name in results:
            print(f"{results[name]} of them are {name.replace('_', ' ')}")


def check_numbers(given: dict[str, tuple[int | None, int]]) -> None:
    """Refuse numbers that are out of range.

    Args:
        given: Value (None where it is left to the data) and least value by name of the option.
    """
    for name, (value, least) in given.items():
        if value is not None and value < least:
            raise UserError(f"--{name} is {value}", allowed=f"{least} or more", do=f"choose another --{name}")


def write_fields(samples, options: SampleOptions) -> tuple[list, dict[str, int]]:
    """Write the weights, and the picture or mesh of each field.

    Args:
        samples: What the pipeline returned.
        options: Where to, and how large.

    Returns:
        The pictures that a sheet shows, and for shapes how many fields are ``empty`` and how many ``not_a_number``.
    """
    from safetensors.torch import save

    from wsrl.durable import write_bytes

    weights = {name: tensor.contiguous() for name, tensor in samples.weights.items()}
    write_bytes(options.out / "weights.safetensors", save(weights))
    if samples.fields[0].form.is_shape:
        return write_meshes(samples, options.out, options.resolution, options.size)
    return write_images(samples, options.out, options.size), {}


def save_sheet(cells: list, options: SampleOptions, name: str, columns: int) -> None:
    """Write a sheet of the cells."""
    from wsrl.cli import stage
    from wsrl.report.contact_sheet import grid_sheet

    stage.save_picture(grid_sheet(cells, columns=columns, size=cell_size(cells, options)), options.out / name)


def cell_size(cells: list, options: SampleOptions) -> int:
    """Side of a cell of a sheet; that of shapes, which come rendered, is their own."""
    return max(64, options.size or 0, *(max(cell.size) for cell in cells[:1]))


def write_images(samples, out: Path, size: int | None) -> list:
    """Write ``00000.png``, ...; returns the pictures that the sheet shows."""
    from wsrl.cli import stage

    images = samples.images if size is None else [field.image(size) for field in samples.fields]
    for i, image in enumerate(images):
        stage.save_picture(image, out / f"{i:05d}.png")
    return images[:SHOWN]


def write_meshes(samples, out: Path, resolution: int, size: int | None) -> tuple[list, dict[str, int]]:
    """Write ``00000.glb``, ...; a field that is nowhere zero has a file without faces.

    Args:
        samples: What the pipeline returned.
        out: The folder.
        resolution: Cells of a side of the grid.
        size: Side of a cell of the sheet in pixels.

    Returns:
        The pictures that the sheet shows, and how many fields are ``empty`` and how many ``not_a_number``.
    """
    from wsrl.cli.display import show_progress
    from wsrl.exchange.export_files import write_mesh
    from wsrl.report.render import NORMALISED, render_mesh

    cells, counts = [], {"empty": 0, "not_a_number": 0}
    with show_progress("mesh", len(samples.fields)) as shown:
        for i, field in enumerate(samples.fields):
            shown.advance(1)
            try:
                mesh = field.mesh(resolution)
            except SignalError:
                counts["not_a_number"] += 1
                continue
            counts["empty"] += not len(mesh.faces)
            write_mesh(mesh, out / f"{i:05d}.glb")
            if len(cells) < SHOWN:
                cells.append(render_mesh(mesh, max(128, size or 0), frame=NORMALISED))
    return cells, counts
