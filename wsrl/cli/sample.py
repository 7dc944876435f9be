"""``wsrl sample``: draw weights from a diffusion model, and the pictures they make."""

import shlex
import sys
from pathlib import Path

from wsrl.errors import UserError


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
    parser.add_argument("--out", type=str, required=True, help="folder for the pictures and weights.safetensors")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same pictures")
    parser.add_argument("--steps", type=int, default=50, help="denoising steps")
    parser.add_argument("--size", type=int | None, default=None, help="longer side of the pictures; the data's grid")
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
    device: str = "auto",
    command: str = "wsrl sample",
) -> None:
    """Draw fields and write ``00000.png``, ..., ``samples.png``, ``weights.safetensors`` and ``run.json``.

    Args:
        model: Folder of a diffusion pipeline.
        out: Folder to write to.
        num: Number of fields.
        seed: Seed of the noise.
        steps: Denoising steps.
        size: Longer side of the pictures in pixels; None for the grid of the data.
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

    for name, value, least in (("num", num, 1), ("steps", steps, 1), ("size", size, 2)):
        if value is not None and value < least:
            raise UserError(f"--{name} is {value}", allowed=f"{least} or more", do=f"choose another --{name}")
    target = choose_device(device)
    with quiet_lightning():
        pipeline = load_pipeline(model).to(target)
    config = {"model": model, "num": num, "seed": seed, "steps": steps, "size": size}
    pipeline.set_progress_bar_config(disable=not sys.stderr.isatty())
    stage.claim_folder(out, ("run.json",), "sample")
    write_run(out, command, config, inputs={"model": model}, seed=seed)
    samples = pipeline(num, torch.Generator().manual_seed(seed), num_inference_steps=steps)
    for old in out.glob("[0-9]*.png"):  # an earlier run may have drawn more
        old.unlink()
    images = samples.images if size is None else [field.image(size) for field in samples.fields]
    for i, image in enumerate(images):
        stage.save_picture(image, out / f"{i:05d}.png")
    sheet = grid_sheet(images[:256], columns=min(16, max(1, round(num**0.5))), size=max(64, size or 0))
    stage.save_picture(sheet, out / "samples.png")
    write_bytes(out / "weights.safetensors", save({k: v.contiguous() for k, v in samples.weights.items()}))
    finish_run(out, num=num)
    print(f"{num} fields, their pictures and weights are in {out}")
