"""``wsrl demo``: the whole flow on scikit-learn's handwritten digits, minutes on two cores."""

import shlex
from pathlib import Path


def main(argv: list[str]) -> int:
    """Run the command; returns the exit status."""
    from wsrl.cli import stage
    from wsrl.cli.run import default_flow, run_flow
    from wsrl.signals import open_source

    parser = stage.make_parser("demo", __doc__)
    parser.add_argument("--out", type=str, default="runs/demo", help="folder of the run")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu or cuda[:i]")
    options = stage.parse(parser, argv)
    source = open_source("digits")
    command = shlex.join(["wsrl", "demo", *argv])
    return run_flow(source, default_flow(source), Path(options.out), device=options.device, command=command)
