"""``wsrl sample``: draw fields from a diffusion model, or make some between, around or from parts of given ones.

Plain: --num new fields, of the classes in --class. With --interpolate: fields between two stored ones. With
--variations: fields near a stored one. With --complete: fields that agree with a part of a picture or shape.
"""

import shlex
from pathlib import Path

from wsrl.cli.display import has_terminal, show_progress
from wsrl.cli.option_names import options_in_messages, picked
from wsrl.cli.sample_options import BELONGS, mode_of

NUM = {"sample": 64, "interpolate": 9, "variations": 16, "complete": 16}


def main(argv: list[str]) -> int:
    """Run the command; returns 0."""
    from wsrl.cli.parser import parse
    from wsrl.cli.sample_options import make_parser

    parsed = parse(make_parser(__doc__, NUM), argv)
    mode = mode_of(parsed)
    from wsrl.evaluation.sampling import SampleOptions  # after the help is out: diffusers takes seconds

    typed = {"classes": parsed["class"], "command": shlex.join(["wsrl", "sample", *argv]), "bar": has_terminal()}
    typed |= {"out": Path(parsed.out), "num": NUM[mode] if parsed.num is None else parsed.num}
    more = {name: parsed[name] for name, modes in BELONGS.items() if mode in modes and parsed[name] is not None}
    with options_in_messages(parsed.keys()):
        options = picked(SampleOptions, parsed, **typed)
        outcome = run(mode, options, parsed[mode] if mode != "sample" else None, more)
    kind = "meshes" if outcome.shapes else "pictures"
    print(f"{options.num} fields, their {kind} and weights are in {options.out}")
    for name, number in outcome.bad.items():
        print(f"{number} of them are {name.replace('_', ' ')}")
    print(*LINES[mode](outcome), sep="\n", end="\n" if mode != "sample" else "")
    return 0


def run(mode: str, options, key, more: dict):
    """Write what is asked for to the folder; returns what was written."""
    if mode == "sample":
        from wsrl.evaluation.sampling import draw_samples

        return draw_samples(options, progress=show_progress)
    if mode == "complete":
        from wsrl.evaluation.part_completion import complete_part

        return complete_part(options, key, **more, progress=show_progress)
    from wsrl.evaluation.sampling_around import interpolate_fields, vary_field

    make = interpolate_fields if mode == "interpolate" else vary_field
    return make(options, key, **more, progress=show_progress)


def interpolation_lines(outcome) -> list[str]:
    """The error along an interpolation, in words."""
    scores = outcome.scores
    lines = [f"error along the interpolation ({unit(outcome)}), mean over its steps:"]
    lines.append(f"  to both ends    {scores['mean_loss']:.4g}  ({scores['mean_loss_of_ends']:.4g} at the ends)")
    lines.append(f"  barrier         {scores['barrier']:.4g}")
    if "mean_to_nearest" in scores:
        of_ends = f"({scores['mean_to_nearest_of_ends']:.4g} of the ends)"
        lines.append(f"  to the nearest other field of the store  {scores['mean_to_nearest']:.4g}  {of_ends}")
    for name, error in zip(outcome.names, scores["error_of_ends"]):
        lines.append(f"  {name} comes back with an error of {error:.4g}")
    return lines


def variation_lines(outcome) -> list[str]:
    """How far variations are from their field, in words."""
    (name,), scores = outcome.names, outcome.scores
    mean = f"{scores['mean_distance']:.4g} ({unit(outcome)})"
    return [f"mean distance to {name} at strength {scores['strength']:g}: {mean}"]


def part_lines(outcome) -> list[str]:
    """How well the known part is met, in words."""
    mine, plain = outcome.scores["complete"], outcome.scores["plain"]
    if outcome.shapes:
        known, plain_known = mine["known_distance"], plain["known_distance"]
        differ, plain_differ = mine["unknown_difference"], plain["unknown_difference"]
        return [
            f"distance at the known points: {known:.4g}  ({plain_known:.4g} unguided)",
            f"1 - IoU between fields: {differ:.3f}  ({plain_differ:.3f} unguided)",
        ]
    spread = "standard deviation of the unknown part between fields"
    return [
        f"PSNR of the known part: {mine['known_psnr']:.2f} dB  ({plain['known_psnr']:.2f} dB unguided)",
        f"{spread}: {mine['unknown_deviation']:.3f}  ({plain['unknown_deviation']:.3f} unguided)",
    ]


def unit(outcome) -> str:
    """What distances are measured in."""
    return "1 - IoU of the insides" if outcome.shapes else "mean squared error of the pictures"


LINES = {
    "sample": lambda outcome: [],
    "interpolate": interpolation_lines,
    "variations": variation_lines,
    "complete": part_lines,
}
