"""``wsrl run``: the whole flow on a named source or on a folder of yours.

Base field, store of fields, classifier and diffusion model over the weights, scores, and pictures to look at. A run
that was interrupted goes on where it stopped when the same command is given again.
"""

import json
import shlex
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from wsrl.cli.display import say
from wsrl.errors import UserError
from wsrl.fields.representation import RepresentationConfig
from wsrl.fitting.engine import FitConfig
from wsrl.training.base_field import BaseTrainingConfig

LARGEST_SOURCE = 5_000
FEW = {"train": 4000, "test": 1000}
LARGEST_SHAPES = 108
FEW_SHAPES = {"train": 90, "test": 18}
DIFFUSION_STEPS, DIFFUSION_STEPS_OF_SHAPES = 2_400, 900


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """Configuration of the whole flow.

    Attributes:
        base: Training of the base field.
        representation: What the weights of one field are.
        fit: How a field is fitted.
        classifier: Options of ``wsrl train classifier``, by dotted name.
        diffusion: Options of ``wsrl train diffusion``, by dotted name.
        num_samples: Fields to sample for the scores of the generator.
        num_meshed: Fields of shapes that are meshed for the scores of reconstruction.
        look_size: Longer side of the pictures for looking, in pixels.
        seed: Seed of splits, probes and samples.
    """

    base: BaseTrainingConfig = BaseTrainingConfig()
    representation: RepresentationConfig = RepresentationConfig()
    fit: FitConfig = FitConfig()
    classifier: dict[str, Any] = field(default_factory=dict)
    diffusion: dict[str, Any] = field(default_factory=dict)
    num_samples: int = 256
    num_meshed: int = 18
    look_size: int = 64
    seed: int = 0


def default_flow(source) -> FlowConfig:
    """A configuration that fits the form and the number of a source's signals."""
    from wsrl.cli.defaults import default_base, default_fit, default_representation

    grid, num = source.form.grid, len(source)
    batch = min(64, max(4, num // 4))
    steps = DIFFUSION_STEPS if grid is not None else DIFFUSION_STEPS_OF_SHAPES
    epochs = -(-steps * batch // num)
    return FlowConfig(
        base=default_base(grid, num),
        representation=default_representation("mlora_asym"),
        fit=default_fit("mlora_asym", grid),
        classifier={
            "trainer.max_epochs": min(100, max(1, 60 * 1500 // num)),
            "data.val_fraction": 0.1 if num >= 200 else 0.0,  # a tenth of fewer may be nothing at all
        },
        diffusion={
            "trainer.max_epochs": epochs,
            "trainer.gradient_clip_val": 1.0,
            "checkpoint.every_n_epochs": max(1, epochs // 50),
            "data.batch_size": batch,
            "data.val_fraction": 0.0,
        },
        look_size=64 if grid is not None else 128,
    )


def has_classes(source) -> bool:
    """Whether the selected signals are of at least two classes."""
    return len(set(source.labels()) - {None}) > 1


def main(argv: list[str]) -> int:
    """Run the command; returns 1 where some signals have no field."""
    from wsrl.cli import stage

    parser = make_parser()
    options, source = stage.parse_for_data(parser, argv, data_defaults)
    whole, source = source, limited(source, options)
    if source is not whole:
        say(f"{len(source)} of {len(whole)} signals are used; choose with --source '{{limit: ...}}'")
    flow = with_defaults(parser.instantiate(options).flow, default_flow(source))
    command = shlex.join(["wsrl", "run", *argv])
    return run_flow(source, flow, Path(options.out), data=options.data, device=options.device, command=command)


def with_defaults(flow: FlowConfig, defaults: FlowConfig) -> FlowConfig:
    """The flow whose models keep the default of every option that was not given."""
    return replace(
        flow,
        classifier={**defaults.classifier, **flow.classifier},
        diffusion={**defaults.diffusion, **flow.diffusion},
    )


def make_parser():
    """The parser of the command line."""
    from wsrl.cli import stage

    parser = stage.make_parser("run", __doc__)
    stage.add_source_arguments(parser)
    parser.add_argument("--out", type=str, required=True, help="folder of the run")
    parser.add_argument("--device", type=str, default="auto", help="auto, cpu or cuda[:i]")
    parser.add_class_arguments(FlowConfig, "flow", help="every stage; defaults fit the kind and size of the data")
    return parser


def data_defaults(options, source) -> dict:
    """Defaults by dotted name that fit the form and the number of the signals."""
    from wsrl.cli.stage import dotted

    flow = default_flow(limited(source, options))
    models = {"flow.classifier": flow.classifier, "flow.diffusion": flow.diffusion}
    plain = {key: value for key, value in asdict(flow).items() if key not in ("classifier", "diffusion")}
    return dotted("flow", plain) | models


def limited(source, options):
    """The source, cut to what minutes on two cores can fit where the user set no limit of their own."""
    from wsrl.signals import open_source

    largest, few = (LARGEST_SOURCE, FEW) if not source.form.is_shape else (LARGEST_SHAPES, FEW_SHAPES)
    if len(source) <= largest or options.source.get("limit") is not None:
        return source
    limit = few if {"train", "test"} <= set(source.splits()) else largest
    return open_source(options.data, **{**options.source, "limit": limit})


def run_flow(
    source, flow: FlowConfig, out: Path, *, data: str | None = None, device: str = "auto", command: str = "wsrl run"
) -> int:
    """Chain the stages in ``out``; what an earlier run with the same configuration finished is kept.

    Args:
        source: The signals.
        flow: Configuration of every stage.
        out: Folder of the run.
        data: What names the source, for the stages that open it again.
        device: ``auto``, ``cpu`` or ``cuda[:i]``.
        command: What is recorded as the command.

    Returns:
        0, or 1 where some signals have no field.
    """
    from wsrl.cli import stage
    from wsrl.cli.base import train_base
    from wsrl.cli.build import BuildPlan, Compute, build_store, report
    from wsrl.cli.comparisons import draw_pictures
    from wsrl.cli.train import check_options
    from wsrl.provenance import METRICS_FILE, finish_run, merge_metrics, write_run

    started = time.monotonic()
    check_options("classifier", train_arguments(flow.classifier))
    check_options("diffusion", train_arguments(flow.diffusion))
    stage.claim_folder(out, ("run.json",))
    config = {"source": source.description, "flow": asdict(flow)}
    if (out / "run.json").exists() and not stage.same_config(out, config):
        raise UserError(
            f"{out} holds a run of another configuration",
            allowed="the configuration that the run was started with",
            do="choose another --out, or remove that folder",
        )
    spent = _elapsed_before(out / METRICS_FILE)
    write_run(out, command, config, seed=flow.seed)
    say(f"1/5 base field on {len(source)} signals of {source.name}")
    metrics = train_base(source, flow.base, out / "base", device)
    say("2/5 one field per signal")
    plan = BuildPlan(representation=flow.representation, fit=flow.fit, base=out / "base")
    outcome = build_store(source, plan, out / "fields", data=data, compute=Compute(device=device), command=command)
    status = report(outcome)
    if outcome.num_fields < 8:
        raise UserError(
            f"only {outcome.num_fields} fields could be fitted: too few to learn from",
            allowed="at least 8 readable signals",
            do="add signals; the store with what could be fitted is kept",
        )
    metrics |= _train_models(source, flow, out, device)
    say("5/5 scores and pictures")
    metrics |= _scores(source, flow, out, data)
    draw_pictures(source, out, size=flow.look_size, seed=flow.seed)
    metrics["elapsed_s"] = round(spent + time.monotonic() - started, 1)
    merge_metrics(out / METRICS_FILE, metrics)
    finish_run(out, **metrics)
    print(*_ending(source, out, json.loads((out / METRICS_FILE).read_text())), sep="\n")
    return status


def _ending(source, out: Path, metrics: dict[str, float]) -> list[str]:
    """What a person reads at the end: what was made, its figures, where to look, and how long it took."""
    from wsrl.cli.summary import INDENT, summary
    from wsrl.provenance import METRICS_FILE

    def line(name: str, text: str) -> str:
        return f"{name + ':':<{INDENT}}{text}"

    return [
        f"{out}: base field, fields and models of {len(source):,} signals of {source.name}",
        *summary(metrics),
        line("look at", f"{out / 'samples.png'}, {out / 'reconstruction.png'}"),
        line("all figures", f"{out / METRICS_FILE}"),
        line("took", f"{metrics['elapsed_s']:.0f} s"),
    ]


def _elapsed_before(path: Path) -> float:
    """Seconds that an earlier, finished run took; zero where nothing was finished."""
    try:
        return float(json.loads(path.read_text())["elapsed_s"])
    except (FileNotFoundError, KeyError, ValueError):
        return 0.0


def _train_models(source, flow: FlowConfig, out: Path, device: str) -> dict[str, float]:
    metrics = {}
    if has_classes(source):
        say("3/5 classifier on the weights")
        metrics |= _train("classifier", flow.classifier, flow.seed, out, device)
    else:
        say("3/5 fewer than two classes: no classifier")
    say("4/5 diffusion model over the weights")
    return metrics | _train("diffusion", flow.diffusion, flow.seed, out, device)


def train_arguments(options: dict[str, Any]) -> list[str]:
    """Options by dotted name as arguments of ``wsrl train``; a text stays as it is, without quotes."""
    return [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in options.items()]


def _train(task: str, options: dict[str, Any], seed: int, out: Path, device: str) -> dict[str, float]:
    """Train one model over the weights, or keep the one that is there."""
    from wsrl.cli.train import train
    from wsrl.fitting.devices import choose_device

    root = out / task
    done = root / "metrics.json"
    if done.is_file() and (root / "model").is_dir():
        return json.loads(done.read_text())
    fixed = [
        f"--data.store={out / 'fields'}",
        f"--trainer.default_root_dir={root}",
        f"--seed_everything={seed}",
        f"--trainer.accelerator={'cpu' if choose_device(device).type == 'cpu' else 'gpu'}",
        "--data.num_workers=0",
        "--trainer.logger=true",
        "--ckpt_path=last",
    ]
    return train(task, [*fixed, *train_arguments(options)])


def _scores(source, flow: FlowConfig, out: Path, data: str | None) -> dict[str, float]:
    """Scores of the fields, and where they tell something of readers and of samples, by stage."""
    from wsrl.cli.display import show_progress
    from wsrl.evaluation.generation_scores import evaluate_model
    from wsrl.evaluation.references import GenerationOptions
    from wsrl.evaluation.store_probe import ProbeOptions, probe_store
    from wsrl.evaluation.store_scores import ReconstructionOptions, score_store

    store, common, is_shape = out / "fields", {"data": data, "seed": flow.seed}, source.form.is_shape
    asked = ReconstructionOptions(**common, shapes=flow.num_meshed if is_shape else None)
    found = {"reconstruction": score_store(store, asked, progress=show_progress)}
    if has_classes(source):
        found["probe"] = probe_store(store, ProbeOptions(**common), progress=show_progress)
    if not is_shape:  # sampled shapes are only looked at
        # All training pictures of a source may take minutes: the classifier learns from those of the store's fields.
        options = GenerationOptions(**common, num=flow.num_samples, baselines=True, features_from="store")
        model = out / "diffusion"
        closest = model / "closest.png"
        found["generation"] = evaluate_model(model, store, options, closest=closest, progress=show_progress)
    return {f"{stage}.{name}": value for stage, metrics in found.items() for name, value in metrics.items()}
