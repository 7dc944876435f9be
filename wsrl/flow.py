"""The whole flow on one source: base field, store of fields, classifier and diffusion model, scores, and pictures.

What an earlier run with the same configuration finished is kept, so an interrupted run goes on where it stopped.
"""

import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from wsrl.errors import UserError
from wsrl.evaluation.generation import GenerationOptions
from wsrl.evaluation.generation_scores import evaluate_model
from wsrl.evaluation.store_probe import ProbeOptions, probe_store
from wsrl.evaluation.store_scores import ReconstructionOptions, score_store
from wsrl.fields.representation import RepresentationConfig
from wsrl.fitting.build import Compute, build_store
from wsrl.fitting.defaults import default_fit, default_representation
from wsrl.fitting.devices import choose_device
from wsrl.fitting.engine import FitConfig
from wsrl.progress import ShowProgress, say, silent
from wsrl.provenance import METRICS_FILE, RUN_FILE, claim_folder, finish_run, merge_metrics, same_config, write_run
from wsrl.report.comparisons import draw_pictures
from wsrl.signals import open_source
from wsrl.signals.source import Source
from wsrl.store import WeightStore
from wsrl.training.base import default_base, train_base
from wsrl.training.base_field import BaseTrainingConfig
from wsrl.training.run import check_options, train
from wsrl.training.run_folder import LAST
from wsrl.training.train_options import TrainOptions

LARGEST_SOURCE = 5_000
FEW = {"train": 4000, "test": 1000}
LARGEST_SHAPES = 108
FEW_SHAPES = {"train": 90, "test": 18}
DIFFUSION_STEPS, DIFFUSION_STEPS_OF_SHAPES = 2_400, 900
FEWEST_FIELDS = 8


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

    def with_defaults(self, defaults: "FlowConfig") -> "FlowConfig":
        """This flow, whose models keep the default of every option that was not given."""
        models = {name: {**getattr(defaults, name), **getattr(self, name)} for name in ("classifier", "diffusion")}
        return replace(self, **models)


@dataclass(frozen=True, kw_only=True)
class FlowOutcome:
    """What a flow left: its folder, its store of fields, and its metrics by dotted name."""

    folder: Path
    store: WeightStore
    metrics: dict[str, float]


def default_flow(source: Source) -> FlowConfig:
    """A configuration that fits the form and the number of a source's signals."""
    form, num = source.form, len(source)
    batch = min(64, max(4, num // 4))
    steps = DIFFUSION_STEPS_OF_SHAPES if source.form.is_shape else DIFFUSION_STEPS
    epochs = -(-steps * batch // num)
    return FlowConfig(
        base=default_base(form, num),
        representation=default_representation("mlora_asym", form),
        fit=default_fit("mlora_asym", form),
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
        look_size=128 if source.form.is_shape else 64,
    )


def limited_source(source: Source, data: str, options: Mapping[str, Any]) -> Source:
    """The source, cut to what minutes on two cores can fit where no limit was set.

    Args:
        source: What ``data`` and ``options`` opened.
        data: A named source or a path.
        options: Options of the source.
    """
    largest, few = (LARGEST_SHAPES, FEW_SHAPES) if source.form.is_shape else (LARGEST_SOURCE, FEW)
    if len(source) <= largest or options.get("limit") is not None:
        return source
    limit = few if {"train", "test"} <= set(source.splits()) else largest
    return open_source(data, **{**options, "limit": limit})


def has_classes(source: Source) -> bool:
    """Whether the selected signals are of at least two classes."""
    return len(set(source.labels()) - {None}) > 1


def run_flow(
    source: Source,
    flow: FlowConfig | None = None,
    *,
    out: str | os.PathLike,
    data: str | None = None,
    device: str = "auto",
    command: str = "wsrl run",
    progress: ShowProgress = silent,
    built: Callable[[WeightStore], None] = lambda store: None,
) -> FlowOutcome:
    """Chain the stages in ``out``.

    Args:
        source: The signals.
        flow: Configuration of every stage; None for the default of the source.
        out: Folder of the run.
        data: What names the source, for the stages that open it again.
        device: ``auto``, ``cpu`` or ``cuda[:i]``.
        command: What is recorded as the command.
        progress: Shows each stage.
        built: Called with the store when all fields are fitted.

    Raises:
        UserError: The folder holds another run, an option is wrong, or too few signals can be fitted.
    """
    started, out, flow = time.monotonic(), Path(out), flow or default_flow(source)
    # Everything that can be refused is refused before the first stage.
    for task in ("classifier", "diffusion"):
        check_options(task, _options(task, flow, out, device))
    claim_folder(out, (RUN_FILE,))
    config = {"source": source.description, "flow": asdict(flow)}
    if (out / RUN_FILE).exists() and not same_config(out, config):
        raise UserError(
            f"{out} holds a run of another configuration",
            allowed="the configuration that the run was started with",
            do="choose another --out, or remove that folder",
        )
    spent = _elapsed_before(out / METRICS_FILE)
    write_run(out, command, config, seed=flow.seed)
    # Signals to weights, weights to models, models to scores.
    metrics, store = _fields(source, flow, out, data, device, command, progress)
    built(store)
    if len(store) < FEWEST_FIELDS:
        raise UserError(
            f"only {len(store)} fields could be fitted: too few to learn from",
            allowed=f"at least {FEWEST_FIELDS} readable signals",
            do="add signals; the store with what could be fitted is kept",
        )
    metrics |= _models(source, flow, out, device, progress)
    say(progress, "5/5 scores and pictures")
    metrics |= _scores(source, flow, out, data, progress)
    draw_pictures(source, out, size=flow.look_size, seed=flow.seed)
    metrics["elapsed_s"] = round(spent + time.monotonic() - started, 1)
    merge_metrics(out / METRICS_FILE, metrics)
    finish_run(out, **metrics)
    return FlowOutcome(folder=out, store=store, metrics=json.loads((out / METRICS_FILE).read_text()))


def _fields(
    source: Source, flow: FlowConfig, out: Path, data: str | None, device: str, command: str, progress: ShowProgress
) -> tuple[dict[str, float], WeightStore]:
    """The base field, and one field per signal."""
    say(progress, f"1/5 base field on {len(source)} signals of {source.name}")
    base = train_base(source, flow.base, out=out / "base", device=device, progress=progress)
    say(progress, "2/5 one field per signal")
    store = build_store(
        source,
        flow.representation,
        flow.fit,
        base=base,
        out=out / "fields",
        data=data,
        compute=Compute(device=device),
        command=command,
        progress=progress,
    )
    return dict(base.metrics), store


def _models(source: Source, flow: FlowConfig, out: Path, device: str, progress: ShowProgress) -> dict[str, float]:
    """Classifier and diffusion model over the weights."""
    metrics = {}
    if has_classes(source):
        say(progress, "3/5 classifier on the weights")
        metrics |= _trained("classifier", flow, out, device, progress)
    else:
        say(progress, "3/5 fewer than two classes: no classifier")
    say(progress, "4/5 diffusion model over the weights")
    return metrics | _trained("diffusion", flow, out, device, progress)


def _options(task: str, flow: FlowConfig, out: Path, device: str) -> TrainOptions:
    """Options of the training of a model."""
    accelerator = "cpu" if choose_device(device).type == "cpu" else "gpu"
    options = TrainOptions(
        store=out / "fields",
        out=out / task,
        data={"num_workers": 0},
        trainer={"accelerator": accelerator, "logger": True},
        seed=flow.seed,
        ckpt_path=LAST,
    )
    return options.changed(getattr(flow, task))


def _trained(task: str, flow: FlowConfig, out: Path, device: str, progress: ShowProgress) -> dict[str, float]:
    """Train one model over the weights, or keep the one that is there; its metrics."""
    done = out / task / METRICS_FILE
    if done.is_file() and (out / task / "model").is_dir():
        return json.loads(done.read_text())
    return train(task, _options(task, flow, out, device), progress=progress).metrics


def _scores(source: Source, flow: FlowConfig, out: Path, data: str | None, progress: ShowProgress) -> dict[str, float]:
    """Scores of the fields, and where they tell something of readers and of samples, by stage."""
    store, common, is_shape = out / "fields", {"data": data, "seed": flow.seed}, source.form.is_shape
    asked = ReconstructionOptions(**common, shapes=flow.num_meshed if is_shape else None)
    scores = {"reconstruction": score_store(store, asked, progress=progress)}
    if has_classes(source):
        scores["probe"] = probe_store(store, ProbeOptions(**common), progress=progress)
    if not is_shape:  # sampled shapes are only looked at
        # All training pictures of a source may take minutes: the classifier learns from those of the store's fields.
        options = GenerationOptions(**common, num=flow.num_samples, baselines=True, features_from="store")
        model = out / "diffusion"
        closest = model / "closest.png"
        scores["generation"] = evaluate_model(model, store, options, closest=closest, progress=progress)
    return {f"{stage}.{name}": value for stage, metrics in scores.items() for name, value in metrics.items()}


def _elapsed_before(path: Path) -> float:
    """Seconds that an earlier, finished run took; zero where nothing was finished."""
    try:
        return float(json.loads(path.read_text())["elapsed_s"])
    except (FileNotFoundError, KeyError, ValueError):
        return 0.0
