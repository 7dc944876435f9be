"""``wsrl demo``: the whole flow on scikit-learn's handwritten digits, minutes on two cores."""

from __future__ import annotations

import shlex
from dataclasses import replace
from typing import TYPE_CHECKING

from wsrl.cli import parser as parsers

if TYPE_CHECKING:
    from wsrl.flow import FlowConfig

QUICK_SIGNALS = {"train": 400, "test": 100}
QUICK_BASE_STEPS, QUICK_EPOCHS, QUICK_DIFFUSION_EPOCHS, QUICK_SAMPLES = 150, 20, 40, 64


def main(argv: list[str]) -> int:
    """Run the command; returns the exit status."""
    from wsrl.cli.run import flow_command
    from wsrl.flow import default_flow
    from wsrl.signals import open_source

    parser = parsers.make_parser("demo", __doc__)
    parser.add_argument("--out", type=str, default="runs/demo", help="folder of the run")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu or cuda[:i]")
    parser.add_argument(
        "--quick", action="store_true", help="half a minute: 500 digits and short trainings, to see that all works"
    )
    options = parsers.parse(parser, argv)
    source = open_source("digits", **({"limit": QUICK_SIGNALS} if options.quick else {}))
    flow = quick(default_flow(source)) if options.quick else default_flow(source)
    return flow_command(source, flow, options, shlex.join(["wsrl", "demo", *argv]))


def quick(flow: FlowConfig) -> FlowConfig:
    """The flow with so few steps that every stage takes seconds; its figures mean little."""
    stages = tuple(replace(stage, steps=QUICK_BASE_STEPS) for stage in flow.base.stages)
    epochs = {"trainer.max_epochs": QUICK_DIFFUSION_EPOCHS, "checkpoint.every_n_epochs": QUICK_DIFFUSION_EPOCHS}
    return replace(
        flow,
        base=replace(flow.base, stages=stages, num_heldout=20),
        classifier=flow.classifier | {"trainer.max_epochs": QUICK_EPOCHS},
        diffusion=flow.diffusion | epochs,
        num_samples=QUICK_SAMPLES,
    )
