"""``wsrl sample``: draw weights from a diffusion model, and the pictures or meshes they make."""

import shlex
import sys
from pathlib import Path

from wsrl.errors import SignalError, UserError

SHOWN = 256


def main(argv: list[str]) -> int:
    """Run the command; returns the exit status."""
    from wsrl.cli import stage

    options = stage.parse(make_parser(), argv)
    sample(
        options.model,
        Path(options.out),
        num=options.num,
        seed=options.seed,
        steps=options.steps,
        size=options.size,
        resolution=options.resolution,
        device=options.device,
        command=shlex.join(["wsrl", "sample", *argv]),
    )
    return 0


def make_parser():
    """The parser of the command line."""
    from wsrl.cli import stage

    parser = stage.make_parser("sample", __doc__)
    parser.add_argument("model", type=str, help="folder of a diffusion model (wsrl train diffusion)")
    parser.add_argument("--num", type=int, default=64, help="number of fields")
    parser.add_argument("--out", type=str, required=True, help="folder for pictures or meshes, and weights.safetensors")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same fields")
    parser.add_argument("--steps", type=int, default=50, help="denoising steps")
    parser.add_argument("--size", type=int | None, default=None, help="longer side of the pictures; the data's grid")
    parser.add_argument(
        "--resolution", type=int, default=128, help="cells of a side of the grid that meshes are found on"
    )
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu or cuda[:i]")
    return parser


def sample(
    model: str,
    out: Path,
    *,
    num: int,
    seed: int,
    steps: int = 50,
    size: int | None = None,
    resolution: int = 128,
    device: str = "auto",
    command: str = "wsrl sample",
) -> None:
    """Draw fields and write ``00000.png``, ..., ``samples.png``, ``weights.safetensors`` and ``run.json``.

    Shapes are written as normalised meshes, ``00000.glb``, ..., and shown in ``samples.png``.

    Args:
        model: Folder of a diffusion pipeline.
        out: Folder to write to.
        num: Number of fields.
        seed: Seed of the noise.
        steps: Denoising steps.
        size: Longer side of the pictures in pixels; None for the grid of the data.
        resolution: Cells of a side of the grid that meshes are found on.
        device: ``auto``, ``cpu`` or ``cuda[:i]``.
        command: What is recorded as the command.

    Raises:
        UserError: There is no model, a number is out of range, or the folder is not ours.
    """
    import torch
    from safetensors.torch import save

    from wsrl.cli import stage
    from wsrl.cli.eval import load_pipeline
    from wsrl.fitting.devices import choose_device
    from wsrl.provenance import finish_run, write_run
    from wsrl.report.sheets import grid_sheet
    from wsrl.store.durable import write_bytes
    from wsrl.training.quiet import quiet_lightning

    check_numbers({"num": (num, 1), "steps": (steps, 1), "size": (size, 2), "resolution": (resolution, 2)})
    target = choose_device(device)
    with quiet_lightning():
        pipeline = load_pipeline(model).to(target)
    config = {"model": model, "num": num, "seed": seed, "steps": steps, "size": size, "resolution": resolution}
    pipeline.set_progress_bar_config(disable=not sys.stderr.isatty())
    stage.claim_folder(out, ("run.json",), "sample")
    write_run(out, command, config, inputs={"model": model}, seed=seed)
    samples = pipeline(num, generator=torch.Generator().manual_seed(seed), num_inference_steps=steps)
    for old in [*out.glob("[0-9]*.png"), *out.glob("[0-9]*.glb")]:  # an earlier run may have drawn more
        old.unlink()
    write_bytes(out / "weights.safetensors", save({k: v.contiguous() for k, v in samples.weights.items()}))
    shapes = samples.fields[0].is_shape
    cells, results = write_meshes(samples, out, resolution, size) if shapes else (write_images(samples, out, size), {})
    cell = max(128 if shapes else 64, size or 0)
    stage.save_picture(grid_sheet(cells, columns=min(16, max(1, round(num**0.5))), size=cell), out / "samples.png")
    finish_run(out, num=num, **results)
    print(f"{num} fields, their {'meshes' if shapes else 'pictures'} and weights are in {out}")
    for name, count in results.items():
        print(f"{count} of them are {name.replace('_', ' ')}")


def check_numbers(given: dict[str, tuple[int | None, int]]) -> None:
    """Refuse numbers that are out of range.

    Args:
        given: Value (None where it is left to the data) and least value by name of the option.
    """
    for name, (value, least) in given.items():
        if value is not None and value < least:
            raise UserError(f"--{name} is {value}", allowed=f"{least} or more", do=f"choose another --{name}")


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
    from wsrl.cli import stage
    from wsrl.report.render import NORMALISED, render_mesh
    from wsrl.store.exporting import write_mesh

    cells, counts = [], {"empty": 0, "not_a_number": 0}
    with stage.progress("mesh", len(samples.fields)) as shown:
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
