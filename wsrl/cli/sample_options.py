"""The options of ``wsrl sample``, and which of them mean something together."""

from collections.abc import Mapping

from wsrl.errors import UserError

MODES = ("interpolate", "variations", "complete")
ALONG = ("weights", "latents", "ode")
BELONGS = {
    "along": ("interpolate",),
    "autoencoder": ("interpolate",),
    "mask": ("complete",),
    "refine": ("complete",),
    "strength": ("variations", "complete"),
    "store": ("interpolate", "variations"),
}
"""Options that mean something with some modes only."""


def make_parser(description: str, num: Mapping[str, int]):
    """The parser of the command line.

    Args:
        description: What the command is for.
        num: Number of fields by mode.
    """
    from wsrl.cli import parser as parsers

    parser = parsers.make_parser("sample", description)
    add, text, number = parser.add_argument, str | None, int | None
    add("model", type=str, help="folder of a diffusion model (wsrl train diffusion)")
    add("--out", type=str, required=True, help="folder for pictures or meshes, and weights.safetensors")
    add("--num", type=number, default=None, help=", ".join(f"{name}: {count}" for name, count in num.items()))
    add("--seed", type=int, default=0, help="the same seed gives the same fields")
    add("--steps", type=int, default=50, help="denoising steps")
    add("--sampler", type=text, default=None, help="ddim, ddpm or dpm++; that of the model")
    classes = "name or number; several in turn: 0,3,7"
    add("--class", type=str, action="append", default=[], metavar="CLASS", help=classes)
    add("--guidance", type=float, default=1.0, help="how strongly classes are followed; 1 as learned")
    add("--size", type=number, default=None, help="longer side of the pictures; the data's grid")
    add("--resolution", type=int, default=128, help="cells of a side of the grid that meshes are found on")
    add("--device", type=str, default="auto", help="auto, cpu or cuda[:i]")
    _add_modes(add, text, number)
    return parser


def _add_modes(add, text, number) -> None:
    """Add the options of fields between, around and from parts of given ones."""
    ends = ("ID_A", "ID_B")
    add("--interpolate", type=str, nargs=2, default=None, metavar=ends, help="fields between two stored ones")
    add("--along", type=text, default=None, help="weights, latents or ode (through the model's noise)")
    add("--autoencoder", type=text, default=None, help="for latents, where the model itself is one of weights")
    add("--variations", type=text, default=None, metavar="ID", help="fields near this one")
    add("--complete", type=text, default=None, metavar="FILE", help="picture with transparent parts, or points")
    add("--mask", type=text, default=None, metavar="FILE", help="white where the picture is known")
    add("--refine", type=number, default=None, help="last steps towards the known part; 50")
    strength = "of variations: 0 the field, 1 new; of the known part's pull"
    add("--strength", type=float | None, default=None, help=strength)
    add("--store", type=text, default=None, help="store of the ids; the one the model was trained on")


def mode_of(parsed) -> str:
    """Which mode is asked for, ``sample`` for new fields.

    Raises:
        UserError: Two are, or an option belongs to another one.
    """
    asked = [mode for mode in MODES if parsed[mode] is not None]
    if len(asked) > 1:
        names = " and ".join(f"--{mode}" for mode in asked)
        raise UserError(f"{names} are given together", allowed="one of them", do="run the command once for each")
    mode = asked[0] if asked else "sample"
    for name, modes in BELONGS.items():
        if parsed[name] is not None and mode not in modes:
            allowed = "with " + " or ".join(f"--{mode}" for mode in modes)
            raise UserError(f"--{name} means nothing here", allowed=allowed, do=f"leave out --{name}")
    if parsed.along not in (None, *ALONG):
        raise UserError(f"--along is {parsed.along!r}", allowed=", ".join(ALONG), do="choose one of them")
    return mode
