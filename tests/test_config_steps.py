"""Every file under ``configs/`` is dry-run: what it describes is built and stepped once, on a handful of tiny signals.

Networks, rates, tokens and options are those of the file; numbers of signals, steps and epochs are not. What two files
have in common is run once.
"""

import json
from dataclasses import asdict, fields, is_dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.alternatives import Way
from pipelines.experiment import FieldExperiment, fingerprint, read_config
from tests.test_configs import CONFIGS, FILES, PIPELINES, STAGES, base, build, stage_of
from wsrl.cli.main import main
from wsrl.fields import BaseField, Representation, RepresentationConfig
from wsrl.fitting.defaults import default_fit, default_representation
from wsrl.fitting.engine import fit, read_signals
from wsrl.fitting.fit_config import FitConfig
from wsrl.fitting.meta import learn_start
from wsrl.signals import open_source
from wsrl.training.base import default_base
from wsrl.training.base_field import BaseTrainingConfig

PICTURES = {"digits": ("L", 8), "fashion-mnist": ("L", 28), "noto-emoji": ("RGB", 32)}
POINTS = {"num_near": 200, "num_uniform": 200, "num_surface": 300, "num_heldout": 100}
ONCE = {"max_epochs": 1, "limit_train_batches": 1, "limit_val_batches": 1, "limit_test_batches": 1}
WHOLE = ("weight_editing", "posteriors", "network_alignment", "benchmark_solids")
"""Pipelines that are run whole: they consist of other things than fields and models over weights."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of the form of each data set, ten in two classes and two splits."""
    root, generator = tmp_path_factory.mktemp("steps"), np.random.default_rng(0)
    for name, (mode, size) in PICTURES.items():
        for split, number in (("train", 4), ("test", 1)):
            for label in ("a", "b"):
                path = root / name / split / label
                path.mkdir(parents=True)
                for i in range(number):
                    shape = (size, size) if mode == "L" else (size, size, 3)
                    Image.fromarray(generator.integers(0, 255, shape, dtype=np.uint8)).save(path / f"{i}.png")
    return root


def signals_of(data: str, root: Path) -> dict:
    """Name and options of a few tiny signals that stand for a data set."""
    if data in PICTURES:
        mode, size = PICTURES[data]
        return {"data": str(root / data), "source": {"mode": mode, "size": size}}
    source = {"limit": {"train": 3, "test": 1}, **POINTS, "cache": str(root / "shapes")}
    return {"data": "solids", "source": source}


def one_step(training: BaseTrainingConfig) -> BaseTrainingConfig:
    """The training of a base field, each stage a step."""
    stages = tuple(replace(stage, steps=1, batch_size=2) for stage in training.stages)
    return replace(training, stages=stages, num_signals=3, num_points=100, num_heldout=1, heldout_steps=1)


def one_fit(config: FitConfig) -> FitConfig:
    """The fit of a field, cut to one step."""
    points = None if config.points_per_step is None else 50
    return replace(config, steps=1, points_per_step=points, target_psnr=None, batch_size=2)


@cache
def trained_base(training: BaseTrainingConfig, data: str, root: Path) -> Path:
    """The folder of a base field after its steps."""
    name = fingerprint([asdict(training), data])
    given = signals_of(data, root)
    experiment = FieldExperiment(name=name, out=str(root / "bases" / name), base=one_step(training), **given)
    assert experiment.train_base()["base.num_train"] == 3
    return experiment.base_folder


@cache
def fitted(kind: RepresentationConfig, config: FitConfig, training, data: str, root: Path) -> None:
    """Fit two signals for a step."""
    source = open_source(signals_of(data, root)["data"], **signals_of(data, root)["source"])
    loaded = BaseField.from_pretrained(trained_base(training, data, root)) if kind.is_adapter else None
    results = list(fit(Representation.build(kind, loaded, **source.form.sizes), read_signals(source, [0, 1]), config))
    assert len(results) == 2 and all(torch.isfinite(w).all() for r in results for w in r.weights.values())


@cache
def store_of(kind: RepresentationConfig, config: FitConfig, training, data: str, root: Path) -> Path:
    """The folder of the fields of a few signals."""
    name = fingerprint([asdict(kind), asdict(config), data])
    base_dir = str(trained_base(training, data, root)) if kind.is_adapter else None
    experiment = FieldExperiment(name=name, out=str(root / "stores"), base_dir=base_dir, **signals_of(data, root))
    assert not experiment.build(name, kind, config).failures
    return root / "stores" / name


def trained(task: str, options: dict, store: Path, root: Path) -> Path:
    """The folder of a model after one step of its training."""
    out = root / "models" / fingerprint([task, options, str(store)])
    fixed = {"data.store": str(store), "data.num_workers": 0, "trainer.default_root_dir": str(out)}
    if task == "classifier":
        fixed["data.val_fraction"] = 0.5  # a twentieth of eight fields may be none
    given = options | fixed | {f"trainer.{name}": value for name, value in ONCE.items()}
    argv = [f"--{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in given.items()]
    if not (out / "model").exists():
        assert main(["train", task, *argv]) == 0
    return out


def trainings(config) -> list[tuple[str | None, str, dict]]:
    """Kind (None for the only one), task and options of every model over weights that an experiment trains."""
    common = getattr(config, "common", {})
    found = [(None, "classifier", common | options) for options in getattr(config, "encoders", {}).values()]
    found += [(None, "classifier", common | reader.options) for reader in getattr(config, "readers", {}).values()]
    if getattr(config, "classifier", {}):
        found.append((next(iter(config.kinds)), "classifier", config.classifier))
    for row in getattr(config, "rows", {}).values():
        if row.latent:
            found.append((row.kind, "autoencoder", config.autoencoder | row.autoencoder))
        found.append((row.kind, "diffusion", config.diffusion | row.model))
    if not hasattr(config, "rows") and getattr(config, "diffusion", {}):
        found.append((None, "diffusion", config.diffusion))
    return found


def kinds_in(value, fit_config: FitConfig, name: str | None = None) -> list:
    """Name, representation, fit and base of every kind of fields in a configuration, however deep."""
    if is_dataclass(value):
        parts = {each.name: getattr(value, each.name) for each in fields(value)}
        fit_config = parts["fit"] if isinstance(parts.get("fit"), FitConfig) else fit_config
        found = []
        if isinstance(parts.get("representation"), RepresentationConfig):
            used = parts["base"] if isinstance(parts.get("base"), str) else None
            found = [(name, parts["representation"], one_fit(fit_config), used)]
        return found + [kind for part in parts.values() for kind in kinds_in(part, fit_config)]
    if isinstance(value, dict):
        return [kind for key, part in value.items() for kind in kinds_in(part, fit_config, key)]
    return []


def shrunk(value, root: Path, data: str):
    """The configuration of a pipeline that is run whole, with few examples and one pass over them."""
    small = {"epochs": 1, "batch_size": 4, "num_train": 5, "num_test": 2, "num_matched": 4, "num_points": 3}
    small |= {"num_samples": 2, "num_steps": 1, "num_shown": 2, "restarts": 1, "limit": None, "pairs": [(1, 2)]}
    small |= {"figure": None, "trends": None, "picture": None, "out": str(root / "whole"), "steps": 1}
    small |= signals_of(data, root) | {"store": str(root / "edited")}
    if is_dataclass(value):
        changed = {each.name: shrunk(getattr(value, each.name), root, data) for each in fields(value)}
        return replace(value, **{k: small.get(k, v) for k, v in changed.items()})
    if isinstance(value, dict):
        return {key: shrunk(part, root, data) for key, part in value.items()}
    return value


def step_sizes(config, root: Path) -> None:
    """Step the defaults of every form of pictures that the experiment on sizes has."""
    for size, mode in {(row.size, row.mode) for row in config.rows.values()}:
        given = {"data": str(root / "noto-emoji"), "source": {"size": size, "mode": mode}}
        form = open_source(given["data"], **given["source"]).form
        out = root / "sizes" / f"{size}{mode}"
        experiment = FieldExperiment(name="sizes", out=str(out), base=one_step(default_base(form, 8)), **given)
        assert experiment.train_base()["base.num_train"] == 3
        kind, how = default_representation("mlora_asym", form), one_fit(default_fit("mlora_asym", form))
        assert not experiment.build("fields", kind, how).failures


def step_alternatives(config, root: Path) -> None:
    """Fit two signals for a step in every way, or learn a start for a step and fit them from it."""
    given = signals_of(config.data, root)
    items = list(read_signals(open_source(given["data"], **given["source"]), [0, 1]))
    coords, values = items[0][2].coords, torch.stack([signal.values for _, _, signal in items])
    for row in config.rows.values():
        base_field = BaseField.from_pretrained(trained_base(config.bases.get(row.base, config.base), config.data, root))
        made, start = row.build(base_field), None
        if row.meta is not None:
            start = learn_start(made, coords, values, replace(row.meta, steps=1, batch_size=2))
        way = Way(row=replace(row, fit=one_fit(row.fit)), representation=made, start=start)
        assert torch.isfinite(way.values(way.fit(items), coords)).all()


def step_pipeline(module: str, path: Path, root: Path) -> None:
    """Build and step what an experiment is made of."""
    run = import_module(f"pipelines.{module}").run
    config = read_config(run, ["--config", str(path)])
    data = getattr(config, "data", "fashion-mnist")
    if module in WHOLE:
        assert run(shrunk(config, root, data))
        return
    if module == "resolution":
        step_sizes(config, root)
        return
    if module == "alternatives":
        step_alternatives(config, root)
        return
    training = getattr(config, "base", None)
    bases = getattr(config, "bases", {})
    if not isinstance(training, BaseTrainingConfig):
        training = BaseTrainingConfig() if training is None else BaseTrainingConfig(model=training)
    kinds = kinds_in(config, getattr(config, "fit", FitConfig()))
    assert kinds
    for _, kind, how, used in kinds:
        fitted(kind, how, bases.get(used, training), data, root)
    by_name = {name: (kind, how) for name, kind, how, _ in reversed(kinds)}
    autoencoders: dict[str, Path] = {}
    for name, task, options in trainings(config):
        kind, how = by_name[name]
        if task == "diffusion" and name in autoencoders:
            options = options | {"model.autoencoder": str(autoencoders[name])}
        model = trained(task, options, store_of(kind, how, training, data, root), root)
        if task == "autoencoder":
            autoencoders[name] = model


def step_stage(path: Path, root: Path) -> None:
    """Build and step what the configuration of a command describes."""
    data = path.parent.name.replace("_", "-")
    training = base(str(path.parent / "base.yaml")).train
    if path.stem == "base":
        assert (trained_base(training, data, root) / "model.safetensors").is_file()
        return
    made = build(str(path.parent / "build.yaml"))
    store = store_of(made.representation, one_fit(made.fit), training, data, root)
    if path.stem != "build":
        trained(path.stem, {"config": str(path)}, store, root)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("path", FILES, ids=[path.relative_to(CONFIGS).as_posix() for path in FILES])
def test_config_is_stepped(path, folder, capsys):
    stages = {stage: name for name, stage in STAGES.items()}
    module = PIPELINES.get(stages[stage_of(path)])
    if module is None:
        step_stage(path, folder)
    else:
        step_pipeline(module, path, folder)
